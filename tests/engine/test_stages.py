"""A training in parts is the training in one go: the same bits, from the same program."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l.engine.checkpoint import Checkpoints, Damaged
from l2l.engine.fit import Fitted
from l2l.engine.population import Population, Stage, bare
from l2l.tasks.digits import Digits
from search_spaces import cnn, mlp

EPOCHS = 5
SPACES = {"mlp": mlp.space(widths=(16,), depth=(1, 2)), "cnn": cnn.space(filters=(4,), depth=(1, 1))}
POPULATIONS = {name: Population(space, Digits(), EPOCHS) for name, space in SPACES.items()}
KEY = jax.random.key(3)


def same(left: Any, right: Any) -> bool:
    """Whether two trees are equal to the last bit."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(one.tobytes() == other.tobytes() for a, b in pairs for one, other in [(*bare([a]), *bare([b]))])


def whole(fitted: Fitted) -> Fitted:
    return fitted._replace(state=None)


@pytest.mark.parametrize(("name", "lanes"), [("mlp", 3), ("cnn", 1)])
@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1), stops=st.sets(st.integers(1, EPOCHS - 1), max_size=EPOCHS - 1))
def test_a_training_in_parts_gives_the_bits_of_one_go(name: str, lanes: int, seed: int, stops: set[int]) -> None:
    population, space = POPULATIONS[name], SPACES[name]
    candidate = space.sample(random.Random(seed))
    held, members = population.bucket(candidate), [(candidate, KEY)]
    ((once,), _) = population.train(members, held, lanes)
    begin, states, compiled = 0, list[Any](), 0.0
    for end in [*sorted(stops), None]:
        ((fitted,), seconds) = population.train(members, held, lanes, Stage(begin, end, states))
        compiled += seconds["compile"]
        if end is not None:
            assert fitted.state is not None
            assert same([values[:end] for values in once.curve.values()], list(fitted.curve.values()))
            begin, states = end, [bare(fitted.state)]
    assert compiled == 0
    assert fitted.state is None
    assert same(whole(fitted), once)


def test_what_a_file_keeps_is_what_goes_on(tmp_path: Path) -> None:
    population, kept = POPULATIONS["mlp"], Checkpoints(tmp_path / "rungs")
    candidate = SPACES["mlp"].sample(random.Random(0))
    held, members = population.bucket(candidate), [(candidate, KEY)]
    ((half,), _) = population.train(members, held, 1, Stage(end=2))
    assert half.state is not None
    assert kept.epoch(7) == 0
    kept.save(7, 2, "mine", bare(half.state))
    assert kept.epoch(7) == 2
    ((fitted,), _) = population.train(members, held, 1, Stage(2, None, [kept.load(7, 2, "mine")]))
    assert same(whole(fitted), population.train(members, held, 1)[0][0])


def test_a_file_that_is_torn_changed_or_of_another_program_is_no_checkpoint(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "rungs")
    leaves = [np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((0, 2), np.int32), np.array(3, np.uint32)]
    kept.save(1, 3, "mine", leaves)
    (path,) = (tmp_path / "rungs").iterdir()
    again = kept.load(1, 3, "mine")
    assert [(each.dtype, each.shape) for each in again] == [(each.dtype, each.shape) for each in leaves]
    assert same(again, leaves)
    content = path.read_bytes()
    for wrong in (content[:-1], content[: len(content) // 2], b"", b"\n\n", content.replace(b"mine", b"mind")):
        path.write_bytes(wrong)
        with pytest.raises(Damaged):
            kept.load(1, 3, "mine")
    path.write_bytes(content)
    with pytest.raises(Damaged, match="another program"):
        kept.load(1, 3, "yours")
    with pytest.raises(Damaged):
        kept.load(2, 3, "mine")
    population = POPULATIONS["mlp"]
    candidate = SPACES["mlp"].sample(random.Random(0))
    with pytest.raises(Damaged, match="another program"):
        population.train([(candidate, KEY)], population.bucket(candidate), 1, Stage(3, None, [again]))
