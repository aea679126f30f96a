"""Layers in another precision or size, for tests that hold one against the other."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def wide(layer: Any) -> Any:
    """The same layer with every number in float64; where x64 is on."""
    return jax.tree.map(lambda leaf: leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf, layer)


def short(layer: Any) -> Any:
    """The same layer with every number in bfloat16."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if leaf.dtype == np.float32 else leaf, layer)


def corner(small: Any, large: Any) -> Any:
    """`small` in the corner of zeros of the shape of `large`; None is nothing."""
    zeros = jnp.zeros(large.shape)
    return zeros if small is None else zeros.at[tuple(map(slice, small.shape))].set(small[...])
