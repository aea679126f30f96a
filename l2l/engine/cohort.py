"""Which trials run in one program, and how many lanes it has: a function of the stored trials alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from l2l.types import Trial


class Cohort(NamedTuple):
    """Trials that run as lanes of one program."""

    trials: tuple[Trial, ...]
    lanes: int
    """Lanes P of the program; at least as many as there are trials, the others are filled with copies."""


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
