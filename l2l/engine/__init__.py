"""Trains candidates as lanes of compiled programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l2l.lazy import make_lazy_names

if TYPE_CHECKING:
    from l2l.engine.limits import Limits as Limits

__getattr__, __all__ = make_lazy_names(__name__, {"Limits": "l2l.engine.limits"})
