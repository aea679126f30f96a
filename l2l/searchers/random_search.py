"""Random search: every choice is sampled uniformly. Every other searcher must beat it.

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
    """Samples candidates uniformly and learns nothing."""

    def tell(self, state: ArraySearcherState, trials: Sequence[Trial]) -> ArraySearcherState:
        """The state after a batch with any number of objectives."""
        return state._replace(trial_count=state.trial_count + len(trials))

    def start(self, domain: Domain, key: Key) -> tuple[()]:
        """The empty state; `key` is not used."""
        return ()

    def propose(self, state: tuple[()], domain: Domain, key: Key, count: int) -> Proposal:
        """`count` candidates, sampled uniformly and with replacement."""
        points = zero_inactive(domain, sample_points(domain, key, count))
        return Proposal(points.codes, compute_uniforms(domain, points), {})

    def learn(self, state: tuple[()], domain: Domain, points: Points, scores: Array) -> tuple[()]:
        """The same empty state."""
        return state
