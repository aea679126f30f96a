"""Which candidates of a batch share a compiled program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from l2l.abilities import SharesPrograms
from l2l.space import Candidate, SearchSpace


def group_by_program(
    candidates: Sequence[Candidate], space: SearchSpace[Any], objective: object, first: int
) -> list[tuple[int, ...]]:
    """By candidate, numbered from `first` on: the numbers of all candidates that share its program.

    Candidates share a program if `SharesPrograms.name_bucket` names one bucket for them; if the objective has none, if
    all their static values are equal.
    """
    if isinstance(objective, SharesPrograms):
        names = [objective.name_bucket(candidate) for candidate in candidates]
    else:
        names = [json.dumps(space.select_static(candidate)) for candidate in candidates]
    groups: dict[str, list[int]] = {}
    for number, name in enumerate(names, first):
        groups.setdefault(name, []).append(number)
    return [tuple(groups[name]) for name in names]
