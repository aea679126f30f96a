"""Policies of a controller: distributions over codes that can be sampled and evaluated."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from l2l.encoding import Domain
from l2l.errors import check_number
from l2l.types import Array, Key

Params: TypeAlias = Any
"""A pytree of arrays: the weights that the controller learns."""


class Experience(NamedTuple):
    """R trials that the controller has learnt from, the latest last."""

    codes: Array
    """[R, D]"""
    advantages: Array
    """[R]: how much better than the baseline each trial was."""
    log_probs: Array
    """[R], in nats: under the policy as it was before it learnt from the trial."""
    mask: Array
    """[R]: False where there is no trial yet."""


@runtime_checkable
class Policy(Protocol):
    """A distribution over the candidates of a space; hashable, since compiled programs are cached by it."""

    @property
    def context(self) -> int:
        """Number of past trials that it reads."""
        ...

    def init(self, domain: Domain, key: Key) -> Params:
        """The parameters before any reward."""
        ...

    def sample(self, params: Params, domain: Domain, uniforms: Array, past: Experience) -> tuple[Array, Array]:
        """Codes [N, D] sampled by uniforms [N, D] in [0, 1), and their log-probability [N] in nats. Traceable.

        Codes of inactive decisions mean nothing.
        """
        ...

    def compute_log_probs(self, params: Params, domain: Domain, codes: Array, past: Experience) -> tuple[Array, Array]:
        """Log-probability [N] and entropy [N], in nats, of the decisions that are active in codes [N, D].

        The entropy is the sum of each active decision's own entropy given those before it, whose mean over
        candidates sampled from the policy is the entropy of the policy. Traceable and differentiable.
        """
        ...


def make_experience(domain: Domain, capacity: int) -> Experience:
    """Arrays for `capacity` trials that are still to come."""
    codes = np.zeros((capacity, len(domain.valid)), np.int32)
    zeros = np.zeros(capacity, np.float32)
    return Experience(*map(jnp.asarray, (codes, zeros, zeros, np.zeros(capacity, np.bool_))))


def append_experience(past: Experience, batch: Experience) -> Experience:
    """The latest of the past trials and the batch, as many as `past` has capacity for."""
    capacity = len(past.mask)
    return jax.tree.map(
        lambda old, new: jnp.concatenate([old, new.astype(old.dtype)])[len(new) :][:capacity], past, batch
    )


def sample_codes(log_probs: Array, valid: Array, uniforms: Array) -> Array:
    """Codes [...] sampled from log-probabilities [..., K] by inverting their distribution at uniforms [...]."""
    cumulative = jnp.cumsum(jnp.exp(log_probs), -1)
    codes = (cumulative <= uniforms[..., None] * cumulative[..., -1:]).sum(-1)
    # Valid codes come first; rounding at the far end must not leave them.
    return jnp.minimum(codes, valid.sum(-1) - 1)


def log_softmax(logits: Array, valid: Array) -> Array:
    """Log-probabilities [..., K] of the valid codes; elsewhere a large negative number, not an infinity."""
    return jax.nn.log_softmax(jnp.where(valid, logits, -1e9))


def compute_entropy(log_probs: Array) -> Array:
    """Entropy [...] in nats of log-probabilities [..., K]."""
    return -(jnp.exp(log_probs) * log_probs).sum(-1)


def check_temperature(owner: str, temperature: float) -> None:
    """Checks that a policy's temperature is above 0. Raises: InputError."""
    check_number(f"{owner}'s temperature", temperature, above=0)
