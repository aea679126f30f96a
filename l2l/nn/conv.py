"""Two-dimensional convolution as matrix products, for `nnx.Conv(conv_general_dilated=...)`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Pads = tuple[tuple[int, int], tuple[int, int]]

LARGE = 8_000_000
"""Patches of more bytes are laid out in parts on a CPU; each stays in its cache until it is multiplied."""
PART = 2_600_000
"""Bytes of such a part."""


def convolve_patches(
    inputs: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Any, **options: Any
) -> jax.Array:
    """`lax.conv_general_dilated` for NHWC images, kernels `[h, w, in, out]` and no dilation or groups.

    Either shifted copies of the image are laid side by side and multiplied by the flat kernel, or, where that is
    fewer multiplications because much of the kernel lies beyond the border, whole rows are multiplied by the
    kernel's rows written out as matrices. Under `vmap` over lanes both stay batched products, where a convolution
    would turn into a slow grouped one. Anything else goes to `lax.conv_general_dilated` itself. Forward-mode
    derivatives (`jax.jvp`) are not defined.

    Shapes: inputs `[B, H, W, in]`, result `[B, H', W', out]`.
    """
    dilated = any(d != 1 for name in ("lhs_dilation", "rhs_dilation") for d in options.get(name) or ())
    if kernel.ndim != 4 or dilated or options.get("feature_group_count", 1) != 1:
        return lax.conv_general_dilated(inputs, kernel, strides, padding, **options)
    height, width = int(kernel.shape[0]), int(kernel.shape[1])
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(inputs.shape[1:3], (height, width), strides, padding)
    pads: Any = tuple((int(low), int(high)) for low, high in padding)
    spans = _find_spans(inputs.shape[1], height, pads[0])
    rows = sum(last - first for first, last in spans) / max(inputs.shape[1], 1)
    if tuple(strides) == (1, 1) and 0 < inputs.shape[2] * rows < height * width:
        return _multiply_rows(inputs, kernel, pads, spans)
    return _multiply_patches(inputs, kernel, (int(strides[0]), int(strides[1])), pads)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _multiply_patches(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Pads) -> jax.Array:
    """One product of shifted copies, laid side by side, with the flat kernel."""
    height, width, channels, filters = kernel.shape
    flat = kernel.reshape(height * width * channels, filters)

    def multiply(x: jax.Array) -> jax.Array:
        patches, shape = _lay_out(x, (height, width), strides, pads)
        # Products of two matrices: those of more axes are multiplied an order of magnitude slower on some shapes.
        return (patches @ flat).reshape(*shape, filters)

    parts = _split_images(x, len(flat))
    y = multiply(x) if len(parts) == 1 else lax.map(multiply, parts)
    return y.reshape(len(x), *y.shape[-3:])


def _split_images(x: jax.Array, length: int) -> jax.Array:
    """The images in parts, `[parts, B / parts, H, W, in]`, whose patches of `length` numbers stay in the cache."""
    size = x.shape[1] * x.shape[2] * length * x.dtype.itemsize
    count = len(x)
    if count * size > LARGE and jax.default_backend() == "cpu":
        most = max(PART, size)
        count = max(part for part in range(1, count + 1) if count % part == 0 and part * size <= most)
    return x.reshape(len(x) // max(count, 1), count, *x.shape[1:]) if count else x[None]


def _lay_out(
    x: jax.Array, window: tuple[int, int], strides: tuple[int, int], pads: Pads
) -> tuple[jax.Array, tuple[int, int, int]]:
    """The patches of the images as rows `[B * H' * W', window * in]`, and B, H', W'."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = ((size - w) // s + 1 for size, w, s in zip(x.shape[1:3], window, strides, strict=True))
    ends = (rows - 1) * strides[0] + 1, (columns - 1) * strides[1] + 1
    # First columns, then rows: loops over two short lists compile sooner than one over their product.
    columnwise = jnp.concatenate([x[:, :, start : start + ends[1] : strides[1]] for start in range(window[1])], axis=-1)
    columnwise = lax.optimization_barrier(columnwise)
    patches = jnp.stack([columnwise[:, start : start + ends[0] : strides[0]] for start in range(window[0])], axis=3)
    return patches.reshape(-1, window[0] * window[1] * x.shape[3]), (x.shape[0], rows, columns)


