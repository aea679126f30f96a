"""The small parts that built-in spaces are made of: stock layers initialised on the host, by name."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.nn.conditional import call_if, switch_and_recompute
from l2l.nn.description import Description, describe, map_shape
from l2l.nn.dropout import make_dropout
from l2l.nn.initial import he_normal, zeros
from l2l.nn.length import Length
from l2l.nn.norm import make_norm
from l2l.nn.option import Option
from l2l.nn.stack import save_residual

ACTIVATIONS: dict[str, Any] = {
    "relu": nnx.relu,
    "gelu": nnx.gelu,
    "silu": nnx.silu,
    "tanh": nnx.tanh,
    "elu": nnx.elu,
    "leaky_relu": nnx.leaky_relu,
}


class Statistic(nnx.Variable[Any]):
    """A number learnt from the training split rather than by gradient: saved with the weights."""


class Standardised(nnx.Module):
    """A model that takes raw inputs: it centres and scales them by statistics that it carries along."""

    def __init__(self, model: nnx.Module, mean: Any, scale: Any) -> None:
        self.mean = Statistic(jnp.asarray(mean, jnp.float32))
        self.scale = Statistic(jnp.asarray(scale, jnp.float32))
        self.model = model

    def __call__(self, x: jax.Array) -> jax.Array:
        """Raw inputs `[B, *inputs]` of any real dtype to logits `[B, C]`."""
        return self.model((jnp.asarray(x).astype(jnp.float32) - self.mean[...]) / self.scale[...])  # pyright: ignore


class Dense(nnx.Module):
    """One layer of a perceptron: linear map, normalisation, activation, the input added if `skip`, and dropout."""

    def __init__(
        self,
        features_in: int | Length,
        features: int | Length,
        *,
        activation: str | Option,
        normalisation: str | Option,
        skip: bool | Option,
        dropout_rate: Any = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        self.normalisation = Option.of(normalisation)
        # Batch normalisation cancels a bias: its gradient would be rounding noise, which Adam scales up.
        has_bias = not self.normalisation.is_always("batch")
        self.linear = make_linear(features_in, features, bias=has_bias, rngs=rngs)
        self.norm = make_norm(self.normalisation, features, rngs=rngs)
        self.skip = choose_skip(skip, features_in, features)
        projects = self.skip.can_be("projected")
        self.project = make_linear(features_in, features, bias=False, rngs=rngs) if projects else None
        self.activation = Option.of(activation).check("activation", ACTIVATIONS)
        self.drop = make_dropout(dropout_rate, rngs=rngs)

    def __call__(self, x: jax.Array, is_used: Any = True) -> jax.Array:
        """`[B, in]` to `[B, out]`; `x` itself, of this shape, if not `is_used` (a bool, or `[]`)."""
        if is_used is not True:
            return call_if(is_used, [self], x)
        y = save_residual(x @ self.linear.kernel[...])
        y = add_bias(self.linear, self.normalisation, y)
        y = y if self.norm is None else self.norm(y)
        drop: Any = self.drop
        return drop(add_skip(self.skip, self.project, x, activate(self.activation, y)))

    def describe(self, shape: tuple[int, ...]) -> Description:
        """The layer in words."""
        size_in, size_out = self.linear.in_features, self.linear.out_features
        return Description(
            "dense", (f"{size_in} → {size_out}", *describe_rest(self)), kind="dense",
            shape=map_shape(shape, size_in, size_out), module=self, adds_input=self.skip.read() != "none",
        )  # fmt: skip


def describe_rest(layer: Any) -> tuple[str, ...]:
    """What follows the linear map of a dense or convolutional layer, in words."""
    norm = describe(layer.norm, ())
    additions = {"none": (), "identity": ("input added",), "projected": ("input added, projected",)}
    return (*((norm.title,) if norm else ()), str(layer.activation.read()), *additions[layer.skip.read()])


def activate(activation: Option, x: jax.Array) -> jax.Array:
    """The activation of `x`, any shape; where data choose, the backward pass computes it again."""
    if activation.is_plain:
        return ACTIVATIONS[activation.value](x)
    branches = [lambda x, _, function=ACTIVATIONS[name]: (function(x), ()) for name in activation.options]
    return switch_and_recompute(activation.index, branches, x)[0]


def add_bias(layer: nnx.Linear | nnx.Conv, normalisation: Option, y: jax.Array) -> jax.Array:
    """`y` plus the layer's bias, which is left out where data choose to normalise by the batch."""
    if layer.bias is None:
        return y
    bias: Any = layer.bias[...]
    return y + (bias if normalisation.is_plain else jnp.where(normalisation.is_("batch"), 0.0, bias))


def choose_skip(skip: bool | Option, features_in: int | Length, features: int | Length) -> Option:
    """How the input reaches the output of a layer: "none", "identity", or "projected" where their lengths differ."""
    skip, features_in, features = Option.of(skip), Length.of(features_in), Length.of(features)
    if skip.is_always(False):
        return Option.of("none")
    if skip.is_plain and features_in.is_plain and features.is_plain:
        return Option.of("identity" if features_in.size == features.size else "projected")
    is_same = jnp.asarray(features_in.active) == features.active
    return Option(("none", "identity", "projected"), jnp.where(skip.is_(True), jnp.where(is_same, 1, 2), 0))


def add_skip(skip: Option, project: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """`y` plus what `skip` lets through of `x`."""
    kinds: dict[str, Any] = {
        "none": lambda: y,
        "identity": lambda: y + resize_features(x, y.shape[-1]),
        "projected": lambda: y + project(x),
    }
    return skip.apply(lambda kind: kinds[kind]())


def resize_features(x: jax.Array, features: int) -> jax.Array:
    """The last axis cut, or padded with zeros, to `features`."""
    if x.shape[-1] >= features:
        return x[..., :features]
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, features - x.shape[-1])])


def make_linear(features_in: int | Length, features: int | Length, *, bias: bool = True, rngs: nnx.Rngs) -> nnx.Linear:
    """A stock linear layer initialised on the host."""
    sizes = Length.of(features_in).size, Length.of(features).size
    return nnx.Linear(*sizes, use_bias=bias, kernel_init=he_normal, bias_init=zeros, rngs=rngs)
