"""Local search: every neighbour of the best point, and on to the first that is better; at a summit, start elsewhere.

Source: White et al. 2021, Exploring the Loss Landscape in Neural Architecture Search, UAI, algorithm 1 (moving on at
the first improvement, as in their section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from l2l.encoding import Domain
from l2l.errors import InputError
from l2l.searchers.core.base import ArraySearcher, Proposal
from l2l.searchers.core.neighbours import list_neighbours
from l2l.searchers.core.points import (
    History,
    Points,
    choose_capacity,
    compute_uniforms,
    is_repeat,
    make_history,
    pad_history,
    sample_points,
    zero_inactive,
)
from l2l.types import Array, Key


class Climb(NamedTuple):
    """All trials, and where the present climb began."""

    history: History
    start: Array
    """[]: its first trial."""

    def top(self) -> tuple[Array, Array]:
        """The climb's best trial, the earliest of equals, and whether there is one that has not failed."""
        ours = self.history.has_score() & (jnp.arange(len(self.history.scores)) >= self.start)
        scores = jnp.where(ours, self.history.scores, -jnp.inf)
        return scores.argmax(), ours.any()


@dataclass(frozen=True)
class LocalSearch(ArraySearcher):
    """Climbs from the best of the `first` random candidates, later from a random one.

    A neighbour differs in one active choice: a category in any way, a number by one value or bin. None is tried
    twice; where all have been tried the climb is over and another begins.

    Raises: InputError if `first` is below 1.
    """

    first: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.first) is not int or self.first < 1:
            raise InputError(f"LocalSearch's first must be a whole number of at least 1, got {self.first!r}.")

    def start(self, domain: Domain, key: Key) -> Climb:
        """Nothing has been climbed; `key` is not used."""
        return Climb(make_history(domain), np.int32(0))  # pyright: ignore[reportArgumentType]

    def reserve(self, state: Climb, count: int) -> Climb:
        """The same climb with room for `count` trials in all."""
        return state._replace(history=pad_history(state.history, choose_capacity(count)))

    def propose(self, state: Climb, domain: Domain, key: Key, count: int) -> Proposal:
        """`count` neighbours that are new, in random order; random candidates where there are no more."""
        keys = jax.random.split(key, 3)
        fresh = zero_inactive(domain, sample_points(domain, keys[0], max(64, 8 * count)))
        around, open_ = self._around(state, domain, sample_points(domain, keys[1], 1))
        points = Points(*(jnp.concatenate(pair) for pair in zip(around, fresh, strict=True)))
        # New neighbours first, then new candidates, then any; of equals only one is new.
        lots = jax.random.uniform(keys[2], (len(points.codes),))
        fits = jnp.concatenate([open_, ~is_repeat(state.history, fresh.codes)])
        equal = (points.codes[:, None] == points.codes).all(-1) & fits
        fits &= equal.argmax(1) == jnp.arange(len(fits))
        beside = jnp.arange(len(fits)) < len(open_)
        order = jnp.argsort(jnp.where(fits, jnp.where(beside, 0, 1), jnp.where(beside, 9, 2)) + lots)
        chosen = points.take(order[:count])
        return Proposal(chosen.codes, compute_uniforms(domain, chosen), {})

    def _around(self, state: Climb, domain: Domain, fresh: Points) -> tuple[Points, Array]:
        """The neighbours of the top, and which of them are to be tried."""
        top, climbing = state.top()
        around, fits = list_neighbours(domain, state.history.points.take(top[None]), fresh)
        climbing &= state.history.count >= self.first
        return around, fits & climbing & ~is_repeat(state.history, around.codes)

    def learn(self, state: Climb, domain: Domain, points: Points, scores: Array) -> Climb:
        """The climb with these trials, or the beginning of another one if nothing is left to try."""
        told = Climb(state.history.append(zero_inactive(domain, points), scores), state.start)
        _, open_ = self._around(told, domain, told.history.points.take(jnp.zeros(1, jnp.int32)))
        over = ~open_.any() & (told.history.count >= self.first)
        return told._replace(start=jnp.where(over, told.history.count, told.start))

    def summarise(self, state: Climb) -> Mapping[str, Array]:
        """The best reward of this climb, and the trials it has taken."""
        top, climbing = state.top()
        best = jnp.where(climbing, state.history.scores[top], jnp.nan)
        return {"climb_best": best, "climb_trials": (state.history.count - state.start).astype(jnp.float32)}
