"""Proximal policy optimisation: several epochs over each batch, no step leaving the trusted region.

Source: Schulman et al. 2017, Proximal Policy Optimization Algorithms, equation 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from l2l.encoding import Domain
from l2l.errors import check_integer, check_number
from l2l.searchers.controllers.policy import Experience, Params, Policy
from l2l.searchers.controllers.reinforce import check_update, split_minibatches
from l2l.types import Array


@dataclass(frozen=True)
class Ppo:
    """Clipped importance ratios against the policy as it was before it learnt from a trial, whoever proposed it.

    With one trial a step the learning rate suits batches of any size. The defaults did best on noisy landscapes of 6
    choices within 200 trials, where replaying the past only held the policy back.

    Raises: InputError if a number is out of its range.
    """

    learning_rate: float = 0.08
    clip: float = 0.3
    epochs: int = 2
    """Passes over each batch."""
    entropy_weight: float = 0.1
    minibatch: int | None = 1
    """Trials of the batch that a step of Adam averages over; None takes the whole batch in one."""
    replay: int = 0
    """Past trials that join every step; a trial whose ratio is clipped adds no gradient."""

    def __post_init__(self) -> None:
        check_update("Ppo", self.learning_rate, self.entropy_weight, self.minibatch)
        check_number("Ppo's clip", self.clip, above=0, below=1)
        check_integer("Ppo's epochs", self.epochs, 1)
        check_integer("Ppo's replay", self.replay, 0)

    def start(self, params: Params) -> optax.OptState:
        """Adam's state before any step."""
        return optax.adam(self.learning_rate).init(params)

    def take_steps(
        self,
        policy: Policy,
        params: Params,
        opt_state: optax.OptState,
        domain: Domain,
        batch: Experience,
        past: Experience,
    ) -> tuple[Params, optax.OptState, Array]:
        """The parameters after a batch, and the mean entropy [] of the policy over its first epoch."""
        # A policy may read more past trials than the update replays.
        replayed = jax.tree.map(lambda leaf: leaf[len(leaf) - self.replay :], past)
        parts = split_minibatches(batch, self.minibatch)

        def loss(params: Params, part: Experience) -> tuple[Array, Array]:
            trials: Experience = jax.tree.map(lambda old, new: jnp.concatenate([old, new]), replayed, part)
            weights = trials.mask / trials.mask.sum()
            log_probs, entropy = policy.compute_log_probs(params, domain, trials.codes, past)
            ratios = jnp.exp(jnp.clip(log_probs - trials.log_probs, -20, 20))
            clipped = jnp.clip(ratios, 1 - self.clip, 1 + self.clip)
            gain = jnp.minimum(ratios * trials.advantages, clipped * trials.advantages)
            return -(weights * (gain + self.entropy_weight * entropy)).sum(), (weights * entropy).sum()

        def step(carry: tuple[Params, optax.OptState], part: Experience) -> Any:
            params, opt_state = carry
            gradient, entropy = jax.grad(loss, has_aux=True)(params, part)
            updates, opt_state = optax.adam(self.learning_rate).update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), entropy

        def epoch(carry: tuple[Params, optax.OptState], _: None) -> Any:
            return jax.lax.scan(step, carry, parts)

        (params, opt_state), entropy = jax.lax.scan(epoch, (params, opt_state), None, length=self.epochs)
        return params, opt_state, entropy[0].mean()
