"""Where a token stands: rotary angles and ALiBi's slopes, as pure functions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

POSITIONS = ("none", "learned", "rotary", "alibi")
BASE = 10_000.0


def rotated(x: jax.Array, features: Any = None, share: Any = 1.0) -> jax.Array:
    """Neighbouring features of `x` `[B, L, H, D]` as pairs, each turned by an angle in proportion to its position.

    `features` is how many of the D are in use (all by default; may be data), `share` scales every angle: 0 turns
    nothing. D is even.

    Source: Su et al. 2021, RoFormer, arXiv:2104.09864, equations 15 and 34.
    """
    kind = jnp.promote_types(x.dtype, jnp.float32)
    places = jnp.arange(x.shape[1], dtype=kind)[:, None]
    pairs = jnp.arange(x.shape[-1] // 2, dtype=kind)
    exponents = -2.0 * pairs / (x.shape[-1] if features is None else features)
    angles = (places * jnp.asarray(BASE, kind) ** exponents * share)[:, None, :]
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    first, second = x[..., 0::2].astype(kind), x[..., 1::2].astype(kind)
    turned = jnp.stack([first * cosine - second * sine, first * sine + second * cosine], -1)
    return turned.reshape(x.shape).astype(x.dtype)


def alibi(length: int, size: int, heads: Any = None, share: Any = 1.0) -> jax.Array:
    """What each of `size` heads adds to its scores, `[H, L, L]`: less the further apart query and key are.

    `heads` is how many are in use (all by default; may be data), `share` scales every slope.

    Source: Press et al. 2021, Train Short, Test Long, arXiv:2108.12409, section 3.
    """
    slopes = 2.0 ** (-8.0 * (1 + jnp.arange(size)) / (size if heads is None else heads))
    places = jnp.arange(length)
    return -(slopes * share)[:, None, None] * jnp.abs(places[:, None] - places)
