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
from l2l.errors import InputError
from l2l.searchers.controllers.policy import Experience, Params, Policy
from l2l.searchers.controllers.reinforce import check_minibatch, check_rates, split_minibatches
from l2l.types import Array


@dataclass(frozen=True)
class Ppo:
    """Clipped importance ratios against the policy of the time when each trial was told, whoever proposed it.

    With one trial a step the learning rate suits batches of any size. The defaults did best on noisy landscapes of 6
    choices within 200 trials, where replaying the past only held the policy back.

    Raises: InputError if a number is out of its range.
    """

    learning_rate: float = 0.08
    clip: float = 0.3
    epochs: int = 2
    """How often it goes through a batch."""
    entropy_weight: float = 0.1
    minibatch: int | None = 1
    """Trials of the batch that a step of Adam averages over; None takes the whole batch in one."""
    replay: int = 0
    """Past trials that join every step; a ratio clipped away counts for nothing."""

    def __post_init__(self) -> None:
        check_rates("Ppo", self.learning_rate, self.entropy_weight)
        if not 0 < self.clip < 1:
            raise InputError(f"Ppo's clip must be between 0 and 1, got {self.clip!r}.")
        check_minibatch("Ppo", self.minibatch)
        for name, low in (("epochs", 1), ("replay", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < low:
                raise InputError(f"Ppo's {name} must be a whole number of at least {low}, got {value!r}.")

    def start(self, params: Params) -> optax.OptState:
        """Adam's opt_state before any step."""
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
        # A policy may look further back than is replayed.
        again = jax.tree.map(lambda leaf: leaf[len(leaf) - self.replay :], past)
        parts = split_minibatches(batch, self.minibatch)

        def loss(params: Params, part: Experience) -> tuple[Array, Array]:
            every: Experience = jax.tree.map(lambda old, new: jnp.concatenate([old, new]), again, part)
            weights = every.filled / every.filled.sum()
            log_probs, entropy = policy.score(params, domain, every.codes, past)
            ratios = jnp.exp(jnp.clip(log_probs - every.log_probs, -20, 20))
            clipped = jnp.clip(ratios, 1 - self.clip, 1 + self.clip)
            gain = jnp.minimum(ratios * every.advantages, clipped * every.advantages)
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
