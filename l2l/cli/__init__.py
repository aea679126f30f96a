"""The command line `l2l COMMAND [overrides]`; only this room reads argv, uses Hydra and prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l2l.lazy import make_lazy_names

if TYPE_CHECKING:
    from l2l.cli.entry import main as main

__getattr__, __all__ = make_lazy_names(
    __name__,
    {
        "main": "l2l.cli.entry",
    },
)
