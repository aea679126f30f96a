"""Two-dimensional convolution as matrix products, for `nnx.Conv(conv_general_dilated=...)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Pads = tuple[tuple[int, int], tuple[int, int]]


def patches_convolution(
    inputs: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Any, **options: Any
) -> jax.Array:
    """`lax.conv_general_dilated` for NHWC images, kernels `[h, w, in, out]` and no dilation or groups.

    Either shifted copies of the image are laid side by side and multiplied by the flat kernel, or, where that is
    fewer multiplications because much of the kernel lies beyond the border, whole rows are multiplied by the
    kernel's rows written out as matrices. Under `vmap` over lanes both stay batched products, where a convolution
    would turn into a slow grouped one. Anything else goes to `lax.conv_general_dilated` itself.

    Shapes: inputs `[B, H, W, in]`, result `[B, H', W', out]`.
    """
    dilated = any(d != 1 for name in ("lhs_dilation", "rhs_dilation") for d in options.get(name) or ())
    if kernel.ndim != 4 or dilated or options.get("feature_group_count", 1) != 1:
        return lax.conv_general_dilated(inputs, kernel, strides, padding, **options)
    height, width = int(kernel.shape[0]), int(kernel.shape[1])
    given = (
        lax.padtype_to_pads(inputs.shape[1:3], (height, width), strides, padding)
        if isinstance(padding, str)
        else padding
    )
    pads: Any = tuple((int(low), int(high)) for low, high in given)
    spans = _spans(inputs.shape[1], height, pads[0])
    rows = sum(last - first for first, last in spans) / max(inputs.shape[1], 1)
    if tuple(strides) == (1, 1) and 0 < inputs.shape[2] * rows < height * width:
        return _by_rows(inputs, kernel, pads, spans)
    return _by_patches(inputs, kernel, strides, pads)


def _by_patches(x: jax.Array, kernel: jax.Array, strides: Sequence[int], pads: Pads) -> jax.Array:
    """One product of shifted copies, laid side by side, with the flat kernel."""
    height, width, channels, filters = kernel.shape
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows = (x.shape[1] - height) // strides[0] + 1
    columns = (x.shape[2] - width) // strides[1] + 1
    shifted = [
        x[:, i : i + (rows - 1) * strides[0] + 1 : strides[0], j : j + (columns - 1) * strides[1] + 1 : strides[1]]
        for i in range(height)
        for j in range(width)
    ]
    laid = jnp.concatenate(shifted, axis=-1) if len(shifted) > 1 else shifted[0]
    # Products of two matrices: those of more axes are multiplied an order of magnitude slower on some shapes.
    made = laid.reshape(-1, height * width * channels) @ kernel.reshape(height * width * channels, filters)
    return made.reshape(x.shape[0], rows, columns, filters)


def _spans(rows: int, height: int, pads: tuple[int, int]) -> list[tuple[int, int]]:
    """For each row of a kernel the first and last (excluded) row of the result that it reaches an image row for."""
    outputs = rows + sum(pads) - height + 1
    spans = [(max(0, pads[0] - row), min(outputs, rows + pads[0] - row)) for row in range(height)]
    return [(first, max(first, last)) for first, last in spans]


def _by_rows(x: jax.Array, kernel: jax.Array, pads: Pads, spans: Sequence[tuple[int, int]]) -> jax.Array:
    """A product for each row of the kernel: image rows `[W * in]` by a matrix that holds it at every column.

    Rows beyond the border are left out; zeros of the matrices are multiplied, so images must be narrow.
    """
    batch, rows, columns, channels = x.shape
    height, width, _, filters = kernel.shape
    low = pads[1][0]
    wide = columns + sum(pads[1]) - width + 1
    outputs = rows + sum(pads[0]) - height + 1
    # The matrix of a kernel row, at [column in, column out], holds the kernel's column in - out + low.
    before, after = max(wide - 1 - low, 0), max(columns - 1 + low - (width - 1), 0)
    laid = jnp.pad(kernel, ((0, 0), (before, after), (0, 0), (0, 0)))
    starts = [low - column + before for column in range(wide)]
    matrices = jnp.stack([laid[:, start : start + columns] for start in starts], 3)
    matrices = matrices.reshape(height, columns * channels, wide * filters)
    flat = x.reshape(batch, rows, columns * channels)
    parts: list[jax.Array] = []
    for row, (first, last) in enumerate(spans):
        if first < last:
            reached = flat[:, first + row - pads[0][0] : last + row - pads[0][0]]
            part = reached.reshape(-1, columns * channels) @ matrices[row]
            part = part.reshape(batch, last - first, wide * filters)
            parts.append(jnp.pad(part, ((0, 0), (first, outputs - last), (0, 0))))
    # The barrier: what follows would add the parts up again wherever it uses them.
    return lax.optimization_barrier(sum(parts[1:], parts[0]).reshape(batch, outputs, wide, filters))
