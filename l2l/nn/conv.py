"""Two-dimensional convolution as one matrix product, for `nnx.Conv(conv_general_dilated=...)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def patches_convolution(
    inputs: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Any, **options: Any
) -> jax.Array:
    """`lax.conv_general_dilated` for NHWC images, kernels `[h, w, in, out]` and no dilation or groups.

    Shifted copies of the image are laid side by side and multiplied by the flat kernel: under `vmap` over
    lanes that stays one batched product, where a convolution would turn into a slow grouped one. Anything
    else goes to `lax.conv_general_dilated` itself.

    Shapes: inputs `[B, H, W, in]`, result `[B, H', W', out]`.
    """
    dilated = any(d != 1 for name in ("lhs_dilation", "rhs_dilation") for d in options.get(name) or ())
    if kernel.ndim != 4 or dilated or options.get("feature_group_count", 1) != 1:
        return lax.conv_general_dilated(inputs, kernel, strides, padding, **options)
    height, width, channels, filters = kernel.shape
    pads = (
        lax.padtype_to_pads(inputs.shape[1:3], (height, width), strides, padding)
        if isinstance(padding, str)
        else padding
    )
    x = jnp.pad(inputs, ((0, 0), *((int(low), int(high)) for low, high in pads), (0, 0)))
    rows = (x.shape[1] - height) // strides[0] + 1
    columns = (x.shape[2] - width) // strides[1] + 1
    shifted = [
        x[:, i : i + (rows - 1) * strides[0] + 1 : strides[0], j : j + (columns - 1) * strides[1] + 1 : strides[1]]
        for i in range(height)
        for j in range(width)
    ]
    laid = jnp.concatenate(shifted, axis=-1) if len(shifted) > 1 else shifted[0]
    return laid @ kernel.reshape(height * width * channels, filters)
