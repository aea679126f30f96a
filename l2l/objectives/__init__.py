"""Objectives: they run trials, by training candidates or by looking them up in a tabular benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l2l.lazy import make_lazy_names

if TYPE_CHECKING:
    from l2l.objectives.benchmark_table import refuse_to_build as refuse_to_build
    from l2l.objectives.final import Final as Final
    from l2l.objectives.tabular import Tabular as Tabular
    from l2l.objectives.tabular import benchmark_space as benchmark_space
    from l2l.objectives.trained import Trained as Trained

__getattr__, __all__ = make_lazy_names(
    __name__,
    {
        "Trained": "l2l.objectives.trained",
        "Tabular": "l2l.objectives.tabular",
        "Final": "l2l.objectives.final",
        "benchmark_space": "l2l.objectives.tabular",
        "refuse_to_build": "l2l.objectives.benchmark_table",
    },
)
