"""Executors: where trials run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l2l.lazy import make_lazy_names

if TYPE_CHECKING:
    from l2l.executors.inline import Inline as Inline
    from l2l.executors.local import Local as Local

__getattr__, __all__ = make_lazy_names(
    __name__,
    {
        "Inline": "l2l.executors.inline",
        "Local": "l2l.executors.local",
    },
)
