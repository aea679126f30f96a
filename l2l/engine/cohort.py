"""Which trials run in one program, and how many lanes it has: a function of the stored trials alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from l2l.types import Trial


class Cohort(NamedTuple):
    """Trials that run as lanes of one program."""

    trials: Sequence[Trial]
    companions: Sequence[tuple[int, ...]]
    """For each trial the numbers of the trials, itself included, that its program has lanes for.

    Some of them may have ended before; copies of other lanes fill the program.
    """
    begin: int = 0
    """The epoch after which the trials go on."""

    @property
    def lanes(self) -> int:
        """Lanes P of the program: a power of two, so that few programs are compiled, and half of it is one of them."""
        return 1 << (len(self.companions[0]) - 1).bit_length()

    def select(self, first: int, last: int) -> Cohort:
        """The trials from index `first` to `last` (excluded), with as many lanes."""
        return Cohort(self.trials[first:last], self.companions[first:last], self.begin)


def group_cohorts(trials: Sequence[Trial], limit: int) -> list[Cohort]:
    """The cohorts of the trials, in order, with at most `limit` lanes each (or the next lower power of two).

    A trial's program is fixed by the cohort that it was opened with. If it is run again after a crash, without the
    companions that had finished, it still runs in a program of the same shape.
    """
    limit = 1 << (limit.bit_length() - 1)
    groups: dict[tuple[int, ...], list[Trial]] = {}
    for trial in trials:
        start = trial.cohort.index(trial.number) // limit * limit
        groups.setdefault(trial.cohort[start : start + limit], []).append(trial)
    return [Cohort(members, [numbers] * len(members)) for numbers, members in groups.items()]


def plan_calls(
    cohorts: Sequence[Cohort], name_program: Callable[[Trial, int], str], last_epoch: Callable[[int], int]
) -> list[Cohort]:
    """The cohorts as calls of their programs; all trials of a call begin and end at the same epoch.

    Trials that go on from a rung share calls with trials of other cohorts that run in the same program. The program
    keeps its number of lanes, so the bits of a trial do not depend on which other trials go on. `name_program` names
    a trial's program of so many lanes, `last_epoch` gives the epoch of a trial's checkpoint.
    """
    groups: dict[tuple[str | int, int, int, int | None], list[tuple[Trial, tuple[int, ...]]]] = {}
    for index, cohort in enumerate(cohorts):
        for trial, companions in zip(cohort.trials, cohort.companions, strict=True):
            begin = last_epoch(trial.number)
            group = name_program(trial, cohort.lanes) if begin else index
            groups.setdefault((group, cohort.lanes, begin, trial.stop_epoch), []).append((trial, companions))
    calls: list[Cohort] = []
    for (_, lanes, begin, _), pairs in groups.items():
        for first in range(0, len(pairs), lanes):
            trials, companions = zip(*pairs[first : first + lanes], strict=True)
            calls.append(Cohort(trials, companions, begin))
    return calls


def halve_lanes(cohort: Cohort) -> list[Cohort]:
    """After memory ran out: two cohorts of half the lanes, which their trials then have as `cohort`; none for one lane.

    The memory of a program depends on its lanes and not on which trials are in them, so a run after a crash ends with
    the same lanes.
    """
    middle = cohort.lanes // 2
    groups: dict[tuple[int, ...], list[Trial]] = {}
    for trial, companions in zip(cohort.trials, cohort.companions, strict=True):
        half = companions[:middle] if trial.number in companions[:middle] else companions[middle:]
        groups.setdefault(half, []).append(replace(trial, cohort=half))
    halves = [Cohort(members, [numbers] * len(members), cohort.begin) for numbers, members in groups.items()]
    return halves if cohort.lanes > 1 else []


def halve_trials(cohort: Cohort) -> list[Cohort]:
    """After a crash: half of the trials each, with as many lanes; a single trial with one lane; then nothing.

    A candidate that crashes does so at every start, so the lanes of its companions never change because of it.
    """
    count = len(cohort.trials)
    if count > 1:
        middle = (count + 1) // 2
        return [cohort.select(0, middle), cohort.select(middle, count)]
    (trial,) = cohort.trials
    numbers = (trial.number,)
    return [Cohort([replace(trial, cohort=numbers)], [numbers], cohort.begin)] if cohort.lanes > 1 else []
