"""Transformer blocks and the network of them, for text, images in patches and rows of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.nn.blocks import ACTIVATIONS, activate, make_linear
from l2l.nn.conditional import call_if
from l2l.nn.description import Description, describe, describe_all, format_shape
from l2l.nn.dropout import make_dropout
from l2l.nn.initial import lecun_normal, lecun_rows
from l2l.nn.length import Length
from l2l.nn.norm import make_norm
from l2l.nn.option import Option
from l2l.nn.stack import Stack, save_residual

PLACEMENTS = ("pre", "post")
PATCHES = 49
"""The most tokens that an image becomes: patches are as small as that allows."""


class FeedForward(nnx.Module):
    """Two linear maps with an activation between, and dropout after them."""

    def __init__(
        self,
        features: int | Length,
        width: int | Length,
        *,
        activation: str | Option,
        dropout_rate: Any,
        rngs: nnx.Rngs,
    ) -> None:
        self.inner = make_linear(features, width, rngs=rngs)
        self.outer = make_linear(width, features, rngs=rngs)
        self.activation = Option.of(activation).check("activation", ACTIVATIONS)
        self.drop = make_dropout(dropout_rate, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """`[B, L, F]` to the same shape, token by token, whatever the mask."""
        return self.drop(self.outer(activate(self.activation, self.inner(x))))

    def describe(self, shape: tuple[int, ...]) -> Description:
        """The layer in words."""
        sizes = (self.inner.in_features, self.inner.out_features, self.outer.out_features)
        facts = (" → ".join(map(str, sizes)), str(self.activation.read()))
        return Description("feed-forward", facts, kind="dense", shape=shape, module=self)


class Residual(nnx.Module):
    """A part that is added to its input, normalised before the part (pre) or after the sum (post).

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.1; Xiong et al. 2020, arXiv:2002.04745 (pre).
    """

    def __init__(
        self,
        part: nnx.Module,
        features: int | Length,
        *,
        placement: str | Option,
        normalisation: str | Option,
        rngs: nnx.Rngs,
    ) -> None:
        self.part = part
        self.placement = Option.of(placement).check("placement", PLACEMENTS)
        self.norm = make_norm(normalisation, features, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """`[B, L, F]`, and `[B, L]`, true where there is a token, to the same shape."""
        part: Any = self.part
        y = x + part(_normalise_if(self.placement.is_("pre"), self.norm, x), mask)
        return _normalise_if(self.placement.is_("post"), self.norm, y)

    def describe(self, shape: tuple[int, ...]) -> Description:
        """The part with the sum around it, and the normalisation inside or behind the sum."""
        is_before = self.placement.read() == "pre"
        parts = describe_all([self.norm, self.part] if is_before else [self.part], shape)
        residual = Description(parts=parts, adds_input=True, shape=shape)
        return residual if is_before else Description(parts=(residual, *describe_all([self.norm], shape)), shape=shape)


def _normalise_if(flag: Any, norm: Any, x: jax.Array) -> jax.Array:
    """`norm(x)` if `flag` (a bool, or `[]`), else `x`."""
    if norm is None or flag is False:
        return x
    # Computed and selected: a branch takes longer to compile than a norm does to run.
    return norm(x) if flag is True else jnp.where(flag, norm(x), x)


class Block(nnx.Module):
    """Attention, then a feed-forward part: `dense` or `experts`; with both, `sparse` says which."""

    def __init__(
        self, attention: Residual, dense: Residual | None, experts: Residual | None, sparse: bool | Option
    ) -> None:
        self.attention, self.dense, self.experts = attention, dense, experts
        self.sparse = Option.of(sparse)

    def __call__(self, x: jax.Array, reached: Any = True, mask: jax.Array | None = None) -> jax.Array:
        """`[B, L, F]`, with the mask of a `Residual`, to the same shape; `x` if not `reached` (a bool, or `[]`)."""
        x = save_residual(call_if(reached, [self.attention], x, mask, recompute=True))
        for part, is_sparse in ((self.dense, False), (self.experts, True)):
            if part is not None:
                flag = reached & self.sparse.is_(is_sparse)
                x = save_residual(call_if(flag, [part], x, mask, recompute=True))
        return x

    def describe(self, shape: tuple[int, ...]) -> Description:
        """The block in words, part by part."""
        return Description(parts=describe_all([self.attention, self.dense, self.experts], shape), shape=shape)


class Embedding(nnx.Module):
    """Inputs of any kind as tokens `[B, L, F]`: token ids, images in square patches, or rows of numbers.

    Source: Dosovitskiy et al. 2020, arXiv:2010.11929, section 3.1 (patches); Gorishniy et al. 2021,
        arXiv:2106.11959, section 3.3 (rows).
    """

    def __init__(self, inputs: Sequence[int], tokens: int, features: int | Length, *, rngs: nnx.Rngs) -> None:
        self.shape, self.tokens = tuple(inputs), tokens
        self.patch = compute_patch_size(inputs)
        size = Length.of(features).size
        if tokens:
            self.table = nnx.Embed(tokens, size, embedding_init=lecun_rows, rngs=rngs)
        elif len(inputs) == 3:
            self.table = make_linear(self.patch**2 * inputs[2], size, rngs=rngs)
        else:
            self.table = nnx.Param(lecun_normal(rngs.params(), (2, math.prod(inputs), size)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, *inputs]` to `[B, L, F]`."""
        table: Any = self.table
        if self.tokens:
            return table(x)
        if len(self.shape) == 3:
            return table(cut_patches(x, self.patch))
        return x.reshape(len(x), -1, 1) * table[0] + table[1]

    def describe(self, shape: tuple[int, ...]) -> Description:
        """The embedding in words."""
        table: Any = self.table
        count = count_tokens(self.shape)
        if self.tokens:
            features, facts = table.features, (f"{self.tokens} tokens → {table.features}",)
        elif len(self.shape) == 3:
            features, pixels = table.out_features, format_shape((self.patch, self.patch))
            facts = (f"{count} patches of {pixels} pixels", f"{table.in_features} → {features}")
        else:
            features = table[...].shape[-1]
            facts = (f"a token of {features} for each of {count} numbers",)
        return Description("embedding", facts, shape=(count, features), module=self)


