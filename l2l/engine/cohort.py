"""Which trials run in one program, and how many lanes it has: a function of the stored trials alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from l2l.types import Trial


class Cohort(NamedTuple):
    """Trials that run as lanes of one program."""

    trials: Sequence[Trial]
    numbers: tuple[int, ...]
    """Those that the program was made for; some may have ended before, and copies fill their lanes."""

    @property
    def lanes(self) -> int:
        """Lanes P of the program."""
        return len(self.numbers)


def cohorts(trials: Sequence[Trial], limit: int) -> list[Cohort]:
    """The cohorts of these trials in order, with at most `limit` lanes each.

    A trial's program is fixed by the cohort it was opened with, so one that is run again after a crash,
    without the companions that had finished, still runs in a program of the same shape.
    """
    groups: dict[tuple[int, ...], list[Trial]] = {}
    for trial in trials:
        start = trial.cohort.index(trial.number) // limit * limit
        groups.setdefault(trial.cohort[start : start + limit], []).append(trial)
    return [Cohort(members, numbers) for numbers, members in groups.items()]


def halves(cohort: Cohort) -> list[Cohort]:
    """After memory ran out: half the lanes each, which the trials note; nothing if there is one lane.

    What a program needs depends on its lanes and not on who is in them, so a run after a crash ends at the same.
    """
    middle = (cohort.lanes + 1) // 2
    made: list[Cohort] = []
    for numbers in (cohort.numbers[:middle], cohort.numbers[middle:]):
        if trials := [replace(each, cohort=numbers) for each in cohort.trials if each.number in numbers]:
            made.append(Cohort(trials, numbers))
    return made if cohort.lanes > 1 else []


def apart(cohort: Cohort) -> list[Cohort]:
    """After a crash: half the trials each, in as many lanes; one trial alone, in one; then nothing.

    A candidate that crashes does so at every start, so its companions never change their lanes because of it.
    """
    middle = (len(cohort.trials) + 1) // 2
    if len(cohort.trials) > 1:
        return [cohort._replace(trials=each) for each in (cohort.trials[:middle], cohort.trials[middle:])]
    (trial,) = cohort.trials
    alone = (trial.number,)
    return [Cohort((replace(trial, cohort=alone),), alone)] if cohort.lanes > 1 else []
