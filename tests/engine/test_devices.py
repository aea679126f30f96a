"""Programs on several devices: four that the host stands in for, in processes of their own."""

from __future__ import annotations

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
draw = random.Random(0)
# Steps short enough that what rounding changes does not grow.
drawn = [space.complete(lambda name, c: c.value_at(0.1 if "rate" in name else draw.random())) for _ in range(lanes)]
members = [(candidate, jax.random.key(number)) for number, candidate in enumerate(drawn)]
bucket = population.bucket(members[0][0])
assert {population.bucket(candidate).name for candidate, _ in members} == {bucket.name}
if room:  # of what the largest candidate needs
    needed = population.capacity.measure(limits.select_largest(space, bucket)).bytes
    limits.device_memory = lambda: int(room * needed)
    assert population.refusal(members[0][0]) is None
layout = population.capacity.choose_layout(bucket, lanes)
fits, _ = population.train(members, bucket, lanes)
program, is_new = population.programs.get(bucket, {}, lanes)
assert not is_new
memory = program.run.memory_analysis()
print(json.dumps({
    "devices": layout.devices, "axis": layout.axis, "arguments": memory.argument_size_in_bytes,
    "temporary": memory.temp_size_in_bytes,
    "curves": [{name: np.asarray(values).tolist() for name, values in each.curve.items()} for each in fits],
    "weights": [[np.asarray(leaf).ravel().tolist() for leaf in jax.tree.leaves(each.params)] for each in fits],
}))
"""


def trained(devices: int, family: str, lanes: int, room: float = 0.0) -> Mapping[str, Any]:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SCRIPT, family, str(lanes), str(room)]
    done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def same(found: Mapping[str, Any], expected: Mapping[str, Any], tolerance: float) -> None:
    for name in ("weights", "curves"):
        for one, other in zip(found[name], expected[name], strict=True):
            keys = one if isinstance(one, dict) else range(len(one))
            for left, right in ((one[key], other[key]) for key in keys):
                np.testing.assert_allclose(left, right, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("family", ["mlp", "cnn"])
def test_lanes_on_four_devices_give_what_they_give_on_one(family: str) -> None:
    one, four = trained(1, family, 8), trained(4, family, 8)
    assert (one["devices"], four["devices"], four["axis"]) == (1, 4, "lane")
    same(four, one, 1e-5)
    # A device holds the data and two lanes, and gives the bits of a program that has no others.
    two = trained(1, family, 2)
    assert two["weights"] == four["weights"][:2]
    assert four["arguments"] == pytest.approx(two["arguments"], rel=0.01)
    assert four["arguments"] < one["arguments"]


def test_devices_of_any_number_are_all_busy() -> None:
    one, three = trained(1, "mlp", 8), trained(3, "mlp", 8)
    assert (three["devices"], three["axis"]) == (3, "lane")
    same(three, one, 1e-5)
    assert [count_lane_devices(lanes, 3) for lanes in (1, 2, 4, 8, 16)] == [1, 2, 2, 3, 3]
    assert [count_lane_devices(8, devices) for devices in (1, 2, 4, 5, 6, 8, 9)] == [1, 2, 4, 4, 4, 8, 8]
    assert DeviceLayout().pad_lanes(7) == 7


def test_a_candidate_too_large_for_a_device_has_its_batches_dealt_out() -> None:
    one, four = trained(1, "cnn", 1), trained(4, "cnn", 1, room=0.6)
    assert (four["devices"], four["axis"]) == (4, "batch")
    same(four, one, 1e-5)
    assert four["temporary"] < 0.7 * one["temporary"]


def test_lanes_are_dealt_out_evenly() -> None:
    assert [count_batch_devices(parts, 4) for parts in (1, 2, 3, 4, 6, 8, 9, 16)] == [1, 2, 3, 4, 3, 4, 3, 4]
    assert [count_batch_devices(16, devices) for devices in (1, 2, 3, 5, 8, 12, 32)] == [1, 2, 2, 4, 8, 8, 16]
