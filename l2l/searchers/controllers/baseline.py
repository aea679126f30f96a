"""Baselines of policy gradients: the reward that a candidate is compared with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from l2l.errors import check_integer, check_number
from l2l.types import Array

MAX_REWARD_DISTANCE = 1e9
"""In the unit of rewards: advantages that are not normalised are clipped to this size."""
TINY = 1e-37
"""Keeps divisors above 0."""


@runtime_checkable
class Baseline(Protocol):
    """Advantages from rewards; pure, traceable and hashable."""

    def start(self) -> Any:
        """The state before any reward."""
        ...

    def compute_advantages(self, state: Any, scores: Array) -> tuple[Array, Any]:
        """Advantages [N] of scores [N], always finite, and the state after them.

        An advantage says how much better than the baseline a score is. A score of nan belongs to a failed trial.
        """
        ...

    def estimate_reward(self, state: Any) -> Array:
        """[]: the baseline now; nan before any reward."""
        ...


class Averages(NamedTuple):
    """Moving averages of the rewards."""

    mean: Array
    deviation: Array
    """Mean absolute deviation from the mean."""
    weight: Array
    """Sum of the weights of all rewards: 0 before any, then towards 1."""
    lowest: Array
    """The lowest reward so far."""


@dataclass(frozen=True)
class MovingAverage:
    """The moving mean of the rewards; with `normalise` advantages are in mean deviations, at most three.

    A failed trial counts as the lowest reward so far, and as at least one deviation below the mean, so that
    the controller learns to avoid it. Before the first reward its advantage is 0.

    Raises: InputError if `decay` is not in [0, 1).
    """

    decay: float = 0.95
    """Weight that one more trial leaves to the averages before it."""
    normalise: bool = True

    def __post_init__(self) -> None:
        check_number("MovingAverage's decay", self.decay, 0, below=1)

    def start(self) -> Averages:
        """No reward yet."""
        return Averages(*(np.float32(value) for value in (0, 0, 0, math.inf)))  # pyright: ignore[reportArgumentType]

    def compute_advantages(self, state: Averages, scores: Array) -> tuple[Array, Averages]:
        """Advantages over the averages before the batch; the first batch is compared with itself."""
        after = self._update_averages(state, scores)
        past = jax.tree.map(lambda old, new: jnp.where(state.weight > 0, old, new), state, after)
        failed = jnp.isnan(scores)
        distances = jnp.where(failed, past.lowest, scores) - past.mean
        if self.normalise:
            # Rewards that differ by rounding alone are equal. Three deviations are enough of a signal: one
            # outlier must not undo all that was learnt.
            smallest = jnp.maximum(1e-6 * jnp.abs(past.mean), TINY)
            limit = jnp.where(past.deviation > smallest, 3, 1)  # without a deviation yet, any difference looks large
            distances = jnp.clip(distances / jnp.maximum(past.deviation, smallest), -limit, limit)
            distances = jnp.where(failed, jnp.minimum(distances, -1), distances)
        else:
            distances = jnp.where(failed, jnp.minimum(distances, -past.deviation), distances)
            distances = jnp.clip(distances, -MAX_REWARD_DISTANCE, MAX_REWARD_DISTANCE)
        return jnp.where(past.weight > 0, distances, 0), after

    def _update_averages(self, state: Averages, scores: Array) -> Averages:
        has_score = ~jnp.isnan(scores)
        count = has_score.sum()
        divisor = jnp.maximum(count, 1)
        mean = jnp.where(has_score, scores / divisor, 0).sum()
        # Starts empty and is divided by its weight, as in Adam, so that the first batch counts in full.
        decay = jnp.float32(self.decay) ** count
        old_weight = decay * state.weight
        # A step towards the new mean, so that equal rewards leave the mean where it is, to the last digit.
        rate = (1 - decay) / jnp.maximum(old_weight + 1 - decay, TINY)
        mean = state.mean + rate * (mean - state.mean)
        deviation = jnp.where(has_score, jnp.abs(scores - mean) / divisor, 0).sum()
        deviation = state.deviation + rate * (deviation - state.deviation)
        lowest = jnp.minimum(state.lowest, jnp.where(has_score, scores, jnp.inf).min())
        averages = Averages(mean, deviation, old_weight + 1 - decay, lowest)
        return jax.tree.map(lambda old, new: jnp.where(count > 0, new, old), state, averages)

    def estimate_reward(self, state: Averages) -> Array:
        """The moving mean."""
        return jnp.where(state.weight > 0, state.mean, jnp.nan)


@dataclass(frozen=True)
class _Window:
    """Base of the baselines that look at the batch and the last `window` trials before it.

    Raises: InputError if the window is below 2.
    """

    window: int = 64

    def __post_init__(self) -> None:
        check_integer(f"{type(self).__name__}'s window", self.window, 2)

    def start(self) -> Array:
        """[window]: all nan before any reward; a failed trial is minus infinity."""
        return jnp.asarray(np.full(self.window, np.nan, np.float32))

    def estimate_reward(self, state: Array) -> Array:
        """The mean of the window, without failures."""
        return jnp.nanmean(jnp.where(jnp.isfinite(state), state, jnp.nan))

    def _extend_window(self, state: Array, scores: Array) -> Array:
        """The window followed by the batch; a failed trial is minus infinity."""
        scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
        return jnp.concatenate([state, scores])


class LeaveOneOut(_Window):
    """The mean of all other trials of the batch and of the last `window` before it.

    Advantages are in mean deviations, at most three.

    Source: Kool et al. 2019, Buy 4 REINFORCE Samples, Get a Baseline for Free!, ICLR workshop, equation 8.
    """

    def compute_advantages(self, state: Array, scores: Array) -> tuple[Array, Array]:
        """Advantages over the others; a failure counts as the lowest, and as at least one deviation below the mean."""
        window = self._extend_window(state, scores)
        finite = jnp.isfinite(window)
        count = finite.sum()
        lowest = jnp.where(count > 0, jnp.where(finite, window, jnp.inf).min(), 0)
        # Relative to the lowest, so that the mean of equal rewards is theirs to the last digit.
        mean = lowest + jnp.where(finite, (window - lowest) / jnp.maximum(count, 1), 0).sum()
        deviation = jnp.where(finite, jnp.abs(window - mean) / jnp.maximum(count, 1), 0).sum()
        failed = jnp.isnan(scores)
        values = jnp.where(failed, lowest, scores)
        # Leaving one of `count` out multiplies its distance to the mean by this. A failure is in no mean, but it must
        # not come off better.
        factor = count / jnp.maximum(count - 1, 1)
        advantages = (values - mean) * factor / jnp.maximum(deviation, jnp.maximum(1e-6 * jnp.abs(mean), TINY))
        advantages = jnp.clip(advantages, -3, 3)
        advantages = jnp.where(failed, jnp.minimum(advantages, -1), advantages)
        return jnp.where(count > 0, advantages, 0), window[-self.window :]


class Ranks(_Window):
    """The rank in the batch and the last `window` trials before it, from -1 to 1 (the best), failures below all.

    Source: Wierstra et al. 2014, Natural Evolution Strategies, JMLR 15, section 3.1 (fitness shaping).
    """

    def compute_advantages(self, state: Array, scores: Array) -> tuple[Array, Array]:
        """Advantages by rank; equal scores share a rank, and advantages are 0 before the first reward."""
        window = self._extend_window(state, scores)
        has_trial = ~jnp.isnan(window)
        batch = window[-len(scores) :]
        worse = (has_trial & (window < batch[:, None])).sum(1)
        better = (has_trial & (window > batch[:, None])).sum(1)
        ranks = (worse - better) / jnp.maximum(has_trial.sum() - 1, 1)
        return jnp.where(jnp.isfinite(window).any(), ranks, 0).astype(jnp.float32), window[-self.window :]
