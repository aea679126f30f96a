"""Initial weights sampled on the host, so that a new shape costs no compilation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def make_generator(key: jax.Array) -> np.random.Generator:
    """A counter-based generator that is a function of the JAX key alone."""
    words = np.asarray(jax.random.key_data(key)).reshape(-1)[:2]
    return np.random.Generator(np.random.Philox(key=words.astype(np.uint64)))


def he_normal(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, **_: Any) -> jax.Array:
    """Normal weights of variance 2 / fan-in; the last axis is the output, all others are the fan-in.

    Under a JAX trace (shapes only) nothing is sampled and zeros are returned.

    Source: He et al. 2015, arXiv:1502.01852, equation 10.
    """
    return _normal(2.0, key, shape, dtype)


def lecun_normal(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, **_: Any) -> jax.Array:
    """Normal weights of variance 1 / fan-in: like `he_normal`, for layers that no rectifier follows.

    Source: LeCun et al. 1998, Efficient BackProp, equation 16.
    """
    return _normal(1.0, key, shape, dtype)


def lecun_stack(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, **_: Any) -> jax.Array:
    """`lecun_normal` for a stack of matrices: the fan-in is the last axis but one."""
    return _normal(1.0, key, shape, dtype, shape[-2])


def lecun_rows(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, **_: Any) -> jax.Array:
    """`lecun_normal` for an embedding, which also maps features back to tokens: the fan-in is the last axis."""
    return _normal(1.0, key, shape, dtype, shape[-1])


def _normal(gain: float, key: jax.Array, shape: Sequence[int], dtype: Any, inputs: int | None = None) -> jax.Array:
    if isinstance(key, Tracer):
        return jnp.zeros(shape, dtype)
    scale = math.sqrt(gain / max(math.prod(shape[:-1]) if inputs is None else inputs, 1))
    sample = make_generator(key).standard_normal(tuple(shape), np.float32) * np.float32(scale)
    return jax.device_put(sample.astype(dtype))


def zeros(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, **_: Any) -> jax.Array:
    """Zeros."""
    return jax.device_put(np.zeros(tuple(shape), dtype)) if not isinstance(key, Tracer) else jnp.zeros(shape, dtype)


def ones(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, **_: Any) -> jax.Array:
    """Ones."""
    return jax.device_put(np.ones(tuple(shape), dtype)) if not isinstance(key, Tracer) else jnp.ones(shape, dtype)
