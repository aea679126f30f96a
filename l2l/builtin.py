"""The spaces that come with l2l: the only ones that a file may name."""

from __future__ import annotations

BUILT_IN = {name: f"search_spaces.{name}" for name in ("attention", "cnn", "mixed", "mlp", "moe", "transformer")}
"""The closed list of spaces that a file may name; any other space is handed in by the caller."""
