"""The contract of a searcher as tests, for the searchers of l2l and for yours.

Subclass it in a test file and return your searcher; pytest runs the rest:

    class TestMine(SearcherContract):
        def searcher(self):
            return Mine()
"""

from __future__ import annotations

import abc
import copy
import json
import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import pytest

from l2l.space import Candidate, Categorical, Integer, Real, SearchSpace
from l2l.types import Outcome, Searcher, Status, Trial


def _build(values: Mapping[str, Any], spec: Any) -> None:
    """Builds nothing: a searcher never builds a model."""


SPACES: Mapping[str, SearchSpace[None]] = {
    space.name: space
    for space in (
        SearchSpace({"only": Categorical(options=("one",))}, _build, "single"),
        SearchSpace(
            {
                "flag": Categorical(options=(True, 1, 1.5, None, "x")),
                "off": Categorical(options=(False, 0)),
                "fixed": Real(low=0.5, high=0.5),
                "share": Real(low=0, high=1),
            },
            _build,
            "plain",
        ),
        SearchSpace(
            {
                "rate": Real(low=1e-5, high=1e-1, log=True),
                "mix": Real(low=-1, high=1),
                "units": Integer(low=1, high=5000, log=True),
                "size": Integer(low=16, high=64, step=16),
            },
            _build,
            "numbers",
        ),
        SearchSpace(
            {
                "optimizer": Categorical(options=("sgd", "adam")),
                "momentum": Real(low=0, high=0.99, when={"optimizer": "sgd"}),
                "layers": Integer(low=1, high=16),
                "second": Integer(low=8, high=128, log=True, when={"layers": list(range(2, 17))}),
            },
            _build,
            "conditional",
        ),
        SearchSpace(
            {
                "kind": Categorical(options=("dense", "conv", "none")),
                "norm": Categorical(options=(False, True), when={"kind": ["dense", "conv"]}),
                "decay": Real(low=0.5, high=1, when={"norm": True}),
                "kernel": Integer(low=1, high=7, step=2, when={"kind": "conv", "norm": True}),
                "depthwise": Categorical(options=(True, False), when={"kernel": [3, 5, 7]}),
            },
            _build,
            "nested",
        ),
    )
}
"""Every kind of choice and condition, by name; those of four decisions share the compiled programs of `TOY`."""

BEST = {"a": 2, "b": "y", "c": 3, "d": 0.7}
"""The optimum of `TOY`, with reward 1."""

TOY = SearchSpace(
    {
        "a": Integer(low=0, high=4),
        "b": Categorical(options=("x", "y", "z", "w")),
        "c": Integer(low=0, high=3, when={"b": ["y", "z"]}),
        "d": Real(low=0, high=1),
    },
    _build,
    "toy",
)


def toy_reward(values: Mapping[str, Any]) -> float:
    """Reward of a candidate of `TOY`: 1 at `BEST`, less with the distance from it."""
    loss = abs(values["a"] - 2) / 4 + abs(values["d"] - 0.7)
    loss += {"y": 0.0, "z": 0.2, "x": 0.6, "w": 0.6}[values["b"]]
    return 1 - (loss + (3 - values.get("c", 1)) / 5) / 2


def finish_trials(
    candidates: Sequence[Candidate], first: int, reward: Callable[[Candidate], float | None]
) -> list[Trial]:
    """The trials of one batch after their run; a candidate whose reward is None has failed."""
    count = len(candidates)

    def make_trial(position: int, candidate: Candidate) -> Trial:
        value = reward(candidate)
        cohort = tuple(range(first, first + count))
        if value is None:
            outcome = Outcome(error="diverged at step 7.")
            return Trial(first + position, candidate, (first, count), cohort, Status.FAILED, outcome)
        outcome = Outcome({"accuracy": value})
        return Trial(first + position, candidate, (first, count), cohort, Status.COMPLETE, outcome, (value,))

    return [make_trial(position, candidate) for position, candidate in enumerate(candidates)]


