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

from l2l.encoding import Tables
from l2l.errors import InputError
from l2l.searchers.core.base import Coded, Proposal
from l2l.searchers.core.neighbours import neighbours
from l2l.searchers.core.points import History, Points, capacity, drawn, history, padded, seen, settled, within
from l2l.types import Array, Key


class Climb(NamedTuple):
    """All trials, and where the present climb began."""

    history: History
    start: Array
    """[]: its first trial."""

    def top(self) -> tuple[Array, Array]:
        """The climb's best trial, the earliest of equals, and whether there is one that has not failed."""
        ours = self.history.known() & (jnp.arange(len(self.history.scores)) >= self.start)
        scores = jnp.where(ours, self.history.scores, -jnp.inf)
        return scores.argmax(), ours.any()


@dataclass(frozen=True)
class LocalSearch(Coded):
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

    def start(self, tables: Tables, key: Key) -> Climb:
        """Nothing has been climbed; `key` is not used."""
        return Climb(history(tables), np.int32(0))  # pyright: ignore[reportArgumentType]

    def roomy(self, inner: Climb, count: int) -> Climb:
        """The same climb with room for `count` trials in all."""
        return inner._replace(history=padded(inner.history, capacity(count)))

    def propose(self, inner: Climb, tables: Tables, key: Key, count: int) -> Proposal:
        """`count` neighbours that are new, in random order; random candidates where there are no more."""
        keys = jax.random.split(key, 3)
        fresh = settled(tables, drawn(tables, keys[0], max(64, 8 * count)))
        around, open_ = self._around(inner, tables, drawn(tables, keys[1], 1))
        points = Points(*(jnp.concatenate(pair) for pair in zip(around, fresh, strict=True)))
        # New neighbours first, then new candidates, then any; of equals only one is new.
        lots = jax.random.uniform(keys[2], (len(points.codes),))
        fits = jnp.concatenate([open_, ~seen(inner.history, fresh.codes)])
        equal = (points.codes[:, None] == points.codes).all(-1) & fits
        fits &= equal.argmax(1) == jnp.arange(len(fits))
        beside = jnp.arange(len(fits)) < len(open_)
        order = jnp.argsort(jnp.where(fits, jnp.where(beside, 0, 1), jnp.where(beside, 9, 2)) + lots)
        chosen = points.at(order[:count])
        return Proposal(chosen.codes, within(tables, chosen), {})

    def _around(self, inner: Climb, tables: Tables, fresh: Points) -> tuple[Points, Array]:
        """The neighbours of the top, and which of them are to be tried."""
        top, climbing = inner.top()
        around, fits = neighbours(tables, inner.history.points.at(top[None]), fresh)
        climbing &= inner.history.count >= self.first
        return around, fits & climbing & ~seen(inner.history, around.codes)

    def learn(self, inner: Climb, tables: Tables, points: Points, scores: Array) -> Climb:
        """The climb with these trials, or the beginning of another one if nothing is left to try."""
        told = Climb(inner.history.append(settled(tables, points), scores), inner.start)
        _, open_ = self._around(told, tables, told.history.points.at(jnp.zeros(1, jnp.int32)))
        over = ~open_.any() & (told.history.count >= self.first)
        return told._replace(start=jnp.where(over, told.history.count, told.start))

    def figures(self, inner: Climb) -> Mapping[str, Array]:
        """The best reward of this climb, and the trials it has taken."""
        top, climbing = inner.top()
        best = jnp.where(climbing, inner.history.scores[top], jnp.nan)
        return {"climb_best": best, "climb_trials": (inner.history.count - inner.start).astype(jnp.float32)}
