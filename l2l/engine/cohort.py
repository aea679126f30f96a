"""Which trials run in one program, and how many lanes it has: a function of the stored trials alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from l2l.types import Trial


class Cohort(NamedTuple):
    """Trials that run as lanes of one program."""

    trials: Sequence[Trial]
    shared: Sequence[tuple[int, ...]]
    """For each trial the numbers that its program was made for, at most as many as lanes; copies fill the others."""
    begin: int = 0
    """The epoch after which its trials go on."""

    @property
    def lanes(self) -> int:
        """Lanes P of the program, a power of two: few programs are compiled, and a half is one of them."""
        return 1 << (len(self.shared[0]) - 1).bit_length()

    def part(self, first: int, last: int) -> Cohort:
        """The trials from place `first` to `last` (excluded) in as many lanes."""
        return Cohort(self.trials[first:last], self.shared[first:last], self.begin)


def cohorts(trials: Sequence[Trial], limit: int) -> list[Cohort]:
    """The cohorts of these trials in order, with at most `limit` lanes each, or the next lower power of two.

    A trial's program is fixed by the cohort it was opened with, so one that is run again after a crash,
    without the companions that had finished, still runs in a program of the same shape.
    """
    limit = 1 << (limit.bit_length() - 1)
    groups: dict[tuple[int, ...], list[Trial]] = {}
    for trial in trials:
        start = trial.cohort.index(trial.number) // limit * limit
        groups.setdefault(trial.cohort[start : start + limit], []).append(trial)
    return [Cohort(members, [numbers] * len(members)) for numbers, members in groups.items()]


def calls(work: Sequence[Cohort], program: Callable[[Trial, int], str], reached: Callable[[int], int]) -> list[Cohort]:
    """The cohorts as calls of their programs: a call goes from one epoch to another.

    Those that go on from a rung share calls with the survivors of other cohorts, where these have the same program:
    it keeps its number of lanes, so nobody's bits hang on who else is left. `program` names a trial's program by its
    lanes, `reached` gives the epoch after which a trial was kept.
    """
    groups: dict[tuple[str | int, int, int, int | None], list[tuple[Trial, tuple[int, ...]]]] = {}
    for place, cohort in enumerate(work):
        for trial, numbers in zip(cohort.trials, cohort.shared, strict=True):
            begin = reached(trial.number)
            home = program(trial, cohort.lanes) if begin else place
            groups.setdefault((home, cohort.lanes, begin, trial.until), []).append((trial, numbers))
    made: list[Cohort] = []
    for (_, lanes, begin, _), pairs in groups.items():
        for first in range(0, len(pairs), lanes):
            together = pairs[first : first + lanes]
            made.append(Cohort([each for each, _ in together], [each for _, each in together], begin))
    return made


def halves(cohort: Cohort) -> list[Cohort]:
    """After memory ran out: half the lanes each, which the trials note; nothing if there is one lane.

    What a program needs depends on its lanes and not on who is in them, so a run after a crash ends at the same.
    """
    middle = cohort.lanes // 2
    groups: dict[tuple[int, ...], list[Trial]] = {}
    for trial, numbers in zip(cohort.trials, cohort.shared, strict=True):
        half = numbers[:middle] if trial.number in numbers[:middle] else numbers[middle:]
        groups.setdefault(half, []).append(replace(trial, cohort=half))
    made = [Cohort(members, [numbers] * len(members), cohort.begin) for numbers, members in groups.items()]
    return made if cohort.lanes > 1 else []


def apart(cohort: Cohort) -> list[Cohort]:
    """After a crash: half the trials each, in as many lanes; one trial alone, in one; then nothing.

    A candidate that crashes does so at every start, so its companions never change their lanes because of it.
    """
    count = len(cohort.trials)
    if count > 1:
        middle = (count + 1) // 2
        return [cohort.part(0, middle), cohort.part(middle, count)]
    (trial,) = cohort.trials
    alone = (trial.number,)
    return [Cohort([replace(trial, cohort=alone)], [alone], cohort.begin)] if cohort.lanes > 1 else []
