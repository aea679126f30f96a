"""What a candidate's reward is compared with: three baselines of policy gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from l2l.errors import InputError
from l2l.types import Array

FAR = 1e9
"""An advantage that is not normalised is held within this."""
TINY = 1e-37


class Baseline(Protocol):
    """Advantages from rewards; pure, traceable and hashable."""

    def start(self) -> Any:
        """What is known before any reward."""
        ...

    def compare(self, known: Any, scores: Array) -> tuple[Array, Any]:
        """How much better than expected scores [N] are, always finite, and what is known after them.

        A score that is nan belongs to a trial that failed.
        """
        ...

    def expected_reward(self, known: Any) -> Array:
        """[]: what is expected now; nan before any reward."""
        ...


class Averages(NamedTuple):
    """Moving averages of the rewards."""

    mean: Array
    spread: Array
    """Of the distance to the mean."""
    weight: Array
    """How much of the averages is filled: 0 before any reward, then towards 1."""
    lowest: Array
    """The lowest reward so far."""


@dataclass(frozen=True)
class MovingAverage:
    """The moving mean of the rewards; with `normalise` in mean distances from it, at most three.

    A failed trial counts as the lowest reward so far, and as one spread below the mean at least, so that
    the controller learns to avoid it; before the first reward it says nothing.

    Raises: InputError if `decay` is not in [0, 1).
    """

    decay: float = 0.95
    """What a trial leaves of the averages before it."""
    normalise: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise InputError(f"MovingAverage's decay must be in [0, 1), got {self.decay!r}.")

    def start(self) -> Averages:
        """No reward yet."""
        return Averages(*(np.float32(each) for each in (0, 0, 0, math.inf)))  # pyright: ignore[reportArgumentType]

    def compare(self, known: Averages, scores: Array) -> tuple[Array, Averages]:
        """Advantages over the averages before the batch; the first batch is compared with itself."""
        after = self._after(known, scores)
        past = jax.tree.map(lambda old, new: jnp.where(known.weight > 0, old, new), known, after)
        failed = jnp.isnan(scores)
        distances = jnp.where(failed, past.lowest, scores) - past.mean
        if self.normalise:
            # Rewards that differ by rounding alone are equal. Three spreads are enough of a signal: one
            # outlier must not undo all that was learnt.
            smallest = jnp.maximum(1e-6 * jnp.abs(past.mean), TINY)
            most = jnp.where(past.spread > smallest, 3, 1)  # before there is a spread, any difference looks large
            distances = jnp.clip(distances / jnp.maximum(past.spread, smallest), -most, most)
            distances = jnp.where(failed, jnp.minimum(distances, -1), distances)
        else:
            distances = jnp.where(failed, jnp.minimum(distances, -past.spread), distances)
            distances = jnp.clip(distances, -FAR, FAR)
        return jnp.where(past.weight > 0, distances, 0), after

    def _after(self, known: Averages, scores: Array) -> Averages:
        counted = ~jnp.isnan(scores)
        count = counted.sum()
        some = jnp.maximum(count, 1)
        mean = jnp.where(counted, scores / some, 0).sum()
        # Started empty and divided by its weight, as Adam does, so that the first batch counts in full.
        past = jnp.float32(self.decay) ** count
        keep = past * known.weight
        # As a step towards the new, so that equal rewards leave the mean where it is, to the last digit.
        share = (1 - past) / jnp.maximum(keep + 1 - past, TINY)
        mean = known.mean + share * (mean - known.mean)
        spread = jnp.where(counted, jnp.abs(scores - mean) / some, 0).sum()
        spread = known.spread + share * (spread - known.spread)
        lowest = jnp.minimum(known.lowest, jnp.where(counted, scores, jnp.inf).min())
        new = Averages(mean, spread, keep + 1 - past, lowest)
        return jax.tree.map(lambda old, each: jnp.where(count > 0, each, old), known, new)

    def expected_reward(self, known: Averages) -> Array:
        """The moving mean."""
        return jnp.where(known.weight > 0, known.mean, jnp.nan)


@dataclass(frozen=True)
class _Windowed:
    """What baselines share that look at the last `window` trials before the batch, and at the batch.

    Raises: InputError if the window is below 2.
    """

    window: int = 64

    def __post_init__(self) -> None:
        if type(self.window) is not int or self.window < 2:
            raise InputError(
                f"{type(self).__name__}'s window must be a whole number of at least 2, got {self.window!r}."
            )

    def start(self) -> Array:
        """No reward yet: [window] of nan, with failures as minus infinity later."""
        return jnp.asarray(np.full(self.window, np.nan, np.float32))

    def expected_reward(self, known: Array) -> Array:
        """The mean of the window, without failures."""
        return jnp.nanmean(jnp.where(jnp.isfinite(known), known, jnp.nan))

    def _window(self, known: Array, scores: Array) -> Array:
        """The last rewards with these; what failed is minus infinity."""
        scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
        return jnp.concatenate([known, scores])


class LeaveOneOut(_Windowed):
    """The mean of all others in the batch and the last `window` trials before it, in mean distances, at most three.

    Source: Kool et al. 2019, Buy 4 REINFORCE Samples, Get a Baseline for Free!, ICLR workshop, equation 8.
    """

    def compare(self, known: Array, scores: Array) -> tuple[Array, Array]:
        """Advantages over the others; a failure counts as the lowest of the window, and a spread below at least."""
        whole = self._window(known, scores)
        finite = jnp.isfinite(whole)
        count = finite.sum()
        lowest = jnp.where(count > 0, jnp.where(finite, whole, jnp.inf).min(), 0)
        # Over the lowest, so that the mean of equal rewards is theirs to the last digit.
        mean = lowest + jnp.where(finite, (whole - lowest) / jnp.maximum(count, 1), 0).sum()
        spread = jnp.where(finite, jnp.abs(whole - mean) / jnp.maximum(count, 1), 0).sum()
        failed = jnp.isnan(scores)
        values = jnp.where(failed, lowest, scores)
        # When one of `count` is taken out its distance to the mean grows by this; a failure must not come off better.
        share = count / jnp.maximum(count - 1, 1)
        scaled = (values - mean) * share / jnp.maximum(spread, jnp.maximum(1e-6 * jnp.abs(mean), TINY))
        scaled = jnp.clip(scaled, -3, 3)
        scaled = jnp.where(failed, jnp.minimum(scaled, -1), scaled)
        return jnp.where(count > 0, scaled, 0), whole[-self.window :]


class Ranks(_Windowed):
    """The rank in the batch and the last `window` trials before it, from -1 to 1 (the best), failures below all.

    Source: Wierstra et al. 2014, Natural Evolution Strategies, JMLR 15, section 3.1 (fitness shaping).
    """

    def compare(self, known: Array, scores: Array) -> tuple[Array, Array]:
        """Advantages by rank; equals share theirs, and nothing is said before the first reward."""
        whole = self._window(known, scores)
        taken = ~jnp.isnan(whole)
        ours = whole[-len(scores) :]
        less = (taken & (whole < ours[:, None])).sum(1)
        more = (taken & (whole > ours[:, None])).sum(1)
        ranked = (less - more) / jnp.maximum(taken.sum() - 1, 1)
        return jnp.where(jnp.isfinite(whole).any(), ranked, 0).astype(jnp.float32), whole[-self.window :]
