"""Regularised evolution: the best of a random few gets one mutation, and the oldest dies.

Source: Real et al. 2019, Regularized Evolution for Image Classifier Architecture Search, AAAI, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from l2l.encoding import Tables
from l2l.errors import InputError
from l2l.searchers.core.base import Coded, Proposal
from l2l.searchers.core.points import Points, drawn, moved, settled, several, within
from l2l.types import Array, Key


class Population(NamedTuple):
    """The living, oldest first, at the end of arrays of a fixed size, and how many trials there have been."""

    points: Points
    scores: Array
    """[M], nan where nobody lives yet."""
    numbers: Array
    """[M]: the trials that they were."""
    told: Array
    """[]"""


@dataclass(frozen=True)
class Evolution(Coded):
    """Ageing evolution: random candidates at first, then mutated winners of tournaments.

    A mutation changes one active choice, each as likely: a Categorical takes another option, each as
    likely; a number takes a normal step of `step` in its quantile (reflected at the ends), and an Integer
    that this leaves in place moves to a neighbour. Choices that become active are drawn anew. Failed
    trials do not enter the population. A child's note names the trial that it comes from.

    Raises: InputError if a size is below 1, or the tournament is larger than the population.
    """

    population: int = 20
    tournament: int = 10
    step: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("population", "tournament"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise InputError(f"Evolution's {name} must be a whole number, 1 or more, got {getattr(self, name)!r}.")
        if self.tournament > self.population:
            raise InputError(
                f"Evolution's tournament must be at most its population ({self.population}), got {self.tournament}."
            )
        if not 0 < self.step < math.inf:
            raise InputError(f"Evolution's step must be above 0, got {self.step!r}.")

    def start(self, tables: Tables, key: Key) -> Population:
        """An empty population; `key` is not used."""
        shape = (self.population, len(tables.valid))
        points = Points(np.zeros(shape, np.int32), np.zeros(shape, np.float32))  # pyright: ignore[reportArgumentType]
        scores, numbers = np.full(self.population, np.nan, np.float32), np.full(self.population, -1, np.int32)
        return Population(points, scores, numbers, np.int32(0))  # pyright: ignore[reportArgumentType]

    def propose(self, inner: Population, tables: Tables, key: Key, count: int) -> Proposal:
        """`count` candidates: random ones until as many were told as the population has room for."""
        keys = jax.random.split(key, 4)
        alive = ~jnp.isnan(inner.scores)
        # The few of a tournament are the living with the lowest lots.
        lots = jnp.where(alive, jax.random.uniform(keys[0], (count, self.population)), jnp.inf)
        few = jnp.argsort(lots, axis=1)[:, : self.tournament]
        scores = jnp.where(alive, inner.scores, -jnp.inf)[few]
        winner = jnp.take_along_axis(few, scores.argmax(1)[:, None], 1)[:, 0]
        parents = inner.points.at(winner)
        children = moved(tables, parents, several(tables, parents.codes, keys[1], 1), keys[2], self.step)
        fresh = drawn(tables, keys[3], count)
        first = (inner.told + jnp.arange(count) < self.population) | ~alive.any()
        chosen = Points(*(jnp.where(first[:, None], a, b) for a, b in zip(fresh, children, strict=True)))
        points = settled(tables, chosen)
        return Proposal(points.codes, within(tables, points), {"parent": jnp.where(first, -1, inner.numbers[winner])})

    def learn(self, inner: Population, tables: Tables, points: Points, scores: Array) -> Population:
        """The newest of the living and the trials."""
        numbers = inner.told + jnp.arange(len(scores))

        def put(old: Array, new: Array) -> Array:
            return jnp.concatenate([jnp.asarray(old), new.astype(old.dtype)])

        # The dead and the unborn first, in their order; the newest of the living last.
        every = put(inner.scores, scores)
        order = jnp.argsort(~jnp.isnan(every), stable=True)[-self.population :]
        living = Points(*(put(*pair)[order] for pair in zip(inner.points, points, strict=True)))
        return Population(living, every[order], put(inner.numbers, numbers)[order], inner.told + len(scores))

    def figures(self, inner: Population) -> Mapping[str, Array]:
        """Mean and best reward of the living."""
        return {"reward": jnp.nanmean(inner.scores), "best": jnp.nanmax(inner.scores)}
