"""The small parts that built-in spaces are made of: stock layers with host initialisation, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.nn.conv import patches_convolution
from l2l.nn.initial import he_normal, ones, zeros
from l2l.nn.pool import pool

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nnx.relu,
    "gelu": nnx.gelu,
    "silu": nnx.silu,
    "tanh": nnx.tanh,
    "elu": nnx.elu,
    "leaky_relu": nnx.leaky_relu,
}
NORMALISATIONS = ("none", "batch", "layer")
POOLINGS = ("none", "max", "average")


def known(what: str, name: str, names: Iterable[str]) -> str:
    """`name` itself. Raises: ValueError if it is none of `names`."""
    if name not in (names := tuple(names)):
        raise ValueError(f"{what} {name!r} is unknown, expected one of {', '.join(names)}")
    return name


class Statistic(nnx.Variable[Any]):
    """A number learnt from the training split rather than by gradient: saved with the weights."""


class Standardised(nnx.Module):
    """A model that takes raw inputs: they are centred and scaled by statistics it carries along."""

    def __init__(self, model: nnx.Module, mean: Any, scale: Any) -> None:
        self.mean = Statistic(jnp.asarray(mean, jnp.float32))
        self.scale = Statistic(jnp.asarray(scale, jnp.float32))
        self.model = model

    def __call__(self, x: jax.Array) -> jax.Array:
        """Raw inputs `[B, *inputs]` of any real dtype to logits `[B, C]`."""
        return self.model((jnp.asarray(x).astype(jnp.float32) - self.mean[...]) / self.scale[...])  # pyright: ignore


class Dense(nnx.Module):
    """One layer of a perceptron: linear, normalisation, activation, and the input added if `skip`."""

    def __init__(
        self, features_in: int, features: int, *, activation: str, normalisation: str, skip: bool, rngs: nnx.Rngs
    ) -> None:
        # Batch normalisation takes a bias away again: its gradient would be rounding noise, which Adam scales up.
        self.linear = linear(features_in, features, bias=normalisation != "batch", rngs=rngs)
        self.norm = norm(normalisation, features, rngs=rngs)
        self.project = (
            linear(features_in, features, bias=False, rngs=rngs) if skip and features_in != features else None
        )
        self.activation, self.skip = known("activation", activation, ACTIVATIONS), skip

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, in]` to `[B, out]`."""
        y = self.linear(x)
        y = ACTIVATIONS[self.activation](y if self.norm is None else self.norm(y))
        return y + (x if self.project is None else self.project(x)) if self.skip else y


class Convolution(nnx.Module):
    """One layer of a convolutional network: convolution, normalisation, activation, skip, pooling by 2."""

    def __init__(
        self,
        channels: int,
        filters: int,
        *,
        kernel: int,
        activation: str,
        normalisation: str,
        skip: bool,
        pooling: str,
        rngs: nnx.Rngs,
    ) -> None:
        # As in `Dense`: no bias under batch normalisation.
        self.conv = conv(channels, filters, kernel, bias=normalisation != "batch", rngs=rngs)
        self.norm = norm(normalisation, filters, rngs=rngs)
        self.project = conv(channels, filters, 1, bias=False, rngs=rngs) if skip and channels != filters else None
        self.activation, self.skip = known("activation", activation, ACTIVATIONS), skip
        self.pooling = known("pooling", pooling, POOLINGS)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, in]` to `[B, H', W', out]`, half the height and width (rounded up) where it pools."""
        y = self.conv(x)
        y = ACTIVATIONS[self.activation](y if self.norm is None else self.norm(y))
        if self.skip:
            y = y + (x if self.project is None else self.project(x))
        return pool(self.pooling, y)


def linear(features_in: int, features: int, *, bias: bool = True, rngs: nnx.Rngs) -> nnx.Linear:
    """A stock linear layer initialised on the host."""
    return nnx.Linear(features_in, features, use_bias=bias, kernel_init=he_normal, bias_init=zeros, rngs=rngs)


def conv(channels: int, filters: int, kernel: int, *, bias: bool, rngs: nnx.Rngs) -> nnx.Conv:
    """A stock `SAME` convolution, computed as one matrix product and initialised on the host."""
    return nnx.Conv(
        channels,
        filters,
        kernel_size=(kernel, kernel),
        use_bias=bias,
        kernel_init=he_normal,
        bias_init=zeros,
        conv_general_dilated=patches_convolution,
        rngs=rngs,
    )


def norm(kind: str, features: int, *, rngs: nnx.Rngs) -> nnx.BatchNorm | nnx.LayerNorm | None:
    """The normalisation of this name, or None."""
    if kind == "none":
        return None
    layer = {"batch": nnx.BatchNorm, "layer": nnx.LayerNorm}[kind]
    return layer(features, scale_init=ones, bias_init=zeros, rngs=rngs)
