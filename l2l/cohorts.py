"""Which candidates share a compiled program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from l2l.space import Candidate, SearchSpace


def shared(
    candidates: Sequence[Candidate], space: SearchSpace[Any], objective: object, first: int
) -> list[tuple[int, ...]]:
    """For each candidate the numbers, from `first` on, of those that share its program.

    What tells programs apart is the objective's `program(candidate)` if it has one, else every static value.
    """
    named = getattr(objective, "program", None)
    groups: dict[str, list[int]] = {}
    names = [str(named(each)) if callable(named) else json.dumps(space.select_static(each)) for each in candidates]
    for number, name in enumerate(names, first):
        groups.setdefault(name, []).append(number)
    return [tuple(groups[name]) for name in names]
