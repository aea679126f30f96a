"""Local search: the contract, and its climbs on landscapes whose summits are known."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import pytest

from l2l.errors import InputError
from l2l.searchers.core.base import ArraySearcherState
from l2l.searchers.local_search import LocalSearch
from l2l.space import Candidate, Categorical, Integer, SearchSpace
from l2l.testing import SearcherContract, finish_trials

Reward = Callable[[Candidate], float | None]
LINE = SearchSpace({"x": Integer(low=0, high=40)}, lambda values, spec: None)
HILL = SearchSpace(
    {
        "a": Categorical(options=tuple("pqrst")),
        "b": Categorical(options=tuple("pqrst")),
        "c": Integer(low=0, high=7),
        "d": Integer(low=0, high=7, when={"a": ["q", "r"]}),
    },
    lambda values, spec: None,
)


class TestLocal(SearcherContract):
    def searcher(self) -> LocalSearch:
        return LocalSearch()


def search(
    searcher: LocalSearch, space: SearchSpace[None], reward: Reward, trials: int, batch: int = 1
) -> tuple[ArraySearcherState, list[Candidate]]:
    """The state after a search, and its candidates in order."""
    state, candidates = searcher.init(space, jax.random.key(0)), list[Candidate]()
    for first in range(0, trials, batch):
        asked = searcher.ask(state, jax.random.key(first), batch)
        state = searcher.tell(state, finish_trials(asked, first, reward))
        candidates += asked
    return state, candidates


def height(candidate: Candidate) -> float:
    """One hill: the summit is at r, p, 5, 2."""
    values = candidate.values
    near = (values["a"] == "r") + (values["b"] == "p") - abs(int(values["c"] or 0) - 5) / 7
    return near - abs(int(values.get("d") or 0) - 2) / 7


def steps(one: Candidate, other: Candidate) -> int:
    """How many of the shared choices differ, a number by as much as it does."""
    shared = [(one.values[name], other.values[name]) for name in one.values if name in other.values]
    return sum(abs(a - b) if isinstance(a, int) and isinstance(b, int) else a != b for a, b in shared)


def test_it_climbs_to_the_summit() -> None:
    state, candidates = search(LocalSearch(first=5), HILL, height, 70)
    best = max(candidates, key=height)
    assert best.values == {"a": "r", "b": "p", "c": 5, "d": 2}
    assert candidates.index(best) < 64
    # Each step is one choice away from the best that was known, until the summit is surrounded.
    around = [candidates[number] for number in range(5, candidates.index(best))]
    tops = [max(candidates[:number], key=height) for number in range(5, candidates.index(best))]
    assert [steps(*pair) for pair in zip(around, tops, strict=True)] == [1] * len(tops)
    assert LocalSearch().summary(state)["climb_trials"] >= 1


@pytest.mark.parametrize("batch", [1, 8])
def test_no_candidate_of_a_finite_space_is_tried_twice(batch: int) -> None:
    space = SearchSpace(
        {"a": Integer(low=0, high=7), "b": Categorical(options=tuple("pqrstuvw"))}, lambda values, spec: None
    )
    rewards = np.random.default_rng(0).random(64)
    _, candidates = search(LocalSearch(first=4), space, lambda candidate: rewards[hash_of(candidate)], 56, batch)
    assert len({candidate.key for candidate in candidates}) == 56


def hash_of(candidate: Candidate) -> int:
    return 8 * int(candidate.values["a"] or 0) + "pqrstuvw".index(str(candidate.values["b"]))


def test_after_a_summit_it_starts_elsewhere() -> None:
    def two(candidate: Candidate) -> float:
        x = int(candidate.values["x"] or 0)
        return 1.0 - abs(x - 5) / 10 if x < 20 else 2.0 - abs(x - 33) / 10

    searcher = LocalSearch(first=2)
    state, starts = searcher.init(LINE, jax.random.key(0)), list[int]()
    values: list[int] = []
    for number in range(36):
        (asked,) = searcher.ask(state, jax.random.key(number), 1)
        state = searcher.tell(state, finish_trials([asked], number, two))
        values.append(int(asked.values["x"] or 0))
        if int(state.arrays.start) not in (0, *starts):
            starts.append(int(state.arrays.start))
            # The climb that is over ends at a point both of whose neighbours were tried.
            climb = values[starts[-2] if len(starts) > 1 else 0 : starts[-1]]
            top = max(climb, key=lambda x: two(Candidate({"x": x})))
            assert {top - 1, top + 1} & set(range(41)) <= set(values)
    assert len(starts) >= 2
    assert {5, 33} <= set(values)
    assert searcher.summary(state)["climb_trials"] == 36 - starts[-1]


def test_failures_are_climbed_around() -> None:
    def odd(candidate: Candidate) -> float | None:
        x = int(candidate.values["x"] or 0)
        return None if x % 7 == 3 else float(x)

    _, candidates = search(LocalSearch(first=3), LINE, odd, 38)
    assert len({candidate.key for candidate in candidates}) == 38
    searcher = LocalSearch(first=3)
    state, _ = search(searcher, LINE, lambda _: None, 12)
    assert set(searcher.summary(state)) == {"climb_trials"}


def test_a_tried_out_space_is_still_answered() -> None:
    _, candidates = search(LocalSearch(first=1), LINE, lambda candidate: float(candidate.values["x"] or 0), 48)
    assert len({candidate.key for candidate in candidates}) == 41


@pytest.mark.parametrize(("first", "bins", "words"), [(0, 16, "first"), (2.5, 16, "first"), (1, 0, "bins")])
def test_bad_arguments_are_refused_in_one_sentence(first: int, bins: int, words: str) -> None:
    with pytest.raises(InputError, match=rf"^LocalSearch's {words} must be an integer of at least 1, got "):
        LocalSearch(first=first, bins=bins)
