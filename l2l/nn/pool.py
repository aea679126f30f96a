"""Pooling over windows that do not overlap, written as a reshape: its gradient is a select, not a scatter."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def pool(kind: str, x: jax.Array, window: int = 2, inside: jax.Array | None = None) -> jax.Array:
    """`[B, H, W, C]` to `[B, ceil(H/window), ceil(W/window), C]`; a border beyond the image counts for nothing.

    `kind` is none, max or average. A side that is shorter than the window is one window. Where data say which
    positions are `inside` the image, `[H, W, 1]`, the others count for nothing, and windows without any give 0.
    """
    if kind == "none" or window == 1 or max(x.shape[1:3]) == 1:
        return x
    batch, height, width, channels = x.shape
    rows, columns = -(-height // window), -(-width // window)
    border = ((0, 0), (0, rows * window - height), (0, columns * window - width), (0, 0))
    grid = (batch, rows, window, columns, window, channels)
    if inside is None:
        present = np.pad(np.ones((1, height, width, 1), np.float32), border)
    else:
        present = jnp.pad(inside[None].astype(x.dtype), border)
    shares = present.reshape(1, rows, window, columns, window, 1).sum((2, 4))
    if kind == "max":
        x = x if inside is None else jnp.where(inside, x, -jnp.inf)
        y = jnp.pad(x, border, constant_values=-jnp.inf).reshape(grid).max((2, 4))
        return y if inside is None else jnp.where(shares > 0, y, 0.0)
    x = jnp.pad(x, border).reshape(grid).sum((2, 4))  # beyond the image `x` is 0
    return x / (shares if inside is None else jnp.maximum(shares, 1.0))
