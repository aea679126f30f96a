"""Says how many compiled programs the candidates of a space need on a task."""

from __future__ import annotations

import random
from typing import Any

from l2l.abilities import PlansPrograms, SharesPrograms
from l2l.space import SearchSpace
from l2l.types import Objective

CANDIDATES = 1000
"""Random candidates whose programs are counted."""


def describe_programs(space: SearchSpace[Any], objective: Objective, trials: int) -> str:
    """How many programs the objective needs for random candidates in a search of so many trials, in one sentence."""
    if not isinstance(objective, SharesPrograms):
        return "programs: none; this objective compiles nothing that candidates could share"
    if isinstance(objective, PlansPrograms):
        objective.plan(trials)
    generator = random.Random(0)
    buckets = {objective.name_bucket(space.sample(generator)) for _ in range(CANDIDATES)}
    return f"programs: {len(buckets)} for {CANDIDATES:,} random candidates, as a search of {trials:,} trials pads them"
