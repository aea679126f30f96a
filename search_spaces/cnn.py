"""Convolutional networks: per-layer filters, kernel, activation, normalisation, skip and pooling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.nn.blocks import ACTIVATIONS, make_linear
from l2l.nn.convolution import POOLINGS, Convolution, ToFeatures, list_sizes
from l2l.nn.description import Description
from l2l.nn.dropout import make_dropout
from l2l.nn.length import Length
from l2l.nn.norm import NORMALISATIONS
from l2l.nn.option import Option
from l2l.nn.stack import Stack, describe_network
from l2l.space import Categorical, Choice, Integer, SearchSpace
from l2l.types import Learner, Spec
from search_spaces import recipe

GRID = 4
"""The last feature map is averaged down to at most this many rows and columns before the linear head."""


class Cnn(nnx.Module):
    """Convolutional layers, average pooling to a small grid and a linear head, for images `[H, W, C]`."""

    def __init__(self, values: Mapping[str, Any], spec: Spec, rngs: nnx.Rngs) -> None:
        height, width, channels = spec.inputs
        size = Option.of((height, width))
        depth = Length.of(values["depth"])
        layers: list[Convolution] = []
        for n in range(1, depth.size + 1):
            layer = Convolution(
                channels,
                values[f"layer{n}_filters"],
                size=size,
                kernel=values[f"layer{n}_kernel"],
                activation=values[f"layer{n}_activation"],
                normalisation=values[f"layer{n}_normalisation"],
                skip=values[f"layer{n}_skip"],
                pooling=values[f"layer{n}_pooling"],
                rngs=rngs,
            )
            layers.append(layer)
            channels = values[f"layer{n}_filters"]
            if layer.size_out.is_plain:
                size = layer.size_out
            else:  # layers beyond the depth do not pool
                size = Option(size.options, jnp.where(depth.reaches(n), layer.size_out.index, size.index))
            if n == 1 and not depth.is_plain and self._can_pool(values, depth.size):
                size = Option(list_sizes(size.options[0]), 0)  # the other layers are alike, whatever they pool
        self.first, self.rest = layers[0], Stack(layers[1:], depth - 1)
        self.flatten = ToFeatures(channels, size, GRID)
        self.drop = make_dropout(values["dropout"], rngs=rngs)
        self.head = make_linear(self.flatten.features, spec.outputs, rngs=rngs)

    @staticmethod
    def _can_pool(values: Mapping[str, Any], depth: int) -> bool:
        """Whether a layer behind the first may pool."""
        poolings = [Option.of(values[f"layer{n}_pooling"]) for n in range(2, depth + 1)]
        return any(set(pooling.options) != {"none"} for pooling in poolings)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images `[B, H, W, in]` to logits `[B, C]`."""
        return self.head(self.drop(self.flatten(self.rest(self.first(x)))))

    def describe(self, shape: tuple[int, ...]) -> Description:
        """The network in words, layer by layer."""
        return describe_network(self.first, self.rest, self.head, shape)


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
    # The largest map is that of the last option: the memory of a program is counted for it.
    later = tuple(sorted(poolings, key=lambda kind: kind == "none"))
    choices: dict[str, Choice] = {"depth": Integer(low=low, high=high, repeats="none" in poolings)}
    for n in range(1, high + 1):
        when = {"depth": tuple(range(max(n, low), high + 1))}
        choices |= {
            f"layer{n}_filters": Categorical(options=filters, when=when, pad="filters"),
            f"layer{n}_kernel": Categorical(options=kernels, when=when, traced=True),
            f"layer{n}_activation": Categorical(options=activations, when=when, traced=True),
            f"layer{n}_normalisation": Categorical(options=normalisations, when=when, traced=True),
            f"layer{n}_skip": Categorical(options=(False, True), when=when, traced=True),
            f"layer{n}_pooling": Categorical(options=later if n > 1 else first, when=when, traced=True),
        }
    return SearchSpace(choices | recipe.make_choices(optimizers, batch_sizes), build, name="cnn")
