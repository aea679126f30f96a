"""The spaces that come with l2l: the only ones that a file may name."""

from __future__ import annotations

import importlib
from typing import Any

from l2l.space import SearchSpace

BUILT_IN = {name: f"search_spaces.{name}" for name in ("attention", "cnn", "mixed", "mlp", "moe", "transformer")}
"""Module of each built-in space by its name; any other space comes from the caller."""


def is_built_in(space: SearchSpace[Any]) -> bool:
    """Whether the space comes with l2l, so that its name alone identifies it."""
    if space.name not in BUILT_IN:
        return False
    # The builder is compared, since several spaces may share one.
    return importlib.import_module(BUILT_IN[space.name]).build is space.build
