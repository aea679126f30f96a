"""Which trials run in one program, and how many lanes it has: a function of the stored trials alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from l2l.types import Trial


class Cohort(NamedTuple):
    """Trials that run as lanes of one program."""

    trials: tuple[Trial, ...]
    lanes: int
    """Lanes P of the program; at least as many as there are trials, the others are filled with copies."""
    begin: int = 0
    """The epoch after which its trials go on."""


def cohorts(trials: Sequence[Trial], limit: int) -> list[Cohort]:
    """The cohorts of these trials in order, with at most `limit` lanes each.

    A trial's program is fixed by the cohort it was opened with, so one that is run again after a crash,
    without the companions that had finished, still runs in a program of the same shape.
    """
    groups: dict[tuple[tuple[int, ...], int], list[Trial]] = {}
    for trial in trials:
        part = trial.cohort.index(trial.number) // limit
        groups.setdefault((trial.cohort, part), []).append(trial)
    return [
        Cohort(tuple(members), min(limit, len(numbers) - part * limit)) for (numbers, part), members in groups.items()
    ]


def calls(work: Sequence[Cohort], program: Callable[[Trial, int], str], reached: Callable[[int], int]) -> list[Cohort]:
    """The cohorts as calls of their programs: a call goes from one epoch to another.

    Those that go on from a rung share calls with the survivors of other cohorts, where these have the same program:
    it keeps its number of lanes, so nobody's bits hang on who else is left. `program` names a trial's program by its
    lanes, `reached` gives the epoch after which a trial was kept.
    """
    groups: dict[tuple[str | int, int, int, int | None], list[Trial]] = {}
    for place, cohort in enumerate(work):
        for trial in cohort.trials:
            begin = reached(trial.number)
            home = program(trial, cohort.lanes) if begin else place
            groups.setdefault((home, cohort.lanes, begin, trial.until), []).append(trial)
    return [
        Cohort(tuple(members[first : first + lanes]), lanes, begin)
        for (_, lanes, begin, _), members in groups.items()
        for first in range(0, len(members), lanes)
    ]
