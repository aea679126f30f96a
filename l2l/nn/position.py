"""Position encodings: rotary angles and ALiBi's slopes, as pure functions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

POSITIONS = ("none", "learned", "rotary", "alibi")
BASE = 10_000.0


def rotate_pairs(x: jax.Array, features: Any = None, share: Any = 1.0) -> jax.Array:
    """Neighbouring features of `x` `[B, L, H, F]` as pairs, each rotated by an angle proportional to its position.

    `features` is how many of the F are in use (all by default; may be data). `share` scales every angle: 0 rotates
    nothing. F is even.

    Source: Su et al. 2021, RoFormer, arXiv:2104.09864, equations 15 and 34.
    """
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    positions = jnp.arange(x.shape[1], dtype=dtype)[:, None]
    pairs = jnp.arange(x.shape[-1] // 2, dtype=dtype)
    exponents = -2.0 * pairs / (x.shape[-1] if features is None else features)
    angles = (positions * jnp.asarray(BASE, dtype) ** exponents * share)[:, None, :]
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    first, second = x[..., 0::2].astype(dtype), x[..., 1::2].astype(dtype)
    rotated = jnp.stack([first * cosine - second * sine, first * sine + second * cosine], -1)
    return rotated.reshape(x.shape).astype(x.dtype)


def make_alibi(length: int, size: int, heads: Any = None, share: Any = 1.0) -> jax.Array:
    """What each of `size` heads adds to its scores, `[H, L, L]`: the further apart query and key, the more negative.

    `heads` is how many are in use (all by default; may be data). `share` scales every slope.

    Source: Press et al. 2021, Train Short, Test Long, arXiv:2108.12409, section 3.
    """
    slopes = 2.0 ** (-8.0 * (1 + jnp.arange(size)) / (size if heads is None else heads))
    positions = jnp.arange(length)
    return -(slopes * share)[:, None, None] * jnp.abs(positions[:, None] - positions)
