"""The small parts that built-in spaces are made of: stock layers with host initialisation, by name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.nn.conv import patches_convolution
from l2l.nn.initial import he_normal, ones, zeros
from l2l.nn.padded import Bound, Padded, PaddedNorm, Picked, Selector, active, elementwise, resized, size
from l2l.nn.pool import pool

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nnx.relu,
    "gelu": nnx.gelu,
    "silu": nnx.silu,
    "tanh": nnx.tanh,
    "elu": nnx.elu,
    "leaky_relu": nnx.leaky_relu,
}
NORMALISATIONS = ("none", "batch", "layer", "rms")
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
    """One layer of a perceptron: linear, normalisation, activation, and the input added if `skip`.

    Sizes may be `Padded`; activation, normalisation and skip may be `Picked`.
    """

    def __init__(
        self,
        features_in: int | Padded,
        features: int | Padded,
        *,
        activation: str | Picked,
        normalisation: str | Picked,
        skip: bool | Picked,
        rngs: nnx.Rngs,
    ) -> None:
        # Batch normalisation takes a bias away again: its gradient would be rounding noise, which Adam scales up.
        self.linear = linear(features_in, features, bias=normalisation != "batch", rngs=rngs)
        self.norm = norm(normalisation, features, rngs=rngs)
        self.route = route(skip, features_in, features)
        self.project = linear(features_in, features, bias=False, rngs=rngs) if projects(self.route) else None
        self.activation = chosen("activation", activation, ACTIVATIONS)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, in]` to `[B, out]`."""
        y = activate(self.activation, normalise(self.norm, self.linear, x))
        return residual(self.route, self.project, x, y)


class Convolution(nnx.Module):
    """One layer of a convolutional network: convolution, normalisation, activation, skip, pooling by 2.

    Channels may be `Padded`; kernel, activation, normalisation and skip may be `Picked`, and pooling too if no
    option is "none".
    """

    def __init__(
        self,
        channels: int | Padded,
        filters: int | Padded,
        *,
        kernel: int | Picked,
        activation: str | Picked,
        normalisation: str | Picked,
        skip: bool | Picked,
        pooling: str | Picked,
        rngs: nnx.Rngs,
    ) -> None:
        largest = max(kernel.options) if isinstance(kernel, Picked) else kernel
        # As in `Dense`: no bias under batch normalisation.
        self.conv = conv(channels, filters, largest, bias=normalisation != "batch", rngs=rngs)
        self.kernel = Selector(kernel) if isinstance(kernel, Picked) else None
        self.norm = norm(normalisation, filters, rngs=rngs)
        self.route = route(skip, channels, filters)
        self.project = conv(channels, filters, 1, bias=False, rngs=rngs) if projects(self.route) else None
        self.activation = chosen("activation", activation, ACTIVATIONS)
        self.pooling = chosen("pooling", pooling, POOLINGS)
        self.pools = pooling != "none"

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, in]` to `[B, H', W', out]`, half the height and width (rounded up) where it pools."""
        y = activate(self.activation, normalise(self.norm, self.conv, x, self.kernel))
        y = residual(self.route, self.project, x, y)
        if isinstance(self.pooling, str):
            return pool(self.pooling, y)
        kinds = [functools.partial(pool, kind) for kind in self.pooling.options]
        return jax.lax.switch(self.pooling.index[...], kinds, y)


def chosen(what: str, option: str | Picked, names: Iterable[str]) -> str | Selector:
    """What a module keeps of an option. Raises: ValueError if it is none of `names`."""
    names = tuple(names)
    if isinstance(option, str):
        return known(what, option, names)
    for each in option.options:
        known(what, each, names)
    return Selector(option)


def activate(activation: str | Selector, x: jax.Array) -> jax.Array:
    """The activation of `x`, any shape."""
    if isinstance(activation, str):
        return ACTIVATIONS[activation](x)
    return elementwise([ACTIVATIONS[name] for name in activation.options], activation.index[...], x)


def normalise(norm: Any, layer: nnx.Linear | nnx.Conv, x: jax.Array, kernel: Selector | None = None) -> jax.Array:
    """`norm(layer(x))`, without the layer's bias where data say that the normalisation is that of the batch."""
    kind = norm.kind if isinstance(norm, PaddedNorm) and layer.bias is not None else ""
    if isinstance(kind, str) and kernel is None:
        return layer(x) if norm is None else norm(layer(x))
    weights: Any = layer.kernel[...]
    if kernel is not None:
        # A smaller kernel stands in the corner of the largest one.
        parts = [lambda x, w, k=k: patches_convolution(x, w[:k, :k], (1, 1), "SAME") for k in kernel.options]
        y = jax.lax.switch(kernel.index[...], parts, x, weights)
    else:
        y = x @ weights if weights.ndim == 2 else patches_convolution(x, weights, (1, 1), "SAME")
    if layer.bias is not None:
        y = y + (layer.bias[...] if isinstance(kind, str) else jnp.where(kind.named("batch"), 0.0, layer.bias[...]))
    return y if norm is None else norm(y)


def route(skip: bool | Picked, features_in: int | Padded, features: int | Padded) -> int | Bound:
    """How the input reaches the output: 0 not at all, 1 as it is, 2 projected; data if an argument is."""
    plain = not any(isinstance(each, Padded | Picked) for each in (skip, features_in, features))
    if plain or skip is False:
        return (1 if features_in == features else 2) if skip else 0
    on = skip.named(True) if isinstance(skip, Picked) else True
    same = jnp.asarray(active(features_in)) == active(features)
    return Bound(jnp.where(on, jnp.where(same, 1, 2), 0).astype(jnp.int32))


def projects(route: int | Bound) -> bool:
    """Whether a layer needs the weights of a projection."""
    return not isinstance(route, int) or route == 2


def residual(route: int | Bound, project: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """`y` with what `route` lets through of `x` added."""
    if not isinstance(route, int):
        added = [lambda: y, lambda: y + resized(x, y.shape[-1]), lambda: y + project(x)]
        return jax.lax.switch(route[...], added)
    if route == 0:
        return y
    return y + (x if project is None else project(x))


def linear(features_in: int | Padded, features: int | Padded, *, bias: bool = True, rngs: nnx.Rngs) -> nnx.Linear:
    """A stock linear layer initialised on the host."""
    return nnx.Linear(
        size(features_in), size(features), use_bias=bias, kernel_init=he_normal, bias_init=zeros, rngs=rngs
    )


def conv(channels: int | Padded, filters: int | Padded, kernel: int, *, bias: bool, rngs: nnx.Rngs) -> nnx.Conv:
    """A stock `SAME` convolution, computed as one matrix product and initialised on the host."""
    return nnx.Conv(
        size(channels),
        size(filters),
        kernel_size=(kernel, kernel),
        use_bias=bias,
        kernel_init=he_normal,
        bias_init=zeros,
        conv_general_dilated=patches_convolution,
        rngs=rngs,
    )


def norm(kind: str | Picked, features: int | Padded, *, rngs: nnx.Rngs) -> Any:
    """The normalisation of this name, or None."""
    if kind == "none":
        return None
    if isinstance(kind, Picked) or isinstance(features, Padded):
        chosen("normalisation", kind, NORMALISATIONS)
        return PaddedNorm(kind, features)
    if known("normalisation", kind, NORMALISATIONS) == "rms":
        return nnx.RMSNorm(features, scale_init=ones, rngs=rngs)
    layer = {"batch": nnx.BatchNorm, "layer": nnx.LayerNorm}[kind]
    return layer(features, scale_init=ones, bias_init=zeros, rngs=rngs)
