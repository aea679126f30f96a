"""Random search: every candidate drawn uniformly, choice by choice; what every other searcher must beat.

Source: Bergstra and Bengio 2012, Random Search for Hyper-Parameter Optimization, JMLR 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from l2l.encoding import Tables
from l2l.searchers.core.base import Coded, CodedState, Proposal
from l2l.searchers.core.points import Points, drawn, settled, within
from l2l.types import Array, Key, Trial


@dataclass(frozen=True)
class Random(Coded):
    """Draws candidates uniformly and learns nothing."""

    def tell(self, state: CodedState, trials: Sequence[Trial]) -> CodedState:
        """The state after a batch, of however many objectives."""
        return state._replace(told=state.told + len(trials))

    def start(self, tables: Tables, key: Key) -> tuple[()]:
        """Nothing to know; `key` is not used."""
        return ()

    def propose(self, inner: tuple[()], tables: Tables, key: Key, count: int) -> Proposal:
        """`count` candidates, each drawn uniformly; one may come twice."""
        points = settled(tables, drawn(tables, key, count))
        return Proposal(points.codes, within(tables, points), {})

    def learn(self, inner: tuple[()], tables: Tables, points: Points, scores: Array) -> tuple[()]:
        """Nothing."""
        return inner
