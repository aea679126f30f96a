"""Convolutional networks: per-layer filters, kernel, activation, normalisation, skip and pooling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.nn.blocks import ACTIVATIONS, POOLINGS, Convolution, make_linear
from l2l.nn.conditional import call_if
from l2l.nn.dropout import make_dropout
from l2l.nn.length import Length
from l2l.nn.norm import NORMALISATIONS
from l2l.nn.pool import pool
from l2l.space import Categorical, Choice, Integer, SearchSpace
from l2l.types import Learner, Spec
from search_spaces import recipe

GRID = 4
"""The last feature map is averaged down to at most this many rows and columns before the linear head."""


class Cnn(nnx.Module):
    """Convolutional layers, average pooling to a small grid and a linear head, for images `[H, W, C]`."""

    def __init__(self, values: Mapping[str, Any], spec: Spec, rngs: nnx.Rngs) -> None:
        layers: list[Convolution] = []
        height, width, channels = spec.inputs
        self.depth = Length.of(values["depth"])
        for n in range(1, self.depth.size + 1):
            layer = Convolution(
                channels,
                values[f"layer{n}_filters"],
                kernel=values[f"layer{n}_kernel"],
                activation=values[f"layer{n}_activation"],
                normalisation=values[f"layer{n}_normalisation"],
                skip=values[f"layer{n}_skip"],
                pooling=values[f"layer{n}_pooling"],
                rngs=rngs,
            )
            layers.append(layer)
            channels = values[f"layer{n}_filters"]
            if layer.pools:
                height, width = -(-height // 2), -(-width // 2)
        self.layers = nnx.List(layers)
        self.window = -(-max(height, width) // GRID)
        self.drop = make_dropout(values["dropout"], rngs=rngs)
        cells = -(-height // self.window) * -(-width // self.window)
        self.head = make_linear(channels * cells, spec.outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images `[B, H, W, in]` to logits `[B, C]`."""
        for n, layer in enumerate(self.layers, 1):
            x = layer(x) if n == 1 or layer.pools else call_if(self.depth.reaches(n), [layer], x)
        x = pool("average", x, self.window)
        # Channel-major, so that padded channels come after all others.
        return self.head(self.drop(jnp.moveaxis(x, -1, 1).reshape(x.shape[0], -1)))


def build(values: Mapping[str, Any], spec: Spec) -> Learner:
    """The convolutional network of these values, with its recipe. Raises: InputError if inputs are no images."""
    recipe.check_images(spec)
    return recipe.make_learner(lambda rngs: Cnn(values, spec, rngs), values, spec)


def space(
    depth: Sequence[int] = (1, 4),
    filters: Sequence[int] = (8, 16, 32),
    kernels: Sequence[int] = (3, 5),
    activations: Sequence[str] = ("relu", "gelu", "silu", "tanh"),
    normalisations: Sequence[str] = ("none", "batch", "layer"),
    poolings: Sequence[str] = POOLINGS,
    optimizers: Sequence[str] = ("adamw", "sgd", "lion"),
    batch_sizes: Sequence[int] = (32, 64, 128),
) -> SearchSpace[Learner]:
    """Convolutional networks of `depth[0]` to `depth[1]` layers, joined with the training recipe."""
    low, high = recipe.read_range("depth", depth)
    filters, kernels = recipe.read_sizes("filters", filters), recipe.read_sizes("kernels", kernels)
    poolings = recipe.read_names("pooling", poolings, POOLINGS)
    # At full resolution every later layer costs four times as much: the first layer pools if it may.
    first = tuple(kind for kind in poolings if kind != "none") or poolings
    activations = recipe.read_names("activation", activations, ACTIVATIONS)
    normalisations = recipe.read_names("normalisation", normalisations, NORMALISATIONS)
    # A layer that pools changes the shape, so it cannot be skipped in the program of a deeper network.
    later = tuple(sorted(poolings, key=lambda kind: kind != "none"))
    choices: dict[str, Choice] = {"depth": Integer(low=low, high=high, repeats="none" in poolings)}
    for n in range(1, high + 1):
        when = {"depth": tuple(range(max(n, low), high + 1))}
        choices |= {
            f"layer{n}_filters": Categorical(options=filters, when=when, pad="filters"),
            f"layer{n}_kernel": Categorical(options=kernels, when=when, traced=True),
            f"layer{n}_activation": Categorical(options=activations, when=when, traced=True),
            f"layer{n}_normalisation": Categorical(options=normalisations, when=when, traced=True),
            f"layer{n}_skip": Categorical(options=(False, True), when=when, traced=True),
            f"layer{n}_pooling": Categorical(options=later if n > 1 else first, when=when),
        }
    return SearchSpace(choices | recipe.make_choices(optimizers, batch_sizes), build, name="cnn")
