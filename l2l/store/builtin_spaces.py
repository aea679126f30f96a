"""The spaces that come with l2l: the only ones that a file may name."""

from __future__ import annotations

BUILT_IN = {name: f"search_spaces.{name}" for name in ("attention", "cnn", "mixed", "mlp", "moe", "transformer")}
"""Module of each built-in space by its name; any other space comes from the caller."""
