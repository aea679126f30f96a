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
from l2l.searchers.random_search import Random
from l2l.space import Categorical, SearchSpace
from l2l.types import Outcome, Status, Trial

SPACE = SearchSpace({"x": Categorical(options=tuple(range(21)))}, lambda values, spec: None)


def concave(x: int) -> tuple[float, float]:
    """Two objectives whose front bends inwards: every weighted sum prefers one of its ends."""
    share = x / 20
    return (share**3, (1 - share) ** 3)


def run_search(searcher: Any, trials: int = 320, seed: int = 0) -> tuple[Any, list[Trial]]:
    key = jax.random.key(seed)
    state, trials_so_far = searcher.init(SPACE, key), list[Trial]()
    for first in range(0, trials, 8):
        asked = searcher.ask(state, jax.random.fold_in(key, first), 8)
        batch = [
            Trial(
                first + n,
                candidate,
                (first, 8),
                (first + n,),
                Status.COMPLETE,
                Outcome(),
                concave(candidate.values["x"]),
            )  # pyright: ignore
            for n, candidate in enumerate(asked)
        ]
        state, trials_so_far = searcher.tell(state, batch), [*trials_so_far, *batch]
    return state, trials_so_far


@settings(deadline=None)  # the first example imports SciPy
@given(count=st.integers(2, 9), objectives=st.integers(2, 5))
def test_weights_are_positive_different_and_of_sum_one(count: int, objectives: int) -> None:
    weights = [compute_weights(number, count, objectives) for number in range(count)]
    assert all(vector.min() > 0 and vector.sum() == pytest.approx(1) for vector in weights)
    assert len({tuple(vector.round(9)) for vector in weights}) == count
    if objectives == 2:
        assert np.diff([vector[0] for vector in weights]) == pytest.approx([1 / count] * (count - 1))


def test_each_copy_ends_where_its_preference_lies() -> None:
    state, trials = run_search(Preferences(count=4))
    ends = [[trial.candidate.values["x"] for trial in trials[-64:] if trial.number % 4 == n] for n in range(4)]
    middles = [float(np.median(values)) for values in ends]  # pyright: ignore
    # What is missing at most, found by going through all options.
    expected = [
        min(range(21), key=lambda x, n=n: float((compute_weights(n, 4, 2) * (1 - np.array(concave(x)))).max()))
        for n in range(4)
    ]
    assert middles == sorted(middles)
    assert np.abs(np.subtract(middles, expected)).max() <= 3
    assert set(Preferences(count=4).summary(state)) >= {"preference0_entropy", "preference3_reward"}


def test_what_failed_is_told_too_and_a_batch_may_be_short() -> None:
    searcher = Preferences(count=3)
    state = searcher.init(SPACE, jax.random.key(0))
    asked = searcher.ask(state, jax.random.key(1), 2)
    failed = [Trial(n, candidate, (0, 2), (n,), Status.FAILED) for n, candidate in enumerate(asked)]
    state = searcher.tell(state, failed)
    assert (state.trial_count, state.low) == (2, ())
    asked = searcher.ask(state, jax.random.key(2), 1)
    state = searcher.tell(state, [Trial(2, asked[0], (2, 1), (2,), Status.COMPLETE, Outcome(), (1.0, 2.0))])
    assert (state.trial_count, state.low, state.high) == (3, (1.0, 2.0), (1.0, 2.0))


def test_replayed_tells_give_the_same_asks() -> None:
    searcher = Preferences(Random(), 2)
    state, trials = run_search(searcher, 24)
    replayed = searcher.init(SPACE, jax.random.key(0))
    for first in range(0, 24, 8):
        replayed = searcher.tell(replayed, trials[first : first + 8])
    assert searcher.ask(replayed, jax.random.key(5), 8) == searcher.ask(state, jax.random.key(5), 8)


def test_the_front_is_reached_from_end_to_end() -> None:
    _, trials = run_search(Preferences(count=5))
    late = [concave(trial.candidate.values["x"]) for trial in trials[160:]]  # pyright: ignore
    assert len({late[index] for index in find_front(late)}) >= 5


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
    trial = Trial(0, asked[0], (0, 1), (0,), Status.COMPLETE, Outcome(), (1.0,))
    for reward in ((1.0,), (1.0,) * 10):
        with pytest.raises(InputError, match="preferences are for 2 to 9 objectives"):
            searcher.tell(state, [replace(trial, reward=reward)])
