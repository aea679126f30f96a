"""What a controller's policies are and share: a distribution over codes that can be drawn from and scored."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp

from l2l.encoding import Encoding, Tables
from l2l.types import Array, Key

Params: TypeAlias = Any
"""A pytree of arrays: what the controller learns."""

# A state that holds its encoding stays a pytree whose leaves are all numbers.
jax.tree_util.register_static(Encoding)


class Policy(Protocol):
    """A distribution over the candidates of a space; hashable, since compiled functions are kept by it."""

    def init(self, tables: Tables, key: Key) -> Params:
        """The parameters before any reward."""
        ...

    def sample(self, params: Params, tables: Tables, uniforms: Array) -> tuple[Array, Array]:
        """Codes [N, D] drawn by uniforms [N, D] in [0, 1), and their log-probability [N] in nats. Traceable.

        What stands at an inactive decision means nothing.
        """
        ...

    def score(self, params: Params, tables: Tables, codes: Array) -> tuple[Array, Array]:
        """Log-probability [N] and entropy [N], in nats, of the decisions that are active in codes [N, D].

        The entropy is the sum of each active decision's own entropy given those before it, whose mean over
        candidates drawn from the policy is the entropy of the policy. Traceable and differentiable.
        """
        ...


class Draw(NamedTuple):
    """Candidates as arrays, and how likely they were."""

    codes: Array
    """[N, D], 0 where inactive."""
    uniforms: Array
    """[N, D] in [0, 1): the place inside a bin."""
    log_prob: Array
    """[N], in nats."""


@functools.partial(jax.jit, static_argnums=(0, 4))
def draw(policy: Policy, params: Params, tables: Tables, key: Key, count: int) -> Draw:
    """`count` candidates of a policy, in one compiled call; it compiles once per D, K and count."""
    # One call of the generator: it is what takes longest to compile, and the first ask waits for it.
    chosen, inside = jax.random.uniform(key, (2, count, len(tables.valid)))
    codes, log_prob = policy.sample(params, tables, chosen)
    return Draw(jnp.where(active(tables, codes), codes, 0), inside, log_prob)


def active(tables: Tables, codes: Array) -> Array:
    """Which decisions are active: [N, D] from codes [N, D]."""
    decisions = jnp.arange(codes.shape[1])
    return jnp.asarray(tables.allowed)[:, decisions, codes].all(-1).T


def pick(log_probs: Array, valid: Array, uniforms: Array) -> Array:
    """Codes [...] drawn from log-probabilities [..., K] by inverting their distribution at uniforms [...]."""
    below = jnp.cumsum(jnp.exp(log_probs), -1)
    codes = (below <= uniforms[..., None] * below[..., -1:]).sum(-1)
    # Valid codes come first; rounding at the far end must not leave them.
    return jnp.minimum(codes, valid.sum(-1) - 1)


def log_softmax(logits: Array, valid: Array) -> Array:
    """Log-probabilities [..., K] of the valid codes; a large negative number, not an infinity, elsewhere."""
    return jax.nn.log_softmax(jnp.where(valid, logits, -1e9))


def entropy(log_probs: Array) -> Array:
    """Entropy [...] in nats of log-probabilities [..., K]."""
    return -(jnp.exp(log_probs) * log_probs).sum(-1)
