"""REINFORCE: a controller = policy × policy gradient × moving baseline.

Source: Williams 1992, Simple Statistical Gradient-Following Algorithms, Machine Learning 8, equation 11;
Zoph and Le 2017, Neural Architecture Search with Reinforcement Learning, ICLR, section 3.2.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax

from l2l.encoding import Encoding, Tables, rewards
from l2l.errors import InputError
from l2l.searchers.factorised import Factorised
from l2l.searchers.policy import Params, Policy, draw
from l2l.space import Candidate, SearchSpace
from l2l.types import Array, Key, Trial

Floats = npt.NDArray[np.float64]


class Baseline(NamedTuple):
    """Moving averages of the rewards: what a candidate is compared with."""

    mean: float = 0.0
    spread: float = 0.0
    """Of the distance to the mean."""
    weight: float = 0.0
    """How much of the averages is filled: 0 before any reward, then towards 1."""
    lowest: float = math.inf
    """The lowest reward so far."""

    def update(self, values: Floats, decay: float) -> Baseline:
        """The averages after rewards [N], each of which decays the past once; failed trials (nan) do not count."""
        known = values[~np.isnan(values)]
        if not len(known):
            return self
        # Started empty and divided by its weight, as Adam does, so that the first batch counts in full.
        past = decay ** len(known)
        keep, weight = past * self.weight, past * self.weight + 1 - past
        mean = (keep * self.mean + (1 - past) * float(known.mean())) / weight
        spread = (keep * self.spread + (1 - past) * float(np.abs(known - mean).mean())) / weight
        return Baseline(mean, spread, weight, min(self.lowest, float(known.min())))

    def advantages(self, values: Floats, normalise: bool) -> Floats:
        """How much better than expected: [N] from rewards [N], always finite.

        A failed trial (nan) counts as the lowest reward so far, and as one spread below the mean at
        least, so that the controller learns to avoid it; before the first reward it says nothing.
        """
        if not self.weight:
            return np.zeros_like(values)
        failed = np.isnan(values)
        distances = np.where(failed, self.lowest, values) - self.mean
        if not normalise:
            return np.clip(np.where(failed, np.minimum(distances, -self.spread), distances), -1e9, 1e9)
        # Rewards that differ by rounding alone are equal. Three spreads are enough of a signal: one
        # outlier must not undo all that was learnt.
        scaled = np.clip(distances / max(self.spread, 1e-9 * abs(self.mean), 1e-300), -3, 3)
        return np.where(failed, np.minimum(scaled, -1), scaled)


class ReinforceState(NamedTuple):
    """A pytree: the encoding is static, all else are numbers."""

    encoding: Encoding
    params: Params
    moments: optax.OptState
    baseline: Baseline = Baseline()
    reward: float = 0.0
    """Mean reward of the last batch that had any."""
    entropy: float = 0.0
    """Mean entropy, in nats, of the policy over the last batch."""


@dataclass(frozen=True)
class Reinforce:
    """Draws candidates from a policy and makes those likelier that beat the moving mean of the rewards.

    The gradient of `advantage · log-probability + entropy_weight · entropy` goes through Adam. With
    `normalise` an advantage is measured in mean distances from the baseline, so that one learning rate
    suits rewards of any scale; with one trial a step it suits batches of any size too. The defaults did
    best on toy spaces of 4 to 20 choices within 64 to 512 trials.

    Raises: InputError if a number is out of its range.
    """

    policy: Policy = Factorised()  # noqa: RUF009  # frozen, hence safe to share
    learning_rate: float = 0.12
    baseline_decay: float = 0.95
    """What a trial leaves of the averages before it."""
    entropy_weight: float = 0.15
    normalise: bool = True
    minibatch: int | None = 1
    """Trials a step of Adam averages over; None takes the whole batch in one."""
    bins: int = 16
    """Codes of a Real and of a long Integer."""

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"Reinforce's learning_rate must be above 0, got {self.learning_rate!r}.")
        if not 0 <= self.baseline_decay < 1:
            raise InputError(f"Reinforce's baseline_decay must be in [0, 1), got {self.baseline_decay!r}.")
        if not 0 <= self.entropy_weight < math.inf:
            raise InputError(f"Reinforce's entropy_weight must be at least 0, got {self.entropy_weight!r}.")
        if self.minibatch is not None and (type(self.minibatch) is not int or self.minibatch < 1):
            raise InputError(
                f"Reinforce's minibatch must be a whole number of at least 1, or none, got {self.minibatch!r}."
            )
        if type(self.bins) is not int or self.bins < 1:
            raise InputError(f"Reinforce's bins must be a whole number of at least 1, got {self.bins!r}.")

    def init(self, space: SearchSpace[Any], key: Key) -> ReinforceState:
        """The policy as it starts, and no baseline."""
        encoding = Encoding(space, self.bins)
        params = self.policy.init(encoding.tables, key)
        return ReinforceState(encoding, params, optax.adam(self.learning_rate).init(params))

    def ask(self, state: ReinforceState, key: Key, count: int) -> list[Candidate]:
        """`count` candidates drawn from the policy; each one's note holds its log-probability in nats."""
        drawn = jax.device_get(draw(self.policy, state.params, state.encoding.tables, key, count))
        notes = [{"log_prob": float(each)} for each in drawn.log_prob]
        return state.encoding.decode(drawn.codes, drawn.uniforms, notes)

    def tell(self, state: ReinforceState, trials: Sequence[Trial]) -> ReinforceState:
        """The state after the batch's steps of Adam. Raises: InputError on several objectives."""
        values = rewards(trials)
        # The first batch has no past to be compared with, so it is compared with itself.
        before = state.baseline if state.baseline.weight else state.baseline.update(values, self.baseline_decay)
        advantages = before.advantages(values, self.normalise).astype(np.float32)
        if not before.weight:
            return state
        codes, _ = state.encoding.encode([trial.candidate for trial in trials])
        params, moments, entropy = _learn(self, state.encoding.tables, state.params, state.moments, codes, advantages)
        after = state.baseline.update(values, self.baseline_decay)
        known = values[~np.isnan(values)]
        reward = float(known.mean()) if len(known) else state.reward
        return ReinforceState(state.encoding, params, moments, after, reward, float(entropy))

    def summary(self, state: ReinforceState) -> Mapping[str, float]:
        """Mean reward of the last batch, baseline, and the policy's entropy in nats; empty before any reward."""
        if not state.baseline.weight:
            return {}
        return {"reward": state.reward, "baseline": state.baseline.mean, "entropy": state.entropy}


