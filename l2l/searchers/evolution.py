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

from l2l.encoding import Domain
from l2l.errors import InputError
from l2l.searchers.core.base import ArraySearcher, Proposal
from l2l.searchers.core.points import (
    Points,
    choose_decisions,
    compute_uniforms,
    mutate_points,
    sample_points,
    zero_inactive,
)
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
class Evolution(ArraySearcher):
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

    def start(self, domain: Domain, key: Key) -> Population:
        """An empty population; `key` is not used."""
        shape = (self.population, len(domain.valid))
        points = Points(np.zeros(shape, np.int32), np.zeros(shape, np.float32))  # pyright: ignore[reportArgumentType]
        scores, numbers = np.full(self.population, np.nan, np.float32), np.full(self.population, -1, np.int32)
        return Population(points, scores, numbers, np.int32(0))  # pyright: ignore[reportArgumentType]

    def propose(self, state: Population, domain: Domain, key: Key, count: int) -> Proposal:
        """`count` candidates: random ones until as many were told as the population has room for."""
        keys = jax.random.split(key, 4)
        alive = ~jnp.isnan(state.scores)
        # The few of a tournament are the living with the lowest lots.
        lots = jnp.where(alive, jax.random.uniform(keys[0], (count, self.population)), jnp.inf)
        few = jnp.argsort(lots, axis=1)[:, : self.tournament]
        scores = jnp.where(alive, state.scores, -jnp.inf)[few]
        winner = jnp.take_along_axis(few, scores.argmax(1)[:, None], 1)[:, 0]
        parents = state.points.take(winner)
        children = mutate_points(
            domain, parents, choose_decisions(domain, parents.codes, keys[1], 1), keys[2], self.step
        )
        fresh = sample_points(domain, keys[3], count)
        first = (state.told + jnp.arange(count) < self.population) | ~alive.any()
        chosen = Points(*(jnp.where(first[:, None], a, b) for a, b in zip(fresh, children, strict=True)))
        points = zero_inactive(domain, chosen)
        return Proposal(
            points.codes, compute_uniforms(domain, points), {"parent": jnp.where(first, -1, state.numbers[winner])}
        )

    def learn(self, state: Population, domain: Domain, points: Points, scores: Array) -> Population:
        """The newest of the living and the trials."""
        numbers = state.told + jnp.arange(len(scores))

        def put(old: Array, new: Array) -> Array:
            return jnp.concatenate([jnp.asarray(old), new.astype(old.dtype)])

        # The dead and the unborn first, in their order; the newest of the living last.
        every = put(state.scores, scores)
        order = jnp.argsort(~jnp.isnan(every), stable=True)[-self.population :]
        living = Points(*(put(*pair)[order] for pair in zip(state.points, points, strict=True)))
        return Population(living, every[order], put(state.numbers, numbers)[order], state.told + len(scores))

    def summarise(self, state: Population) -> Mapping[str, Array]:
        """Mean and best reward of the living."""
        return {"reward": jnp.nanmean(state.scores), "best": jnp.nanmax(state.scores)}
