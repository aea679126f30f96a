"""Regularised evolution: the winner of a tournament gets one mutation, and the oldest member dies.

Source: Real et al. 2019, Regularized Evolution for Image Classifier Architecture Search, AAAI, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from l2l.encoding import Domain
from l2l.errors import InputError, check_integer, check_number
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


class EvolutionState(NamedTuple):
    """The living members of the population, oldest first, at the end of arrays of a fixed size."""

    points: Points
    scores: Array
    """[population], nan where there is no member yet."""
    numbers: Array
    """[population]: the members' trial numbers."""
    trial_count: Array
    """[]: trials so far, failed ones included."""


@dataclass(frozen=True)
class Evolution(ArraySearcher):
    """Ageing evolution: random candidates at first, then mutated winners of tournaments.

    A mutation changes one active choice, each equally likely. A Categorical takes another option, each equally
    likely. A number takes a normal step of scale `step` in its quantile, reflected at the ends; an Integer that
    would keep its value moves to a neighbour. Choices that become active are sampled anew. Failed trials do not
    enter the population. The metadata of a child holds the number of its parent's trial.

    Raises: InputError if a size is below 1, or the tournament is larger than the population.
    """

    population: int = 20
    tournament: int = 10
    step: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("population", "tournament"):
            check_integer(f"Evolution's {name}", getattr(self, name), 1)
        if self.tournament > self.population:
            raise InputError(
                f"Evolution's tournament must be at most its population ({self.population}), got {self.tournament}."
            )
        check_number("Evolution's step", self.step, above=0)

    def start(self, domain: Domain, key: Key) -> EvolutionState:
        """An empty population; `key` is not used."""
        shape = (self.population, len(domain.valid))
        points = Points(np.zeros(shape, np.int32), np.zeros(shape, np.float32))  # pyright: ignore[reportArgumentType]
        scores, numbers = np.full(self.population, np.nan, np.float32), np.full(self.population, -1, np.int32)
        return EvolutionState(points, scores, numbers, np.int32(0))  # pyright: ignore[reportArgumentType]

    def propose(self, state: EvolutionState, domain: Domain, key: Key, count: int) -> Proposal:
        """`count` candidates: random ones until there have been as many trials as the population has members."""
        keys = jax.random.split(key, 4)
        alive = ~jnp.isnan(state.scores)
        # The members of a tournament are the living with the lowest random numbers.
        order = jnp.where(alive, jax.random.uniform(keys[0], (count, self.population)), jnp.inf)
        members = jnp.argsort(order, axis=1)[:, : self.tournament]
        scores = jnp.where(alive, state.scores, -jnp.inf)[members]
        winner = jnp.take_along_axis(members, scores.argmax(1)[:, None], 1)[:, 0]
        parents = state.points.take(winner)
        children = mutate_points(
            domain, parents, choose_decisions(domain, parents.codes, keys[1], 1), keys[2], self.step
        )
        fresh = sample_points(domain, keys[3], count)
        is_random = (state.trial_count + jnp.arange(count) < self.population) | ~alive.any()
        chosen = Points(*(jnp.where(is_random[:, None], a, b) for a, b in zip(fresh, children, strict=True)))
        points = zero_inactive(domain, chosen)
        return Proposal(
            points.codes, compute_uniforms(domain, points), {"parent": jnp.where(is_random, -1, state.numbers[winner])}
        )

    def learn(self, state: EvolutionState, domain: Domain, points: Points, scores: Array) -> EvolutionState:
        """The population after N trials: the newest of the living."""
        numbers = state.trial_count + jnp.arange(len(scores))

        def put(old: Array, new: Array) -> Array:
            return jnp.concatenate([jnp.asarray(old), new.astype(old.dtype)])

        # Failed trials and empty entries first, in their order; the newest of the living last.
        all_scores = put(state.scores, scores)
        order = jnp.argsort(~jnp.isnan(all_scores), stable=True)[-self.population :]
        living = Points(*(put(*pair)[order] for pair in zip(state.points, points, strict=True)))
        return EvolutionState(
            living,
            all_scores[order],
            put(state.numbers, numbers)[order],
            state.trial_count + len(scores),
        )

    def summarise(self, state: EvolutionState) -> Mapping[str, Array]:
        """Mean and best reward of the living."""
        return {"reward": jnp.nanmean(state.scores), "best": jnp.nanmax(state.scores)}
