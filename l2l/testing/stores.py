"""What every store must do, as tests: subclass `StoreContract` in a test file and name the store."""

from __future__ import annotations

import abc
import json
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from l2l.space import Candidate, Categorical, Integer, Real, SearchSpace, Value
from l2l.types import Outcome, Status, Store, Trial, TrialLog

SPACE: SearchSpace[None] = SearchSpace(
    {
        "any": Categorical(options=(True, 1, 0, "1", None, 0.5, False)),
        "cells": Integer(low=1, high=1 << 60),
        "deep": Integer(low=1, high=1000, log=True, when={"any": (1, None)}),
        "every": Integer(low=-4, high=11, step=5),
        "rate": Real(low=1e-5, high=0.1, log=True),
        "shift": Real(low=-1, high=1),
    },
    build=lambda values, spec: None,
)
"""Every kind of choice, with options that some databases confuse."""


def describe_bits(trial: Trial) -> str:
    """All of a trial to the last bit: `==` on trials does not look at metadata, nor tell 1 from True."""
    metadata = json.dumps(trial.candidate.metadata)
    return f"{list(trial.candidate.values.items())!r} {metadata} {replace(trial, candidate=Candidate({}))!r}"


def point(option: Value, i: int = 0) -> Candidate:
    """A candidate of `SPACE` with this option of `any`; `i` makes it another one."""
    values: dict[str, Any] = {"any": option, "cells": (1 << 60) - 1 - i, "every": 6, "rate": 1e-5 * (i + 1) / 0.7}
    deep = {"deep": 31} if option is None or (option is not True and option == 1) else {}
    return SPACE.candidate({**values, **deep, "shift": -0.0}, {"log_prob": -1.5 - i, "parents": [0, i]})


def complete_trial(trial: Trial, *reward: float) -> Trial:
    """The trial, complete with this reward."""
    outcome = Outcome(
        metrics={"accuracy": reward[0], "loss": math.inf, "least": 5e-324},
        seconds={"train": 0.1 + 0.2},
        curve={"accuracy": [0.1, math.nan], "loss": []},
    )
    return replace(trial, status=Status.COMPLETE, outcome=outcome, reward=tuple(reward))


