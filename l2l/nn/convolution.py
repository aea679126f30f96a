"""One layer of a convolutional network, whose maps may be of a size that data choose."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from l2l.nn.blocks import ACTIVATIONS, activate, add_bias, add_skip, choose_skip, describe_rest
from l2l.nn.conditional import call_if
from l2l.nn.conv import convolve_patches
from l2l.nn.description import Description, describe_kernel
from l2l.nn.initial import he_normal, zeros
from l2l.nn.length import Length
from l2l.nn.norm import make_norm
from l2l.nn.option import Option
from l2l.nn.pool import pool
from l2l.nn.stack import save_residual

POOLINGS = ("none", "max", "average")


class Convolution(nnx.Module):
    """One layer of a convolutional network: convolution, normalisation, activation, skip, pooling by 2.

    Its maps have one of a few sizes `(H, W)`, the largest first. Where data choose the size, maps of every size lie in
    the upper left corner of the largest one, with zeros beyond them.
    """

    def __init__(
        self,
        channels: int | Length,
        filters: int | Length,
        *,
        size: tuple[int, int] | Option,
        kernel: int | Option,
        activation: str | Option,
        normalisation: str | Option,
        skip: bool | Option,
        pooling: str | Option,
        rngs: nnx.Rngs,
    ) -> None:
        self.kernel, self.normalisation = Option.of(kernel), Option.of(normalisation)
        # Batch normalisation cancels a bias: its gradient would be rounding noise, which Adam scales up.
        has_bias = not self.normalisation.is_always("batch")
        self.conv = make_conv(channels, filters, max(self.kernel.options), bias=has_bias, rngs=rngs)
        self.norm = make_norm(self.normalisation, filters, rngs=rngs)
        self.skip = choose_skip(skip, channels, filters)
        projects = self.skip.can_be("projected")
        self.project = make_conv(channels, filters, 1, bias=False, rngs=rngs) if projects else None
        self.activation = Option.of(activation).check("activation", ACTIVATIONS)
        self.pooling = Option.of(pooling).check("pooling", POOLINGS)
        self.size = Option.of(size)
        self.size_out = halve_size(self.size, self.pooling)

    def __call__(self, x: jax.Array, is_used: Any = True) -> jax.Array:
        """`[B, H, W, in]` to `[B, H', W', out]`: half of the height and width (rounded up) where it always pools.

        `x` itself, of this shape, if not `is_used` (a bool, or `[]`).
        """
        if is_used is not True:
            return call_if(is_used, [self], x)
        weights: Any = self.conv.kernel[...]
        y = save_residual(self.kernel.apply(lambda k, x, w: convolve_patches(x, w[:k, :k], (1, 1), "SAME"), x, weights))
        y = add_bias(self.conv, self.normalisation, y)
        inside = _mask_map(self.size)
        if self.norm is not None:
            y = self.norm(y) if inside is None else self.norm(jnp.where(inside, y, 0.0), jnp.mean(inside))
        y = add_skip(self.skip, self.project, x, activate(self.activation, y))
        y = y if inside is None else jnp.where(inside, y, 0.0)
        height, width = self.size_out.options[0]

        def pool_and_pad(kind: str, y: jax.Array) -> jax.Array:
            y = pool(kind, y, inside=inside)
            return jnp.pad(y, ((0, 0), (0, height - y.shape[1]), (0, width - y.shape[2]), (0, 0)))

        return self.pooling.apply(pool_and_pad, y)

    def describe(self, shape: tuple[int, ...]) -> Description:
        """The layer in words; it pools behind the sum with its input."""
        pooling, has_skip = self.pooling.read(), self.skip.read() != "none"
        if len(shape) == 3:
            stride = 1 if pooling == "none" else 2
            shape = (*(-(-side // stride) for side in shape[:2]), self.conv.out_features)
        title, facts = describe_kernel(self.conv)
        facts = (*facts, *describe_rest(self))
        pool_title = "" if pooling == "none" else f"{pooling} pooling by 2"
        if pool_title and not has_skip:
            facts = (*facts, pool_title)
        convolution = Description(title, facts, kind="dense", shape=shape, module=self, adds_input=has_skip)
        if not pool_title or not has_skip:
            return convolution
        return Description(parts=(replace(convolution, shape=()), Description(pool_title)), shape=shape)


def list_sizes(size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """The sizes `(H, W)` that a map has after any number of poolings by 2, the largest first."""
    sizes = [size]
    while max(sizes[-1]) > 1:
        sizes.append(_halve(sizes[-1]))
    return tuple(sizes)


def halve_size(size: Option, pooling: Option) -> Option:
    """The size of maps behind a pooling by 2, which data may leave out."""
    if not pooling.can_be("none"):
        return size.map(_halve)
    if all(kind == "none" for kind in pooling.options):
        return size
    sizes = list_sizes(size.options[0])
    return Option(sizes, jnp.minimum(size.index + jnp.where(pooling.is_("none"), 0, 1), len(sizes) - 1))


def _halve(size: tuple[int, int]) -> tuple[int, int]:
    return -(-size[0] // 2), -(-size[1] // 2)


def _mask_map(size: Option) -> jax.Array | None:
    """Which positions of the largest map lie in one of this size, `[H, W, 1]`; None if all do."""
    if size.is_plain:
        return None
    masks = np.zeros((len(size.options), *size.options[0], 1), bool)
    for mask, (height, width) in zip(masks, size.options, strict=True):
        mask[:height, :width] = True
    return jnp.asarray(masks)[size.index]


class ToFeatures(nnx.Module):
    """Maps averaged down to at most `grid` rows and columns, as one row of features for each image.

    The features are channel-major, so that those of padded channels come after all others.
    """

    def __init__(self, channels: int | Length, size: Option, grid: int) -> None:
        self.size, self.grid = size, grid
        self.cells = max(math.prod(-(-side // self._find_window(size)) for side in size) for size in size.options)
        self.features = Length.of(channels).size * self.cells

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` to `[B, features]`, with zeros after the features of smaller maps."""
        return self.size.apply(self._flatten, x)

    def _flatten(self, size: tuple[int, int], x: jax.Array) -> jax.Array:
        x = pool("average", x[:, : size[0], : size[1]], self._find_window(size))
        x = jnp.moveaxis(x, -1, 1).reshape(len(x), -1)
        return jnp.pad(x, ((0, 0), (0, self.features - x.shape[1])))

    def _find_window(self, size: tuple[int, int]) -> int:
        return -(-max(size) // self.grid)


def make_conv(channels: int | Length, filters: int | Length, kernel: int, *, bias: bool, rngs: nnx.Rngs) -> nnx.Conv:
    """A stock `SAME` convolution, computed as one matrix product and initialised on the host."""
    return nnx.Conv(
        Length.of(channels).size,
        Length.of(filters).size,
        kernel_size=(kernel, kernel),
        use_bias=bias,
        kernel_init=he_normal,
        bias_init=zeros,
        conv_general_dilated=convolve_patches,
        rngs=rngs,
    )
