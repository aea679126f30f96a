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

    bucket_name: str
    """The name of the bucket whose program trains them; of an objective without names, that of their cohort."""
    trials: list[Trial]


def split_trials(objective: Objective, trials: Sequence[Trial], lanes: int | None) -> list[Piece]:
    """Splits trials into pieces of one call of a program each; with `lanes` None a cohort stays whole."""
    groups: dict[tuple[tuple[int, ...], int], list[Trial]] = {}
    for trial in trials:
        call = 0 if lanes is None else trial.cohort.index(trial.number) // lanes
        groups.setdefault((trial.cohort, call), []).append(trial)
    return [
        Piece(
            objective.name_bucket(members[0].candidate)
            if isinstance(objective, SharesPrograms)
            else json.dumps(cohort),
            members,
        )
        for (cohort, _), members in groups.items()
    ]


def choose_pieces(
    waiting_pieces: Sequence[Piece],
    own_buckets: Collection[str],
    started_buckets: Collection[str],
    workers: int,
    trial_seconds: Mapping[str, float],
) -> list[Piece]:
    """Chooses the next pieces for a worker that has compiled the programs of `own_buckets`; perhaps none.

    Its own buckets come first, then one that no worker has started. At the end it helps with the bucket that has most
    work left, unless that work ends before the program would be compiled here. It gets fewer pieces as fewer are
    waiting. `trial_seconds` are what the last trial of a bucket took.
    """
    trial_counts: Counter[str] = Counter()
    for piece in waiting_pieces:
        trial_counts[piece.bucket_name] += len(piece.trials)
    work = {name: count * trial_seconds.get(name, math.inf) for name, count in trial_counts.items()}
    own_bucket = next((name for name in work if name in own_buckets), None)
    new_bucket = next((name for name in work if name not in started_buckets), None)
    long_buckets = [name for name in work if work[name] > MIN_WORK]
    bucket_name = own_bucket or new_bucket or max(long_buckets, key=work.__getitem__, default=None)
    piece_count = max(1, len(waiting_pieces) // (2 * workers))
    return [piece for piece in waiting_pieces if piece.bucket_name == bucket_name][:piece_count]
