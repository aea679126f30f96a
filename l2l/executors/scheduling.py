"""What a worker process is given at a time: trials that share a program, so that few workers compile each."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from l2l.abilities import SharesPrograms
from l2l.types import Objective, Trial

WORTH = 2.0
"""Seconds of work for which a worker gets a program ready that another one has."""


class Piece(NamedTuple):
    """Trials that go to one worker together."""

    program: str
    """What names the program that they run in."""
    trials: list[Trial]


def pieces(objective: Objective, trials: Sequence[Trial], lanes: int | None) -> list[Piece]:
    """The trials in order, those together that are lanes of one call; a cohort stays whole where `lanes` is None."""
    groups: dict[tuple[tuple[int, ...], int], list[Trial]] = {}
    for trial in trials:
        place = 0 if lanes is None else trial.cohort.index(trial.number) // lanes
        groups.setdefault((trial.cohort, place), []).append(trial)
    return [
        Piece(
            objective.program(members[0].candidate) if isinstance(objective, SharesPrograms) else json.dumps(cohort),
            members,
        )
        for (cohort, _), members in groups.items()
    ]


def choose(
    waiting: Sequence[Piece],
    held: Collection[str],
    begun: Collection[str],
    workers: int,
    seconds: Mapping[str, float],
) -> list[Piece]:
    """What a worker that holds some programs should do next, the less of it the less is left; perhaps nothing.

    Its own programs first, then one that nobody has begun. In the end it helps out where most is left, unless that
    is done sooner than the program is ready here; `seconds` are what a trial took last, by program.
    """
    left: Counter[str] = Counter()
    for piece in waiting:
        left[piece.program] += len(piece.trials)
    own = next((name for name in left if name in held), None)
    new = next((name for name in left if name not in begun), None)
    long = [name for name in left if name not in seconds or left[name] * seconds[name] > WORTH]
    program = own or new or max(long, key=lambda name: left[name] * seconds.get(name, math.inf), default=None)
    fair = max(1, len(waiting) // (2 * workers))
    return [piece for piece in waiting if piece.program == program][:fair]
