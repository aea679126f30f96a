"""Trackers: they watch a search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l2l.lazy import make_lazy_names

if TYPE_CHECKING:
    from l2l.trackers.console import Console as Console
    from l2l.trackers.wandb import Wandb as Wandb

__getattr__, __all__ = make_lazy_names(
    __name__,
    {
        "Console": "l2l.trackers.console",
        "Wandb": "l2l.trackers.wandb",
    },
)
