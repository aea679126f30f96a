"""Regularised evolution: the best of a random few gets one mutation, and the oldest dies.

Source: Real et al. 2019, Regularized Evolution for Image Classifier Architecture Search, AAAI, algorithm 1.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from l2l.encoding import rewards, unbuilt
from l2l.errors import InputError
from l2l.space import Candidate, Categorical, Choice, Integer, SearchSpace, Value
from l2l.types import Key, Trial


class Member(NamedTuple):
    """One of the population."""

    candidate: Candidate
    reward: float


class EvolutionState(NamedTuple):
    """The living, oldest first, and how many trials there have been."""

    space: SearchSpace[Any]
    members: tuple[Member, ...] = ()
    told: int = 0


@dataclass(frozen=True)
class Evolution:
    """Ageing evolution: random candidates at first, then mutated winners of tournaments.

    A mutation changes one active choice, each as likely: a Categorical takes another option, each as
    likely; a number takes a normal step of `step` in its quantile (reflected at the ends), and an Integer
    that this leaves in place moves to a neighbour. Choices that become active are drawn anew. Failed
    trials do not enter the population.

    Raises: InputError if a size is below 1, or the tournament is larger than the population.
    """

    population: int = 20
    tournament: int = 10
    step: float = 0.2

    def __post_init__(self) -> None:
        for name in ("population", "tournament"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise InputError(f"Evolution's {name} must be a whole number, 1 or more, got {getattr(self, name)!r}.")
        if self.tournament > self.population:
            raise InputError(
                f"Evolution's tournament must be at most its population ({self.population}), got {self.tournament}."
            )
        if not 0 < self.step < math.inf:
            raise InputError(f"Evolution's step must be above 0, got {self.step!r}.")

    def init(self, space: SearchSpace[Any], key: Key) -> EvolutionState:
        """An empty population; `key` is not used."""
        return EvolutionState(unbuilt(space))

    def ask(self, state: EvolutionState, key: Key, count: int) -> list[Candidate]:
        """`count` candidates; a child's note names its parent's key."""
        draw = random.Random(np.asarray(jax.random.bits(key, (4,))).tobytes())

        def one(number: int) -> Candidate:
            if number < self.population or not state.members:
                return state.space.sample(draw)
            few = draw.sample(state.members, min(self.tournament, len(state.members)))
            parent = max(few, key=lambda member: member.reward).candidate
            return mutate(state.space, parent, draw, self.step)

        return [one(state.told + i) for i in range(count)]

    def tell(self, state: EvolutionState, trials: Sequence[Trial]) -> EvolutionState:
        """The newest of the living and the trials. Raises: InputError on several objectives."""
        values = rewards(trials)
        born = [
            Member(trial.candidate, float(value))
            for trial, value in zip(trials, values, strict=True)
            if not math.isnan(value)
        ]
        members = (*state.members, *born)[-self.population :]
        return EvolutionState(state.space, members, state.told + len(trials))

    def summary(self, state: EvolutionState) -> Mapping[str, float]:
        """Mean and best reward of the living; empty before any."""
        if not state.members:
            return {}
        values = [member.reward for member in state.members]
        return {"reward": sum(values) / len(values), "best": max(values)}


def mutate(space: SearchSpace[Any], parent: Candidate, draw: random.Random, step: float) -> Candidate:
    """`parent` with one active choice changed; the same values if it has no choice to change."""
    names = [name for name in parent.values if space.choices[name].count() > 1]
    target = draw.choice(names) if names else None

    def pick(name: str, choice: Choice) -> Value:
        if name == target:
            return _other(choice, parent.values[name], draw, step)
        return parent.values[name] if name in parent.values else choice.at(draw.random())

    return space.complete(pick, {"parent": parent.key})


def _other(choice: Choice, value: Value, draw: random.Random, step: float) -> Value:
    if isinstance(choice, Categorical):
        position = int(choice.quantile(value) * len(choice.options))
        others = [*choice.options[:position], *choice.options[position + 1 :]]
        return draw.choice(others)
    moved = choice.quantile(value) + draw.gauss(0, step)
    # Reflected at 0 and 1, as often as needed.
    found = choice.at(1 - abs(1 - moved % 2))
    if isinstance(choice, Integer) and found == value:
        assert isinstance(value, int)
        up = draw.random() < 0.5 if choice.low < value < choice.high else value == choice.low
        return value + (choice.step if up else -choice.step)
    return found
