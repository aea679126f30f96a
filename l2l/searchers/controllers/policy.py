"""What a controller's policies are and share: a distribution over codes that can be drawn from and scored."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from l2l.encoding import Domain
from l2l.errors import InputError
from l2l.types import Array, Key

Params: TypeAlias = Any
"""A pytree of arrays: what the controller learns."""


class Experience(NamedTuple):
    """Trials that were told, the latest last."""

    codes: Array
    """[R, D]"""
    advantages: Array
    """[R]: how much better than expected each was when it was told."""
    log_probs: Array
    """[R], in nats: how likely the policy made each at the time when it was told."""
    filled: Array
    """[R]: whether there is such a trial yet."""


class Policy(Protocol):
    """A distribution over the candidates of a space; hashable, since compiled functions are kept by it."""

    @property
    def context(self) -> int:
        """How many past trials it looks at."""
        ...

    def init(self, domain: Domain, key: Key) -> Params:
        """The parameters before any reward."""
        ...

    def sample(self, params: Params, domain: Domain, uniforms: Array, past: Experience) -> tuple[Array, Array]:
        """Codes [N, D] drawn by uniforms [N, D] in [0, 1), and their log-probability [N] in nats. Traceable.

        What stands at an inactive decision means nothing.
        """
        ...

    def score(self, params: Params, domain: Domain, codes: Array, past: Experience) -> tuple[Array, Array]:
        """Log-probability [N] and entropy [N], in nats, of the decisions that are active in codes [N, D].

        The entropy is the sum of each active decision's own entropy given those before it, whose mean over
        candidates drawn from the policy is the entropy of the policy. Traceable and differentiable.
        """
        ...


def make_experience(domain: Domain, room: int) -> Experience:
    """A context of `room` trials that are still to come."""
    codes = np.zeros((room, len(domain.valid)), np.int32)
    zeros = np.zeros(room, np.float32)
    return Experience(*map(jnp.asarray, (codes, zeros, zeros, np.zeros(room, np.bool_))))


def append_experience(past: Experience, batch: Experience) -> Experience:
    """The context after a batch; as long as before."""
    room = len(past.filled)
    return jax.tree.map(lambda old, new: jnp.concatenate([old, new.astype(old.dtype)])[len(new) :][:room], past, batch)


def sample_codes(log_probs: Array, valid: Array, uniforms: Array) -> Array:
    """Codes [...] drawn from log-probabilities [..., K] by inverting their distribution at uniforms [...]."""
    below = jnp.cumsum(jnp.exp(log_probs), -1)
    codes = (below <= uniforms[..., None] * below[..., -1:]).sum(-1)
    # Valid codes come first; rounding at the far end must not leave them.
    return jnp.minimum(codes, valid.sum(-1) - 1)


def log_softmax(logits: Array, valid: Array) -> Array:
    """Log-probabilities [..., K] of the valid codes; a large negative number, not an infinity, elsewhere."""
    return jax.nn.log_softmax(jnp.where(valid, logits, -1e9))


def compute_entropy(log_probs: Array) -> Array:
    """Entropy [...] in nats of log-probabilities [..., K]."""
    return -(jnp.exp(log_probs) * log_probs).sum(-1)


def check_temperature(owner: str, temperature: float) -> None:
    """Refuses a temperature that is not above 0. Raises: InputError."""
    if not 0 < temperature < math.inf:
        raise InputError(f"{owner}'s temperature must be above 0, got {temperature!r}.")