@functools.partial(jax.jit, static_argnums=0)
def _learn(
    searcher: Reinforce, tables: Tables, params: Params, moments: optax.OptState, codes: Array, advantages: Array
) -> tuple[Params, optax.OptState, Array]:
    """Adam on codes [N, D] with advantages [N], `minibatch` trials a step; also the entropy [N] on the way."""
    size = searcher.minibatch or len(codes)
    steps = -(-len(codes) // size)
    # The last step is filled up with trials of no weight.
    fill = steps * size - len(codes)
    weights = jnp.pad(jnp.ones(len(codes)), (0, fill))
    batches = (
        jnp.pad(codes, ((0, fill), (0, 0))).reshape(steps, size, -1),
        jnp.pad(advantages, (0, fill)).reshape(steps, size),
        weights.reshape(steps, size),
    )

    def step(carry: tuple[Params, optax.OptState], batch: tuple[Array, ...]) -> Any:
        params, moments = carry
        codes, advantages, weights = batch

        def loss(params: Params) -> tuple[Array, Array]:
            log_prob, entropy = searcher.policy.score(params, tables, codes)
            gain = advantages * log_prob + searcher.entropy_weight * entropy
            return -(weights * gain).sum() / weights.sum(), entropy

        gradient, entropy = jax.grad(loss, has_aux=True)(params)
        updates, moments = optax.adam(searcher.learning_rate).update(gradient, moments, params)
        return (optax.apply_updates(params, updates), moments), entropy

    (params, moments), entropy = jax.lax.scan(step, (params, moments), batches)
    return params, moments, entropy.reshape(-1)[: len(codes)].mean()
