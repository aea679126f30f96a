"""Preferences: the contract, how evenly they lie, and that they reach a front that a weighted sum would not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l.errors import InputError
from l2l.pareto import find_front
from l2l.searchers.controllers.controller import Controller
from l2l.searchers.gp.gp_critic import GpCritic
from l2l.searchers.preferences import Preferences, compute_weights
from l2l.searchers.random import Random
from l2l.space import Categorical, SearchSpace
from l2l.types import Outcome, Status, Trial

SPACE = SearchSpace({"x": Categorical(options=tuple(range(21)))}, lambda values, spec: None)


def concave(x: int) -> tuple[float, float]:
    """Two objectives whose front bends inwards: every weighted sum prefers one of its ends."""
    share = x / 20
    return (share**3, (1 - share) ** 3)


def run_search(searcher: Any, trials: int = 320, seed: int = 0) -> tuple[Any, list[Trial]]:
    key = jax.random.key(seed)
    state, done = searcher.init(SPACE, key), list[Trial]()
    for first in range(0, trials, 8):
        asked = searcher.ask(state, jax.random.fold_in(key, first), 8)
        batch = [
            Trial(first + n, each, (first, 8), (first + n,), Status.COMPLETE, Outcome(), concave(each.values["x"]))  # pyright: ignore
            for n, each in enumerate(asked)
        ]
        state, done = searcher.tell(state, batch), [*done, *batch]
    return state, done


@settings(deadline=None)  # the first example imports SciPy
@given(count=st.integers(2, 9), objectives=st.integers(2, 5))
def test_weights_are_positive_different_and_of_sum_one(count: int, objectives: int) -> None:
    found = [compute_weights(number, count, objectives) for number in range(count)]
    assert all(each.min() > 0 and each.sum() == pytest.approx(1) for each in found)
    assert len({tuple(each.round(9)) for each in found}) == count
    if objectives == 2:
        assert np.diff([each[0] for each in found]) == pytest.approx([1 / count] * (count - 1))


def test_each_copy_ends_where_its_preference_lies() -> None:
    state, done = run_search(Preferences(count=4))
    ends = [[each.candidate.values["x"] for each in done[-64:] if each.number % 4 == n] for n in range(4)]
    middles = [float(np.median(each)) for each in ends]  # pyright: ignore
    # What is missing at most, found by going through all options.
    wanted = [
        min(range(21), key=lambda x, n=n: float((compute_weights(n, 4, 2) * (1 - np.array(concave(x)))).max()))
        for n in range(4)
    ]
    assert middles == sorted(middles)
    assert np.abs(np.subtract(middles, wanted)).max() <= 3
    assert set(Preferences(count=4).summary(state)) >= {"preference0_entropy", "preference3_reward"}


def test_what_failed_is_told_too_and_a_batch_may_be_short() -> None:
    searcher = Preferences(count=3)
    state = searcher.init(SPACE, jax.random.key(0))
    asked = searcher.ask(state, jax.random.key(1), 2)
    failed = [Trial(n, each, (0, 2), (n,), Status.FAILED) for n, each in enumerate(asked)]
    state = searcher.tell(state, failed)
    assert (state.trial_count, state.low) == (2, ())
    asked = searcher.ask(state, jax.random.key(2), 1)
    state = searcher.tell(state, [Trial(2, asked[0], (2, 1), (2,), Status.COMPLETE, Outcome(), (1.0, 2.0))])
    assert (state.trial_count, state.low, state.high) == (3, (1.0, 2.0), (1.0, 2.0))


def test_replayed_tells_give_the_same_asks() -> None:
    searcher = Preferences(Random(), 2)
    state, done = run_search(searcher, 24)
    again = searcher.init(SPACE, jax.random.key(0))
    for first in range(0, 24, 8):
        again = searcher.tell(again, done[first : first + 8])
    assert searcher.ask(again, jax.random.key(5), 8) == searcher.ask(state, jax.random.key(5), 8)


def test_the_front_is_reached_from_end_to_end() -> None:
    _, done = run_search(Preferences(count=5))
    late = [concave(each.candidate.values["x"]) for each in done[160:]]  # pyright: ignore
    assert len({late[place] for place in find_front(late)}) >= 5


def test_what_an_earlier_search_told_is_part_of_it() -> None:
    assert Preferences(Controller()).digest(SPACE) is None
    assert Preferences(GpCritic()).digest(SPACE) is None

    class Told(Random):
        def digest(self, space: Any) -> str:
            return "abc"

    assert Preferences(Told()).digest(SPACE) == "abc"


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="count must be an integer of at least 2"):
        Preferences(count=1)
    with pytest.raises(InputError, match="must be a Searcher, such as l2l"):
        Preferences(Controller)  # pyright: ignore
    searcher = Preferences()
    state = searcher.init(SPACE, jax.random.key(0))
    asked = searcher.ask(state, jax.random.key(1), 1)
    told = Trial(0, asked[0], (0, 1), (0,), Status.COMPLETE, Outcome(), (1.0,))
    for reward in ((1.0,), (1.0,) * 10):
        with pytest.raises(InputError, match="preferences are for 2 to 9 objectives"):
            searcher.tell(state, [replace(told, reward=reward)])
