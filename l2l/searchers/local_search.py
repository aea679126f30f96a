"""Local search: tries the neighbours of the best point and moves to the first that is better; restarts at a summit.

Source: White et al. 2021, Exploring the Loss Landscape in Neural Architecture Search, UAI, algorithm 1 (moving at the
first improvement, as in their section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from l2l.encoding import Domain
from l2l.errors import check_integer
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


class LocalSearchState(NamedTuple):
    """All trials, and where the current climb began."""

    history: History
    start: Array
    """[]: its first trial."""

    def find_best(self) -> tuple[Array, Array]:
        """Index [] of the climb's best trial, the earliest of equals, and whether the climb has a reward yet."""
        in_climb = self.history.has_score() & (jnp.arange(len(self.history.scores)) >= self.start)
        scores = jnp.where(in_climb, self.history.scores, -jnp.inf)
        return scores.argmax(), in_climb.any()


@dataclass(frozen=True)
class LocalSearch(ArraySearcher):
    """Climbs from the best of the `first` random candidates, later from a random one.

    A neighbour differs in one active choice: a category in any way, a number by one value or bin. No neighbour is
    tried twice. When all have been tried the climb is over and another one begins.

    Raises: InputError if `first` is below 1.
    """

    first: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("LocalSearch's first", self.first, 1)

    def start(self, domain: Domain, key: Key) -> LocalSearchState:
        """A climb without trials; `key` is not used."""
        return LocalSearchState(make_history(domain), np.int32(0))  # pyright: ignore[reportArgumentType]

    def reserve(self, state: LocalSearchState, count: int) -> LocalSearchState:
        """The same climb with capacity for `count` trials in all."""
        return state._replace(history=pad_history(state.history, choose_capacity(count)))

    def propose(self, state: LocalSearchState, domain: Domain, key: Key, count: int) -> Proposal:
        """`count` untried neighbours in random order, then random candidates."""
        keys = jax.random.split(key, 3)
        fresh = zero_inactive(domain, sample_points(domain, keys[0], max(64, 8 * count)))
        neighbours, untried = self._list_untried(state, domain, sample_points(domain, keys[1], 1))
        points = Points(*(jnp.concatenate(pair) for pair in zip(neighbours, fresh, strict=True)))
        # Untried neighbours first, then untried random candidates, then any; of equal candidates only one is untried.
        uniforms = jax.random.uniform(keys[2], (len(points.codes),))
        is_new = jnp.concatenate([untried, ~is_repeat(state.history, fresh.codes)])
        equal = (points.codes[:, None] == points.codes).all(-1) & is_new
        is_new &= equal.argmax(1) == jnp.arange(len(is_new))
        is_neighbour = jnp.arange(len(is_new)) < len(untried)
        group = jnp.where(is_new, jnp.where(is_neighbour, 0, 1), jnp.where(is_neighbour, 9, 2))
        order = jnp.argsort(group + uniforms)
        chosen = points.take(order[:count])
        return Proposal(chosen.codes, compute_uniforms(domain, chosen), {})

    def _list_untried(self, state: LocalSearchState, domain: Domain, fresh: Points) -> tuple[Points, Array]:
        """The neighbours of the climb's best trial, and a mask of those that are still to be tried."""
        best, is_climbing = state.find_best()
        neighbours, is_valid = list_neighbours(domain, state.history.points.take(best[None]), fresh)
        is_climbing &= state.history.count >= self.first
        return neighbours, is_valid & is_climbing & ~is_repeat(state.history, neighbours.codes)

    def learn(self, state: LocalSearchState, domain: Domain, points: Points, scores: Array) -> LocalSearchState:
        """The climb with N more trials, or the beginning of another one if no neighbour is left to try."""
        after = LocalSearchState(state.history.append(zero_inactive(domain, points), scores), state.start)
        _, untried = self._list_untried(after, domain, after.history.points.take(jnp.zeros(1, jnp.int32)))
        is_over = ~untried.any() & (after.history.count >= self.first)
        return after._replace(start=jnp.where(is_over, after.history.count, after.start))

    def summarise(self, state: LocalSearchState) -> Mapping[str, Array]:
        """The best reward of this climb, and its number of trials."""
        best, is_climbing = state.find_best()
        reward = jnp.where(is_climbing, state.history.scores[best], jnp.nan)
        return {"climb_best": reward, "climb_trials": (state.history.count - state.start).astype(jnp.float32)}
