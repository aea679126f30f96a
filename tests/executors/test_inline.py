"""Trials in this very process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from l2l.executors.inline import Inline
from l2l.space import Candidate
from l2l.types import Outcome, Trial

TRIALS = [Trial(number, Candidate({"x": number}), (0, 3), (number,)) for number in range(3)]


class Odd:
    """Measures odd numbers only, and the second of them raises."""

    def check(self) -> None:
        """All is well."""

    def __call__(self, trials: Sequence[Trial]) -> Iterator[Trial]:
        for trial in trials:
            if trial.number == 3:
                raise RuntimeError("breakpoints are for this")
            if trial.number % 2:
                yield replace(trial, outcome=Outcome({"pid": os.getpid()}))


def test_trials_run_here_and_those_left_out_come_last(tmp_path: Path) -> None:
    executor = Inline()
    executor.start(tmp_path)
    ended = list(executor.run(Odd(), TRIALS))
    executor.close()
    assert [trial.number for trial in ended] == [1, 0, 2]
    assert [trial.outcome for trial in ended] == [Outcome({"pid": os.getpid()}), None, None]
    assert list(tmp_path.iterdir()) == []


def test_they_come_as_they_finish() -> None:
    running = Inline().run(Odd(), [*TRIALS, replace(TRIALS[0], number=3)])
    assert next(running).number == 1
    with pytest.raises(RuntimeError, match="breakpoints"):
        next(running)
