"""Comparisons of searchers with equal budgets and paired seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l2l.lazy import make_lazy_names

if TYPE_CHECKING:
    from l2l.compare.runner import compare as compare

__getattr__, __all__ = make_lazy_names(
    __name__,
    {
        "compare": "l2l.compare.runner",
    },
)
