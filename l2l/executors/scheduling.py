"""Which worker gets which trials: those that share a program go together, so that few workers compile each program."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from l2l.abilities import SharesPrograms
from l2l.types import Objective, Trial

MIN_WORK = 2.0
"""Seconds of remaining work from which it pays that a second worker compiles a program."""


class Piece(NamedTuple):
    """Trials that go to one worker together."""

    program: str
    """The name of the program that trains them."""
    trials: list[Trial]


def split_trials(objective: Objective, trials: Sequence[Trial], lanes: int | None) -> list[Piece]:
    """Splits trials into pieces of one call of a program each; with `lanes` None a cohort stays whole."""
    groups: dict[tuple[tuple[int, ...], int], list[Trial]] = {}
    for trial in trials:
        call = 0 if lanes is None else trial.cohort.index(trial.number) // lanes
        groups.setdefault((trial.cohort, call), []).append(trial)
    return [
        Piece(
            objective.program(members[0].candidate) if isinstance(objective, SharesPrograms) else json.dumps(cohort),
            members,
        )
        for (cohort, _), members in groups.items()
    ]


def choose_pieces(
    waiting: Sequence[Piece],
    compiled: Collection[str],
    started: Collection[str],
    workers: int,
    seconds: Mapping[str, float],
) -> list[Piece]:
    """Chooses the next pieces for a worker that has `compiled` some programs; perhaps none.

    Its own programs come first, then one that no worker has `started`. At the end it helps with the program that has
    most work left, unless that work ends before the program would be compiled here. It gets fewer pieces as fewer are
    waiting. `seconds` are what the last trial of a program took.
    """
    left: Counter[str] = Counter()
    for piece in waiting:
        left[piece.program] += len(piece.trials)
    ready = next((name for name in left if name in compiled), None)
    new = next((name for name in left if name not in started), None)
    long = [name for name in left if name not in seconds or left[name] * seconds[name] > MIN_WORK]
    program = ready or new or max(long, key=lambda name: left[name] * seconds.get(name, math.inf), default=None)
    fair = max(1, len(waiting) // (2 * workers))
    return [piece for piece in waiting if piece.program == program][:fair]