def prune(trial: Trial) -> Trial:
    """The trial as if early stopping had ended it at its second rung."""
    assert trial.reward is not None
    scores = {1: tuple(value / 2 for value in trial.reward), 2: trial.reward}
    return replace(trial, status=Status.PRUNED, scores=scores)


class RewardContract(abc.ABC):
    """How a searcher learns from rewards: enough for a variant that differs from a tested searcher in that alone."""

    learns = True
    """Set it to False for a searcher that does not learn from rewards."""
    trials = 160
    """Number of trials within which it must beat chance on `TOY`."""

    @abc.abstractmethod
    def searcher(self) -> Searcher[Any]:
        """A searcher that can search any space for one objective."""

    def search(
        self,
        space: SearchSpace[Any],
        reward: Callable[[Candidate], float | None],
        trials: int,
        seed: int = 0,
        batch: int = 8,
    ) -> tuple[Any, list[list[Trial]]]:
        """A short search: the last state, and the batches of trials."""
        searcher, key = self.searcher(), jax.random.key(seed)
        state, batches = searcher.init(space, key), list[list[Trial]]()
        for first in range(0, trials, batch):
            asked = searcher.ask(state, jax.random.fold_in(key, first), min(batch, trials - first))
            batches.append(finish_trials(asked, first, reward))
            state = searcher.tell(state, batches[-1])
        return state, batches

    def test_replayed_tells_give_the_same_asks(self) -> None:
        state, batches = self.search(TOY, _reward, 40)
        searcher = self.searcher()
        replayed = searcher.init(TOY, jax.random.key(0))
        for batch in batches:
            # The store gives back values and metadata as JSON does.
            stored = [
                TOY.candidate(json.loads(json.dumps(dict(t.candidate.values))), dict(t.candidate.metadata))
                for t in batch
            ]
            replayed = searcher.tell(replayed, finish_trials(stored, batch[0].number, _reward))
        assert searcher.ask(replayed, jax.random.key(9), 8) == self.searcher().ask(state, jax.random.key(9), 8)
        assert searcher.summary(replayed) == self.searcher().summary(state)

    def test_state_survives_a_copy(self) -> None:
        searcher, (state, batches) = self.searcher(), self.search(TOY, _reward, 24)
        expected = searcher.ask(state, jax.random.key(3), 8)
        later = searcher.ask(searcher.tell(state, batches[0]), jax.random.key(4), 8)
        for twin in (pickle.loads(pickle.dumps(state)), copy.deepcopy(state)):
            assert self.searcher().ask(twin, jax.random.key(3), 8) == expected
            assert self.searcher().ask(searcher.tell(twin, batches[0]), jax.random.key(4), 8) == later

    def test_learns_from_candidates_it_did_not_ask_for(self) -> None:
        searcher = self.searcher()
        state = searcher.init(TOY, jax.random.key(0))
        others = [TOY.candidate(BEST), TOY.candidate({"a": 0, "b": "x", "d": 0.0})] * 4
        for first in (0, 8):
            state = searcher.tell(state, finish_trials(others, first, _reward))
        assert len(searcher.ask(state, jax.random.key(1), 8)) == 8

    @pytest.mark.parametrize("failing", ["all", "first", "some", "last"])
    def test_copes_with_failed_trials(self, failing: str) -> None:
        count = 0

        def reward(candidate: Candidate) -> float | None:
            nonlocal count
            count += 1
            failed = {"all": True, "first": count <= 12, "some": count % 3 == 0, "last": count > 16}
            return None if failed[failing] else _reward(candidate)

        state, _ = self.search(TOY, reward, 32)
        searcher = self.searcher()
        for candidate in searcher.ask(state, jax.random.key(1), 8):
            assert TOY.candidate(candidate.values) == candidate
        assert all(math.isfinite(value) for value in searcher.summary(state).values())

    @pytest.mark.parametrize("stopped", ["most", "all"])
    def test_learns_from_pruned_trials(self, stopped: str) -> None:
        searcher, key = self.searcher(), jax.random.key(0)
        state = failed = searcher.init(TOY, key)
        for first in range(0, 64, 8):
            asked = list(searcher.ask(state, jax.random.fold_in(key, first), 8))
            ended = finish_trials(asked, first, _reward)
            state = searcher.tell(state, [prune(t) if stopped == "all" or t.number % 4 else t for t in ended])
            failed = searcher.tell(failed, finish_trials(asked, first, lambda _: None))
        for candidate in searcher.ask(state, jax.random.key(1), 8):
            assert TOY.candidate(candidate.values) == candidate
        assert all(math.isfinite(value) for value in searcher.summary(state).values())
        # It has learnt from them: after the same candidates, had they failed, it asks for other ones.
        keys = [jax.random.key(n) for n in range(4)]
        after_pruned, after_failed = ([searcher.ask(end, key, 8) for key in keys] for end in (state, failed))
        assert not self.learns or after_pruned != after_failed

    @pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
    def test_copes_with_any_scale_of_reward(self, scale: float) -> None:
        state, _ = self.search(TOY, lambda candidate: scale * _reward(candidate), 24)
        assert len(self.searcher().ask(state, jax.random.key(1), 8)) == 8
        assert all(math.isfinite(value) for value in self.searcher().summary(state).values())

    def test_beats_chance(self) -> None:
        if not self.learns:
            pytest.skip("does not learn from rewards")
        late: list[float] = []
        for seed in range(3):
            _, batches = self.search(TOY, _reward, self.trials, seed)
            late += [trial.reward[0] for batch in batches[-4:] for trial in batch if trial.reward]
        # Chance gives 0.36 on average.
        assert sum(late) / len(late) > 0.5


