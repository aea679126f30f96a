"""Transformer blocks and the network of them, for text, images in patches and rows of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.nn.blocks import ACTIVATIONS, activate, chosen, linear, norm
from l2l.nn.dropout import dropout
from l2l.nn.initial import lecun_normal, lecun_rows
from l2l.nn.padded import Padded, Picked, Selector, either, named, only_if, size
from l2l.nn.stack import Stack, kept

PLACEMENTS = ("pre", "post")


class FeedForward(nnx.Module):
    """Two linear maps with an activation between, and dropout behind."""

    def __init__(
        self,
        features: int | Padded,
        width: int | Padded,
        *,
        activation: str | Picked,
        dropout_rate: Any,
        rngs: nnx.Rngs,
    ) -> None:
        self.inner = linear(features, width, rngs=rngs)
        self.outer = linear(width, features, rngs=rngs)
        self.activation = chosen("activation", activation, ACTIVATIONS)
        self.drop = dropout(dropout_rate, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """`[B, L, C]` to the same shape, token by token, whatever the mask."""
        return self.drop(self.outer(activate(self.activation, self.inner(x))))


class Residual(nnx.Module):
    """A part that is added to its input, normalised before it (pre) or behind the sum (post).

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.1; Xiong et al. 2020, arXiv:2002.04745 (pre).
    """

    def __init__(
        self,
        part: nnx.Module,
        features: int | Padded,
        *,
        placement: str | Picked,
        normalisation: str | Picked,
        rngs: nnx.Rngs,
    ) -> None:
        self.part = part
        self.placement = chosen("placement", placement, PLACEMENTS)
        self.norm = norm(normalisation, features, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """`[B, L, C]`, and `[B, L]`, true where there is a token, to the same shape."""
        before, part = named(self.placement, "pre"), self.part
        y: Any = x + part(_if(before, self.norm, x), mask)  # pyright: ignore[reportCallIssue]
        return _if(~before if isinstance(before, jax.Array) else not before, self.norm, y)


class Block(nnx.Module):
    """Attention, then a feed-forward part: `dense` or `experts`; with both, data say which (`mixed`)."""

    def __init__(
        self, attention: Residual, dense: Residual | None, experts: Residual | None, mixed: bool | Picked
    ) -> None:
        self.attention, self.dense, self.experts = attention, dense, experts
        self.mixed = Selector(mixed) if isinstance(mixed, Picked) else mixed

    def __call__(self, x: jax.Array, reached: Any = True, mask: jax.Array | None = None) -> jax.Array:
        """`[B, L, C]`, with the mask of a `Residual`, to the same shape; `x` if not `reached` (plain, or `[]`)."""
        x = kept(only_if(reached, self.attention, x, mask))
        for part, chooses in ((self.dense, False), (self.experts, True)):
            if part is not None:
                x = kept(only_if(both(reached, named(self.mixed, chooses)), part, x, mask))
        return x


def both(one: Any, other: Any) -> Any:
    """Whether both hold, plain or `[]`."""
    if isinstance(one, bool) and isinstance(other, bool):
        return one and other
    return jnp.logical_and(one, other)


def _if(flag: Any, layer: Any, x: jax.Array) -> jax.Array:
    """`layer(x)` if `flag`, else `x`."""
    if layer is None or flag is False:
        return x
    # Computed and chosen: a branch of its own takes longer to compile than a norm does to compute.
    return layer(x) if flag is True else jnp.where(flag, layer(x), x)


class Embedding(nnx.Module):
    """Inputs of any kind as tokens: symbols, images in square patches, or rows of numbers, each a token.

    Source: Dosovitskiy et al. 2020, arXiv:2010.11929, section 3.1 (patches); Gorishniy et al. 2021,
        arXiv:2106.11959, section 3.3 (rows).
    """

    def __init__(self, inputs: Sequence[int], tokens: int, features: int | Padded, *, rngs: nnx.Rngs) -> None:
        self.shape, self.tokens = tuple(inputs), tokens
        self.patch = side(inputs)
        if tokens:
            self.table = nnx.Embed(tokens, size(features), embedding_init=lecun_rows, rngs=rngs)
        elif len(inputs) == 3:
            self.table = linear(self.patch**2 * inputs[2], features, rngs=rngs)
        else:
            self.table = nnx.Param(lecun_normal(rngs.params(), (2, math.prod(inputs), size(features))))

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, *inputs]` to `[B, L, C]`."""
        table: Any = self.table
        if self.tokens:
            return table(x)
        if len(self.shape) == 3:
            return table(patches(x, self.patch))
        return x.reshape(len(x), -1, 1) * table[0] + table[1]


PATCHES = 49
"""The most tokens that an image becomes: patches are as small as that allows."""


def length(inputs: Sequence[int]) -> int:
    """Tokens L that an input becomes."""
    if len(inputs) != 3:
        return math.prod(inputs)
    return math.prod(-(-each // side(inputs)) for each in inputs[:2])


def side(inputs: Sequence[int]) -> int:
    """Pixels along a patch: as few as there may be; 1 for what is no image."""
    if len(inputs) != 3:
        return 1
    return next(each for each in range(1, max(inputs) + 1) if math.prod(-(-n // each) for n in inputs[:2]) <= PATCHES)


def patches(x: jax.Array, side: int) -> jax.Array:
    """Images `[B, H, W, C]` in square pieces, row by row, `[B, L, side * side * C]`; zeros beyond the border."""
    batch, height, width, channels = x.shape
    rows, columns = -(-height // side), -(-width // side)
    x = jnp.pad(x, ((0, 0), (0, rows * side - height), (0, columns * side - width), (0, 0)))
    x = x.reshape(batch, rows, side, columns, side, channels).swapaxes(2, 3)
    return x.reshape(batch, rows * columns, side * side * channels)


class Transformer(nnx.Module):
    """Blocks over tokens, the last normalised and mapped to logits: of each token, or of their mean.

    With `tied` (of text alone) the map is the embedding's own. With `blank` the symbol 0 stands for nothing: it is
    neither attended to, nor sent to an expert, nor part of the mean.
    """

    def __init__(
        self,
        embedding: Embedding,
        blocks: Sequence[Block],
        depth: int | Padded,
        features: int | Padded,
        outputs: int,
        *,
        per_token: bool,
        normalisation: str | Picked,
        tied: bool | Picked,
        blank: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        self.blank = blank
        self.embedding, self.blocks = embedding, Stack(blocks, depth)
        self.norm = norm(normalisation, features, rngs=rngs)
        self.per_token = per_token
        able = per_token and embedding.tokens == outputs
        self.tied = (Selector(tied) if isinstance(tied, Picked) else tied) if able else False
        self.head = linear(features, outputs, rngs=rngs) if self.tied is not True else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, *inputs]` to logits `[B, L, V]`, or `[B, C]`."""
        mask = x != 0 if self.blank else None
        y = self.norm(self.blocks(self.embedding(x), mask))
        if not self.per_token:
            y = jnp.mean(y, 1) if mask is None else _mean(y, mask.astype(y.dtype))
        head: Any = self.head
        table: Any = self.embedding.table
        return either(named(self.tied, True), lambda: table.attend(y), lambda: head(y))


def _mean(x: jax.Array, share: jax.Array) -> jax.Array:
    """The mean of those tokens of `[B, L, C]` that `[B, L]` has 1 for, `[B, C]`; 0 if there are none."""
    return jnp.sum(x * share[..., None], 1) / jnp.maximum(jnp.sum(share, 1), 1.0)[:, None]
