"""Rewrites command-line overrides for Hydra."""

from __future__ import annotations

import re
from collections.abc import Sequence

from l2l.errors import InputError

SWEEP_FLAGS = {"-m", "--multirun"}


def rewrite_overrides(words: Sequence[str], groups: Sequence[str]) -> list[str]:
    """The words with the sweep flag first, `++` before arguments of a group's class, and `~GROUP` for GROUP=null.

    YAML files list only what differs from a class's defaults, so for Hydra any other argument is a new key, which
    needs `++`.

    Raises: InputError if an argument belongs to a group that is null.
    """
    names = "|".join(groups)
    argument, null_group = re.compile(rf"({names})\.[^=]+=.*"), re.compile(rf"({names})=null")
    null_groups = {match[1] for word in words if (match := null_group.fullmatch(word))}
    flags = [word for word in words if word in SWEEP_FLAGS]  # Hydra accepts -m only before the overrides
    overrides: list[str] = []
    for word in words:
        if match := argument.fullmatch(word):
            if match[1] in null_groups:
                raise InputError(f"{word} has nothing to change: {match[1]}=null leaves that part out.")
            overrides.append(f"++{word}")
        elif match := null_group.fullmatch(word):
            overrides.append(f"~{match[1]}")
        elif word not in SWEEP_FLAGS:
            overrides.append(word)
    return [*flags[:1], *overrides]
