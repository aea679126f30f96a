"""REINFORCE: candidates that did better than the baseline become likelier.

Source: Williams 1992, Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
Learning, Machine Learning 8, section 4; Zoph and Le 2017, ICLR, section 3.2.
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
from l2l.types import Array


@dataclass(frozen=True)
class Reinforce:
    """Adam on `advantage · log-probability + entropy_weight · entropy`, `minibatch` trials a step.

    With one trial a step the learning rate suits batches of any size. The defaults did best on toy spaces
    of 4 to 20 choices within 64 to 512 trials.

    Raises: InputError if a number is out of its range.
    """

    learning_rate: float = 0.12
    entropy_weight: float = 0.15
    minibatch: int | None = 1
    """Trials that a step of Adam averages over; None takes the whole batch in one."""
    replay = 0
    """Past trials that it learns from again: none."""

    def __post_init__(self) -> None:
        check_update("Reinforce", self.learning_rate, self.entropy_weight, self.minibatch)

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
        """The parameters after a batch, and the mean entropy [] of the policy on the way; `past` is not replayed."""

        def step(carry: tuple[Params, optax.OptState], part: Experience) -> Any:
            params, opt_state = carry

            def loss(params: Params) -> tuple[Array, Array]:
                log_prob, entropy = policy.compute_log_probs(params, domain, part.codes, past)
                gain = part.advantages * log_prob + self.entropy_weight * entropy
                return -(part.mask * gain).sum() / part.mask.sum(), entropy

            gradient, entropy = jax.grad(loss, has_aux=True)(params)
            updates, opt_state = optax.adam(self.learning_rate).update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), entropy

        (params, opt_state), entropy = jax.lax.scan(step, (params, opt_state), split_minibatches(batch, self.minibatch))
        return params, opt_state, entropy.reshape(-1)[: len(batch.codes)].mean()


def split_minibatches(batch: Experience, size: int | None) -> Experience:
    """A batch of N trials as minibatches, each leaf [N / size, size, ...]; the last is padded with masked trials."""
    count = len(batch.codes)
    size = size or count
    padding = -count % size

    def split(leaf: Array) -> Array:
        padded = jnp.pad(leaf, ((0, padding), *[(0, 0)] * (leaf.ndim - 1)))
        return padded.reshape(-1, size, *leaf.shape[1:])

    return jax.tree.map(split, batch)


def check_update(owner: str, learning_rate: float, entropy_weight: float, minibatch: int | None) -> None:
    """Checks the arguments that all updates share. Raises: InputError."""
    check_number(f"{owner}'s learning_rate", learning_rate, above=0)
    check_number(f"{owner}'s entropy_weight", entropy_weight, 0)
    check_integer(f"{owner}'s minibatch", minibatch, 1, optional=True)
