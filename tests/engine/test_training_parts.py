"""A training in parts gives the bits of the training in one go, from the same program."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from l2l.engine.checkpoint import Checkpoints, DamagedCheckpoint, flatten_state
from l2l.engine.fit import Fit
from l2l.engine.population import Population, TrainingPart
from l2l.space import Candidate

KEY = jax.random.key(3)


def is_same(left: Any, right: Any) -> bool:
    """Whether two trees are equal to the last bit."""
    pairs = zip(flatten_state(left), flatten_state(right), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


def sample_candidate(population: Population, seed: int = 0) -> Candidate:
    return population.space.sample(random.Random(seed))


@pytest.mark.exact
@pytest.mark.parametrize("stops", [(), (1,), (2,), (1, 2)])
@pytest.mark.parametrize(("name", "lanes", "seed"), [("mlp", 4, 0), ("mlp", 4, 1), ("cnn", 1, 0)])
def test_a_training_in_parts_gives_the_bits_of_one_go(
    populations: Mapping[str, Population], name: str, lanes: int, seed: int, stops: Sequence[int]
) -> None:
    population = populations[name]
    candidate = sample_candidate(population, seed)
    bucket, members = population.bucket(candidate), [(candidate, KEY)]
    ((whole,), _) = population.train(members, bucket, lanes)
    begin, states, compiled = 0, list[Any](), 0.0
    for end in [*stops, None]:
        ((fit,), seconds) = population.train(members, bucket, lanes, TrainingPart(begin, end, states))
        compiled += seconds["compile"]
        if end is not None:
            assert fit.state is not None
            assert is_same([values[:end] for values in whole.curve.values()], list(fit.curve.values()))
            begin, states = end, [flatten_state(fit.state)]
    assert compiled == 0
    assert fit.state is None
    assert is_same(without_state(fit), whole)


def without_state(fit: Fit) -> Fit:
    return fit._replace(state=None)


@pytest.mark.exact
def test_a_training_goes_on_from_a_file(populations: Mapping[str, Population], tmp_path: Path) -> None:
    population, checkpoints = populations["mlp"], Checkpoints(tmp_path / "rungs")
    candidate = sample_candidate(population)
    bucket, members = population.bucket(candidate), [(candidate, KEY)]
    ((half,), _) = population.train(members, bucket, 1, TrainingPart(end=2))
    assert half.state is not None
    assert checkpoints.find_last_epoch(7) == 0
    checkpoints.save(7, 2, "mine", flatten_state(half.state))
    assert checkpoints.find_last_epoch(7) == 2
    ((fit,), _) = population.train(members, bucket, 1, TrainingPart(2, None, [checkpoints.load(7, 2, "mine")]))
    assert is_same(without_state(fit), population.train(members, bucket, 1)[0][0])


def test_a_file_that_is_torn_changed_or_of_another_program_is_no_checkpoint(
    populations: Mapping[str, Population], tmp_path: Path
) -> None:
    checkpoints = Checkpoints(tmp_path / "rungs")
    leaves = [np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((0, 2), np.int32), np.array(3, np.uint32)]
    checkpoints.save(1, 3, "mine", leaves)
    (path,) = (tmp_path / "rungs").iterdir()
    loaded = checkpoints.load(1, 3, "mine")
    assert [(leaf.dtype, leaf.shape) for leaf in loaded] == [(leaf.dtype, leaf.shape) for leaf in leaves]
    assert is_same(loaded, leaves)
    content = path.read_bytes()
    for wrong in (content[:-1], content[: len(content) // 2], b"", b"\n\n", content.replace(b"mine", b"mind")):
        path.write_bytes(wrong)
        with pytest.raises(DamagedCheckpoint):
            checkpoints.load(1, 3, "mine")
    path.write_bytes(content)
    with pytest.raises(DamagedCheckpoint, match="another program"):
        checkpoints.load(1, 3, "yours")
    with pytest.raises(DamagedCheckpoint):
        checkpoints.load(2, 3, "mine")
    population = populations["mlp"]
    candidate = sample_candidate(population)
    with pytest.raises(DamagedCheckpoint, match="another program"):
        population.train([(candidate, KEY)], population.bucket(candidate), 1, TrainingPart(3, None, [loaded]))