def count_tokens(inputs: Sequence[int]) -> int:
    """Tokens L that an input becomes."""
    if len(inputs) != 3:
        return math.prod(inputs)
    size = compute_patch_size(inputs)
    return math.prod(-(-pixels // size) for pixels in inputs[:2])


def compute_patch_size(inputs: Sequence[int]) -> int:
    """Pixels along a side of a patch: as few as `PATCHES` allows; 1 for inputs that are no images."""
    if len(inputs) != 3:
        return 1
    sizes = range(1, max(inputs) + 1)
    return next(size for size in sizes if math.prod(-(-pixels // size) for pixels in inputs[:2]) <= PATCHES)


def cut_patches(x: jax.Array, size: int) -> jax.Array:
    """Images `[B, H, W, C]` in square patches, row by row, `[B, L, size * size * C]`; zeros beyond the border."""
    batch, height, width, channels = x.shape
    rows, columns = -(-height // size), -(-width // size)
    x = jnp.pad(x, ((0, 0), (0, rows * size - height), (0, columns * size - width), (0, 0)))
    x = x.reshape(batch, rows, size, columns, size, channels).swapaxes(2, 3)
    return x.reshape(batch, rows * columns, size * size * channels)


class Transformer(nnx.Module):
    """Blocks over tokens, the last output normalised and mapped to logits: of each token, or of their mean.

    With `tied` (for text with a target for each token) the map is the embedding's own. With `blank` the token 0 means
    that there is none: it is neither attended to, nor sent to an expert, nor part of the mean.
    """

    def __init__(
        self,
        embedding: Embedding,
        blocks: Sequence[Block],
        depth: int | Length,
        features: int | Length,
        outputs: int,
        *,
        per_token: bool,
        normalisation: str | Option,
        tied: bool | Option,
        blank: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        self.blank = blank
        self.embedding, self.blocks = embedding, Stack(blocks, depth)
        self.norm = make_norm(normalisation, features, rngs=rngs)
        self.per_token = per_token
        can_tie = per_token and embedding.tokens == outputs
        self.tied = Option.of(tied if can_tie else False)
        self.head = None if self.tied.is_always(True) else make_linear(features, outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, *inputs]` to logits `[B, L, C]`, or `[B, C]`."""
        mask = x != 0 if self.blank else None
        y = self.norm(self.blocks(self.embedding(x), mask))
        if not self.per_token:
            y = jnp.mean(y, 1) if mask is None else _compute_mean(y, mask.astype(y.dtype))
        head: Any = self.head
        table: Any = self.embedding.table
        return self.tied.branch(True, lambda: table.attend(y), lambda: head(y))

    def describe(self, shape: tuple[int, ...]) -> Description:
        """The network in words, from the embedding to the head."""
        embedding = self.embedding.describe(shape)
        shape = embedding.shape
        blocks = self.blocks.describe_layers(shape)
        facts = () if self.per_token else ("mean over tokens",)
        head = describe(self.head, shape if self.per_token else shape[-1:])
        if head is None:
            head = Description("tied to the embedding")
        head = replace(head, name="head", facts=(*facts, *head.facts))
        return Description(parts=(embedding, *blocks, *describe_all([self.norm], shape), head))


def _compute_mean(x: jax.Array, weight: jax.Array) -> jax.Array:
    """The mean of those tokens of `[B, L, F]` for which `[B, L]` has a 1, `[B, F]`; 0 if there are none."""
    return jnp.sum(x * weight[..., None], 1) / jnp.maximum(jnp.sum(weight, 1), 1.0)[:, None]
