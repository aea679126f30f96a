"""Dropout whose rate may be traced and whose masks come from a counter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.nn.number import Number


class DropoutState(nnx.Variable[Any]):
    """Rate, seed and call count of a dropout layer: data of the program, not weights."""


class Dropout(nnx.Module):
    """Zeroes each element with probability `rate` and scales the others by `1 / (1 - rate)`.

    The mask is a hash of (seed, call, position), sampled channel-major: it costs next to nothing beside
    a Threefry mask, and a wider layer's mask begins with the narrower one's.

    Source: Srivastava et al. 2014, JMLR 15; hash: Wellons 2018, "lowbias32".
    """

    def __init__(self, rate: Any, *, rngs: nnx.Rngs) -> None:
        self.rate = DropoutState(jnp.asarray(rate, jnp.float32))
        self.seed = DropoutState(jax.random.key_data(rngs.dropout()).reshape(-1)[-1])
        self.calls = DropoutState(jnp.zeros((), jnp.uint32))
        self.deterministic = False

    def __call__(self, x: jax.Array) -> jax.Array:
        """Any shape in, the same shape out."""
        if self.deterministic:
            return x
        rate = self.rate[...]
        sample = sample_uniform(self.seed[...], self.calls[...], x.shape)
        self.calls[...] = self.calls[...] + jnp.uint32(1)
        return jnp.where(sample >= rate, x / (1.0 - rate), 0.0)


def sample_uniform(seed: jax.Array, call: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Numbers from 0 to 1, a hash of seed and call (`[]`, uint32) and position, channel-major."""
    salt = mix_bits(seed ^ mix_bits(call))
    flat = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape[-1], *shape[:-1])
    return mix_bits(jnp.moveaxis(flat, 0, -1) ^ salt).astype(jnp.float32) * jnp.float32(2.0**-32)


def mix_bits(bits: jax.Array) -> jax.Array:
    """A bijection of 32-bit words whose output bits are unbiased: uint32 in, uint32 out, any shape."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x846CA68B)
    return bits ^ (bits >> 16)


def make_dropout(rate: Any, *, rngs: nnx.Rngs) -> nnx.Module:
    """The stock layer for a plain number, `Dropout` for a traced rate."""
    return nnx.Dropout(float(rate), rngs=rngs) if Number(rate).is_plain else Dropout(rate, rngs=rngs)
