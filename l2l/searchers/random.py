"""Random search: every candidate drawn uniformly, choice by choice; what every other searcher must beat.

Source: Bergstra and Bengio 2012, Random Search for Hyper-Parameter Optimization, JMLR 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from l2l.encoding import Domain
from l2l.searchers.core.base import ArraySearcher, ArraySearcherState, Proposal
from l2l.searchers.core.points import Points, compute_uniforms, sample_points, zero_inactive
from l2l.types import Array, Key, Trial


@dataclass(frozen=True)
class Random(ArraySearcher):
    """Draws candidates uniformly and learns nothing."""

    def tell(self, state: ArraySearcherState, trials: Sequence[Trial]) -> ArraySearcherState:
        """The state after a batch, of however many objectives."""
        return state._replace(trial_count=state.trial_count + len(trials))

    def start(self, domain: Domain, key: Key) -> tuple[()]:
        """Nothing to know; `key` is not used."""
        return ()

    def propose(self, state: tuple[()], domain: Domain, key: Key, count: int) -> Proposal:
        """`count` candidates, each drawn uniformly; one may come twice."""
        points = zero_inactive(domain, sample_points(domain, key, count))
        return Proposal(points.codes, compute_uniforms(domain, points), {})

    def learn(self, state: tuple[()], domain: Domain, points: Points, scores: Array) -> tuple[()]:
        """Nothing."""
        return state
