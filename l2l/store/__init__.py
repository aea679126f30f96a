"""The store: the database of trials, and what identifies a study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l2l.lazy import make_lazy_names

if TYPE_CHECKING:
    from l2l.store.optuna_store import OptunaStore as OptunaStore

__getattr__, __all__ = make_lazy_names(
    __name__,
    {
        "OptunaStore": "l2l.store.optuna_store",
    },
)