def _forward(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Pads) -> tuple[jax.Array, Any]:
    return _multiply_patches(x, kernel, strides, pads), (x, kernel)


def _backward(strides: tuple[int, int], pads: Pads, saved: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The gradients by images and kernel: products in the shapes that are multiplied fastest, a third less in all.

    By images it is a convolution with the flipped kernel: it lays out patches, where the gradient of `_lay_out` would
    add up overlapping ones. By the kernel the long sides are contracted to `[out, window * in]`, and not the other way
    round, which XLA would choose if it saw that the result is transposed.
    """
    x, kernel = saved
    height, width, channels, filters = kernel.shape
    length = height * width * channels

    def add(total: jax.Array, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        patches, _ = _lay_out(pair[0], (height, width), strides, pads)
        return total + lax.dot_general(pair[1].reshape(-1, filters), patches, (((0,), (0,)), ((), ()))), None

    parts = _split_images(x, length)
    gradients = gradient.reshape(*parts.shape[:2], *gradient.shape[1:])
    zeros = jnp.zeros((filters, length), kernel.dtype)
    by_kernel, _ = add(zeros, (parts[0], gradients[0])) if len(parts) == 1 else lax.scan(add, zeros, (parts, gradients))
    by_kernel = lax.optimization_barrier(by_kernel).T.reshape(kernel.shape)
    flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    padded = _pad_gradient(gradient, x.shape, strides, (height, width), pads)
    return _multiply_patches(padded, flipped, (1, 1), ((0, 0), (0, 0))), by_kernel


def _pad_gradient(
    gradient: jax.Array, shape: tuple[int, ...], strides: tuple[int, int], window: tuple[int, int], pads: Pads
) -> jax.Array:
    """The gradient with zeros around it and, for longer strides, between, as the flipped kernel needs it."""
    borders: list[tuple[int, int, int]] = [(0, 0, 0)]
    for axis in (0, 1):
        before = window[axis] - 1 - pads[axis][0]
        covered = (gradient.shape[axis + 1] - 1) * strides[axis] + 1
        borders.append((before, shape[axis + 1] + window[axis] - 1 - before - covered, strides[axis] - 1))
    return lax.pad(gradient, jnp.zeros((), gradient.dtype), [*borders, (0, 0, 0)])


_multiply_patches.defvjp(_forward, _backward)


def _find_spans(rows: int, height: int, pads: tuple[int, int]) -> list[tuple[int, int]]:
    """For each row of a kernel the first and last (excluded) row of the result that it reaches an image row for."""
    outputs = rows + sum(pads) - height + 1
    spans = [(max(0, pads[0] - row), min(outputs, rows + pads[0] - row)) for row in range(height)]
    return [(first, max(first, last)) for first, last in spans]


def _multiply_rows(x: jax.Array, kernel: jax.Array, pads: Pads, spans: Sequence[tuple[int, int]]) -> jax.Array:
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
    padded = jnp.pad(kernel, ((0, 0), (before, after), (0, 0), (0, 0)))
    starts = [low - column + before for column in range(wide)]
    matrices = jnp.stack([padded[:, start : start + columns] for start in starts], 3)
    matrices = matrices.reshape(height, columns * channels, wide * filters)
    flat = x.reshape(batch, rows, columns * channels)
    parts: list[jax.Array] = []
    for row, (first, last) in enumerate(spans):
        if first < last:
            covered = flat[:, first + row - pads[0][0] : last + row - pads[0][0]]
            part = covered.reshape(-1, columns * channels) @ matrices[row]
            part = part.reshape(batch, last - first, wide * filters)
            parts.append(jnp.pad(part, ((0, 0), (first, outputs - last), (0, 0))))
    # The barrier: what follows would add the parts up again wherever it uses them.
    return lax.optimization_barrier(sum(parts[1:], parts[0]).reshape(batch, outputs, wide, filters))
