"""Multilayer perceptrons: per-layer width, activation, normalisation and skip, depth as a condition."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from l2l.nn.blocks import ACTIVATIONS, Dense, make_linear
from l2l.nn.description import Description
from l2l.nn.length import Length
from l2l.nn.norm import NORMALISATIONS
from l2l.nn.stack import Stack, describe_network
from l2l.space import Categorical, Choice, Integer, SearchSpace
from l2l.types import Learner, Spec
from search_spaces import recipe


class Mlp(nnx.Module):
    """A perceptron over flattened inputs."""

    def __init__(self, values: Mapping[str, Any], spec: Spec, rngs: nnx.Rngs) -> None:
        layers: list[Dense] = []
        features: int | Length = math.prod(spec.inputs)
        depth = Length.of(values["depth"])
        for n in range(1, depth.size + 1):
            layer = Dense(
                features,
                values[f"layer{n}_width"],
                activation=values[f"layer{n}_activation"],
                normalisation=values[f"layer{n}_normalisation"],
                skip=values[f"layer{n}_skip"],
                dropout_rate=values["dropout"],
                rngs=rngs,
            )
            layers.append(layer)
            features = values[f"layer{n}_width"]
        self.first, self.rest = layers[0], Stack(layers[1:], depth - 1)
        self.head = make_linear(features, spec.outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Inputs `[B, *inputs]` to logits `[B, C]`."""
        return self.head(self.rest(self.first(x.reshape(x.shape[0], -1))))

    def describe(self, shape: tuple[int, ...]) -> Description:
        """The network in words, layer by layer."""
        return describe_network(self.first, self.rest, self.head, shape)


def build(values: Mapping[str, Any], spec: Spec) -> Learner:
    """The perceptron of these values, with its recipe. Raises: InputError if each token has a target."""
    recipe.check_one_target(spec)
    return recipe.make_learner(lambda rngs: Mlp(values, spec, rngs), values, spec)


def space(
    depth: Sequence[int] = (1, 4),
    widths: Sequence[int] = (32, 64, 128, 256),
    activations: Sequence[str] = ("relu", "gelu", "silu", "tanh"),
    normalisations: Sequence[str] = ("none", "batch", "layer"),
    optimizers: Sequence[str] = ("adamw", "sgd", "lion"),
    batch_sizes: Sequence[int] = (32, 64, 128),
) -> SearchSpace[Learner]:
    """Perceptrons of `depth[0]` to `depth[1]` layers, joined with the training recipe."""
    low, high = recipe.read_range("depth", depth)
    widths = recipe.read_sizes("widths", widths)
    activations = recipe.read_names("activation", activations, ACTIVATIONS)
    normalisations = recipe.read_names("normalisation", normalisations, NORMALISATIONS)
    choices: dict[str, Choice] = {"depth": Integer(low=low, high=high, repeats=True)}
    for n in range(1, high + 1):
        when = {"depth": tuple(range(max(n, low), high + 1))}
        choices |= {
            f"layer{n}_width": Categorical(options=widths, when=when, pad="width"),
            f"layer{n}_activation": Categorical(options=activations, when=when, traced=True),
            f"layer{n}_normalisation": Categorical(options=normalisations, when=when, traced=True),
            f"layer{n}_skip": Categorical(options=(False, True), when=when, traced=True),
        }
    return SearchSpace(choices | recipe.make_choices(optimizers, batch_sizes), build, name="mlp")