class SearcherContract(RewardContract):
    """The duties of every searcher: valid and reproducible candidates on every space, and those of `RewardContract`."""

    @pytest.mark.parametrize("space", SPACES.values(), ids=list(SPACES))
    def test_asks_valid_candidates(self, space: SearchSpace[Any]) -> None:
        _, batches = self.search(space, _hash_reward, 24)
        assert [len(batch) for batch in batches] == [8, 8, 8]
        for trial in (trial for batch in batches for trial in batch):
            candidate = trial.candidate
            assert space.candidate(candidate.values) == candidate
            assert list(candidate.values) == [name for name in space.choices if name in candidate.values]
            assert json.loads(json.dumps(candidate.metadata, allow_nan=False)) == candidate.metadata

    def test_asks_one_at_a_time(self) -> None:
        _, batches = self.search(TOY, _reward, 5, batch=1)
        assert [len(batch) for batch in batches] == [1] * 5

    def test_ask_is_pure(self) -> None:
        searcher, (state, _) = self.searcher(), self.search(TOY, _reward, 24)
        before = pickle.dumps(state)
        first, second = (searcher.ask(state, jax.random.key(1), 8) for _ in range(2))
        assert first == second
        assert [candidate.metadata for candidate in first] == [candidate.metadata for candidate in second]
        searcher.ask(state, jax.random.key(2), 1)
        assert searcher.ask(state, jax.random.key(1), 8) == first
        assert pickle.dumps(state) == before

    def test_tell_leaves_its_state_alone(self) -> None:
        searcher, (state, batches) = self.searcher(), self.search(TOY, _reward, 16)
        before = pickle.dumps(state)
        searcher.tell(state, batches[0])
        assert pickle.dumps(state) == before


def _reward(candidate: Candidate) -> float:
    return toy_reward(candidate.values)


def _hash_reward(candidate: Candidate) -> float:
    """A reward between 0 and 1 for a candidate of any space."""
    return int(candidate.key, 16) / 16**16
