"""Programs on several devices: four that the host stands in for, in processes of their own."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l2l.engine.devices import DeviceLayout, count_batch_devices, count_lane_devices

SCRIPT = """
import json, random, sys
import jax, numpy as np
from l2l.engine import limits
from l2l.engine.population import Population
from l2l.tasks.digits import Digits
from search_spaces import cnn, mlp, mixed

family, lanes, room = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
space = mixed.space(families=(family,), filters=(8,), kernels=(3,), widths=(16,), batch_sizes=(32, 64))
population = Population(space, Digits(epochs=2), None)
rng = random.Random(0)
# Steps so short that differences by rounding do not grow.
candidates = [space.complete(lambda name, c: c.value_at(0.1 if "rate" in name else rng.random())) for _ in range(lanes)]
members = [(candidate, jax.random.key(number)) for number, candidate in enumerate(candidates)]
bucket = population.bucket(candidates[0])
assert {population.bucket(candidate).name for candidate in candidates} == {bucket.name}
if room:  # a share of the memory that the largest candidate needs
    bytes_needed = population.capacity.measure(limits.select_largest(space, bucket)).bytes
    limits.device_memory = lambda: int(room * bytes_needed)
    assert population.refusal(candidates[0]) is None
layout = population.capacity.choose_layout(bucket, lanes)
fits, _ = population.train(members, bucket, lanes)
program, is_new = population.programs.get(bucket, {}, lanes)
assert not is_new
memory = program.run.memory_analysis()
print(json.dumps({
    "devices": layout.devices, "axis": layout.axis, "arguments": memory.argument_size_in_bytes,
    "temporary": memory.temp_size_in_bytes,
    "curves": [{name: np.asarray(values).tolist() for name, values in fit.curve.items()} for fit in fits],
    "weights": [[np.asarray(leaf).ravel().tolist() for leaf in jax.tree.leaves(fit.params)] for fit in fits],
}))
"""


@functools.cache
def train(devices: int, family: str, lanes: int, room: float = 0.0) -> Mapping[str, Any]:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SCRIPT, family, str(lanes), str(room)]
    process = subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout)


def assert_close(result: Mapping[str, Any], expected: Mapping[str, Any], tolerance: float) -> None:
    for name in ("weights", "curves"):
        for one, other in zip(result[name], expected[name], strict=True):
            keys = one if isinstance(one, dict) else range(len(one))
            for left, right in ((one[key], other[key]) for key in keys):
                np.testing.assert_allclose(left, right, atol=tolerance, rtol=tolerance)


@pytest.mark.exact
@pytest.mark.parametrize("family", ["mlp", pytest.param("cnn", marks=pytest.mark.slow)])
def test_lanes_on_four_devices_give_what_they_give_on_one(family: str) -> None:
    one, four = train(1, family, 8), train(4, family, 8)
    assert (one["devices"], four["devices"], four["axis"]) == (1, 4, "lane")
    assert_close(four, one, 1e-5)
    # A device has the data and two lanes, and gives the bits of a program of two lanes.
    two = train(1, family, 2)
    assert two["weights"] == four["weights"][:2]
    assert four["arguments"] == pytest.approx(two["arguments"], rel=0.01)
    assert four["arguments"] < one["arguments"]


def test_any_number_of_devices_is_busy() -> None:
    one, three = train(1, "mlp", 8), train(3, "mlp", 8)
    assert (three["devices"], three["axis"]) == (3, "lane")
    assert_close(three, one, 1e-5)
    assert [count_lane_devices(lanes, 3) for lanes in (1, 2, 4, 8, 16)] == [1, 2, 2, 3, 3]
    assert [count_lane_devices(8, devices) for devices in (1, 2, 4, 5, 6, 8, 9)] == [1, 2, 4, 4, 4, 8, 8]
    assert DeviceLayout().pad_lanes(7) == 7


def test_the_batches_of_a_candidate_too_large_for_a_device_are_split() -> None:
    one, four = train(1, "cnn", 1), train(4, "cnn", 1, room=0.6)
    assert (four["devices"], four["axis"]) == (4, "batch")
    assert_close(four, one, 1e-5)
    assert four["temporary"] < 0.7 * one["temporary"]


def test_batches_are_split_evenly() -> None:
    assert [count_batch_devices(examples, 4) for examples in (1, 2, 3, 4, 6, 8, 9, 16)] == [1, 2, 3, 4, 3, 4, 3, 4]
    assert [count_batch_devices(16, devices) for devices in (1, 2, 3, 5, 8, 12, 32)] == [1, 2, 2, 4, 8, 8, 16]
