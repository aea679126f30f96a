"""Random search: every candidate drawn uniformly, choice by choice; what every other searcher must beat.

Source: Bergstra and Bengio 2012, Random Search for Hyper-Parameter Optimization, JMLR 13.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from l2l.encoding import unbuilt
from l2l.space import Candidate, SearchSpace
from l2l.types import Key, Trial


class RandomState(NamedTuple):
    """The space is all there is to know."""

    space: SearchSpace[Any]


@dataclass(frozen=True)
class Random:
    """Draws candidates uniformly and learns nothing."""

    def init(self, space: SearchSpace[Any], key: Key) -> RandomState:
        """The state before any trial; `key` is not used."""
        return RandomState(unbuilt(space))

    def ask(self, state: RandomState, key: Key, count: int) -> list[Candidate]:
        """`count` candidates, each drawn uniformly; one may come twice."""
        draw = random.Random(np.asarray(jax.random.bits(key, (4,))).tobytes())
        return [state.space.sample(draw) for _ in range(count)]

    def tell(self, state: RandomState, trials: Sequence[Trial]) -> RandomState:
        """The same state."""
        return state

    def summary(self, state: RandomState) -> Mapping[str, float]:
        """Nothing."""
        return {}
