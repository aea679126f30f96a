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

    Programs differ by `SharesPrograms.program` if the objective has it, else by all static values.
    """
    if isinstance(objective, SharesPrograms):
        programs = [objective.program(candidate) for candidate in candidates]
    else:
        programs = [json.dumps(space.select_static(candidate)) for candidate in candidates]
    groups: dict[str, list[int]] = {}
    for number, program in enumerate(programs, first):
        groups.setdefault(program, []).append(number)
    return [tuple(groups[program]) for program in programs]