class StoreContract(abc.ABC):
    """The duties of a store; `tmp_path` is an empty folder, as pytest makes it."""

    survives = True
    """Whether a second attachment finds what the first one stored."""

    @abc.abstractmethod
    def store(self, folder: Path) -> Store:
        """The store under test."""

    def attach(self, folder: Path, objectives: int = 1) -> AbstractContextManager[TrialLog]:
        """A study of `SPACE`."""
        return self.store(folder).attach(folder / "run", SPACE, {"seed": 0}, objectives=objectives)

    def check_reread(self, folder: Path, before: Sequence[Trial], objectives: int = 1) -> None:
        """The next process reads the same trials, to the last bit."""
        if self.survives:
            with self.attach(folder, objectives) as log:
                assert [describe_bits(trial) for trial in log.trials()] == [describe_bits(trial) for trial in before]

    def test_a_new_study_is_empty(self, tmp_path: Path) -> None:
        with self.attach(tmp_path) as log:
            assert (log.count(), log.trials(), log.list_running(), log.batches()) == (0, [], [], [])
            assert log.next_batch(3) == (0, 3)
            assert log.seconds > 0

    def test_a_number_is_that_of_the_beginning(self, tmp_path: Path) -> None:
        with self.attach(tmp_path) as log:
            assert [log.recall("trials", 7), log.recall("trials", 9), log.recall("other", 1)] == [7, 7, 1]
        if self.survives:
            with self.attach(tmp_path) as log:
                assert (log.recall("trials", 11), log.trials()) == (7, [])

    def test_every_value_comes_back_as_it_was(self, tmp_path: Path) -> None:
        candidates = [point(option, i) for i, option in enumerate((True, 1, 0, "1", None, 0.5, False))]
        with self.attach(tmp_path) as log:
            opened = log.open(candidates, [tuple(range(7))] * 7)
            assert [
                describe_bits(replace(trial, candidate=candidate))
                for trial, candidate in zip(opened, candidates, strict=True)
            ] == [describe_bits(trial) for trial in opened]
            assert [trial.number for trial in opened] == list(range(7))
            assert {trial.batch for trial in opened} == {(0, 7)}
            assert log.list_running() == opened
        self.check_reread(tmp_path, opened)

    def test_every_end_comes_back_as_it_was(self, tmp_path: Path) -> None:
        with self.attach(tmp_path) as log:
            complete, failed, pruned = log.open([point(True, i) for i in range(3)])
            stored = [
                log.close(complete_trial(complete, 0.1 + 0.2)),
                log.close(replace(failed, status=Status.FAILED, outcome=Outcome(error="it\nbroke: ü"))),
                log.close(replace(pruned, status=Status.PRUNED, outcome=Outcome({"accuracy": 0.25}))),
            ]
            assert describe_bits(stored[0]) == describe_bits(complete_trial(complete, 0.1 + 0.2))
            assert stored[0].cohort == (0,)
            assert log.trials() == stored
            assert log.batches() == [stored]
            assert (log.count(), log.list_running(), log.next_batch(2)) == (3, [], (3, 2))
        self.check_reread(tmp_path, stored)

    @pytest.mark.parametrize("objectives", [1, 2])
    def test_what_a_trial_reached_comes_back_as_it_was(self, tmp_path: Path, objectives: int) -> None:
        def score(value: float) -> tuple[float, ...]:
            return (value, -value)[:objectives]

        with self.attach(tmp_path, objectives) as log:
            going, pruned, failed, fresh = opened = log.open([point(True, i) for i in range(4)])
            for trial in opened[:3]:
                outcome = Outcome({"accuracy": 0.1 + 0.2}, {"train": 0.1}, {"accuracy": [0.1, 0.1 + 0.2]})
                log.reach(replace(trial, outcome=replace(outcome, metrics={"accuracy": 0.1}), scores={1: score(0.1)}))
                reached = replace(trial, outcome=outcome, scores={1: score(0.1), 2: score(0.1 + 0.2)})
                assert describe_bits(log.reach(reached)) == describe_bits(reached)
            assert [trial.number for trial in log.list_running()] == [0, 1, 2, 3]
            stored = log.trials()[1:3]
            stopped = log.close(replace(stored[0], status=Status.PRUNED, reward=score(0.1 + 0.2)))
            assert (stopped.reward, stopped.scores) == (score(0.1 + 0.2), stored[0].scores)
            log.close(replace(stored[1], status=Status.FAILED, outcome=Outcome(error="gone")))
            with pytest.raises(ValueError, match="finite rewards"):
                log.close(replace(log.trials()[0], status=Status.PRUNED, reward=(math.nan,) * objectives))
            for wrong in (pruned, fresh):
                with pytest.raises(ValueError, match="is at no rung"):
                    log.reach(wrong)
            assert (log.trials()[0].scores, fresh.scores) == ({1: score(0.1), 2: score(0.1 + 0.2)}, {})
            assert log.trials()[failed.number].scores == log.trials()[going.number].scores
            before = log.trials()
        self.check_reread(tmp_path, before, objectives)

    def test_a_trial_that_ended_in_fewer_lanes_says_so_and_in_others_it_cannot(self, tmp_path: Path) -> None:
        with self.attach(tmp_path) as log:
            opened = log.open([point(True, i) for i in range(4)], [(0, 1, 2, 3)] * 4)
            for wrong in ((), (1,), (0, 4)):
                with pytest.raises(ValueError, match="trial 0 was opened in another cohort"):
                    log.close(replace(complete_trial(opened[0], 0.5), cohort=wrong))
            stored = [log.close(replace(complete_trial(trial, 0.5), cohort=(0, 1))) for trial in opened[:2]]
            stored.append(log.close(complete_trial(opened[2], 0.5)))
            assert [trial.cohort for trial in stored] == [(0, 1), (0, 1), (0, 1, 2, 3)]
            assert log.list_running() == opened[3:]
        self.check_reread(tmp_path, [*stored, *opened[3:]])

    def test_rewards_have_the_length_of_the_study(self, tmp_path: Path) -> None:
        with self.attach(tmp_path, objectives=2) as log:
            (trial,) = log.open([point(True)])
            for wrong in ((0.5,), (0.5, math.nan), (0.5, math.inf), ()):
                with pytest.raises(ValueError, match="2 finite rewards"):
                    log.close(replace(complete_trial(trial, 0.5), reward=wrong))
            stored = log.close(complete_trial(trial, 0.5, -1e300))
            assert stored.reward == (0.5, -1e300)
        self.check_reread(tmp_path, [stored], objectives=2)

    def test_a_batch_is_told_when_all_its_trials_have_ended(self, tmp_path: Path) -> None:
        with self.attach(tmp_path) as log:
            for first in (0, 2):
                opened = log.open([point(True, first), point(True, first + 1)])
                log.close(complete_trial(opened[1], 0.5))
                assert len(log.batches()) == first // 2
                assert log.list_running() == opened[:1]
                log.close(complete_trial(opened[0], 0.25))
            assert [[trial.number for trial in batch] for batch in log.batches()] == [[0, 1], [2, 3]]
            before = log.trials()
        self.check_reread(tmp_path, before)

    def test_a_trial_ends_once(self, tmp_path: Path) -> None:
        with self.attach(tmp_path) as log:
            (trial,) = log.open([point(True)])
            with pytest.raises(ValueError, match="not ended"):
                log.close(trial)
            with pytest.raises(ValueError, match="no trial 7"):
                log.close(replace(complete_trial(trial, 1.0), number=7))
            with pytest.raises(ValueError, match="another candidate"):
                log.close(replace(complete_trial(trial, 1.0), candidate=point(False)))
            with pytest.raises(ValueError, match="has no reward"):
                log.close(replace(complete_trial(trial, 1.0), status=Status.FAILED))
            log.close(complete_trial(trial, 1.0))
            with pytest.raises(ValueError, match="complete already"):
                log.close(complete_trial(trial, 1.0))
            assert log.count() == 1

    def test_what_cannot_be_stored_opens_nothing(self, tmp_path: Path) -> None:
        good = point(True)
        with self.attach(tmp_path) as log:
            with pytest.raises(ValueError, match="JSON"):
                log.open([good, Candidate(good.values, {"array": object()})])
            with pytest.raises(ValueError, match="unknown choice 'wide'"):
                log.open([good, Candidate({"wide": 1})])
            with pytest.raises(ValueError, match="cohort"):
                log.open([good, good], [(0, 1), (0,)])
            with pytest.raises(ValueError, match="candidates"):
                log.open([])
            assert log.trials() == []
