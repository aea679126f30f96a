"""Normalisations by name: stock layers, or one over padded features and of a kind that data may choose."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.nn.description import Description
from l2l.nn.initial import ones, zeros
from l2l.nn.length import Length
from l2l.nn.option import Option

NORMALISATIONS = ("none", "batch", "layer", "rms")


class PaddedNorm(nnx.Module):
    """The normalisations of `NORMALISATIONS`, over padded features, or of a kind that data choose.

    It equals the stock `nnx.BatchNorm`, `nnx.LayerNorm` and `nnx.RMSNorm` on the active features; the others stay 0.
    """

    def __init__(self, kind: Option, features: Length) -> None:
        shape = (features.size,)
        self.scale, self.bias = nnx.Param(jnp.ones(shape)), nnx.Param(jnp.zeros(shape))
        self.mean, self.var = nnx.BatchStat(jnp.zeros(shape)), nnx.BatchStat(jnp.ones(shape))
        self.kind, self.features = kind, features
        self.use_running_average = False

    def __call__(self, x: jax.Array, share: Any = 1.0) -> jax.Array:
        """`[B, ..., F]` to the same shape; where only a `share` of the positions is in use, the others are 0."""
        statistics = (self.mean[...], self.var[...])
        if not self.kind.is_plain and not self.kind.can_be("batch") and not self.kind.can_be("none"):
            return self._centre_and_scale(x)
        kinds: dict[str, Any] = {
            "none": _pass_on,
            "batch": lambda x, statistics: self._normalise_batch(x, statistics, share),
            "layer": self._normalise_layer,
            "rms": self._normalise_rms,
        }
        y, statistics = self.kind.apply(lambda name, x, statistics: kinds[name](x, statistics), x, statistics)
        if not self.use_running_average and self.kind.can_be("batch"):
            self.mean[...], self.var[...] = statistics
        return y

    def describe(self, shape: tuple[int, ...]) -> Description:
        """The normalisation in words."""
        return Description(f"{self.kind.read()} norm", kind="norm", shape=shape, module=self)

    def _normalise_layer(self, x: jax.Array, statistics: Any) -> Any:
        count = self._count_features()
        # Masked, because the mean leads a gradient back to every feature that it is taken over.
        x = jnp.where(self.features.mask(), x, 0.0)
        mean = jnp.sum(x, -1, keepdims=True) / count
        variance = jnp.maximum(jnp.sum(x * x, -1, keepdims=True) / count - mean * mean, 0.0)
        return (x - mean) * (jax.lax.rsqrt(variance + 1e-6) * self.scale[...]) + self.bias[...], statistics

    def _centre_and_scale(self, x: jax.Array) -> jax.Array:
        """Layer or RMS normalisation, as data choose, in one formula: RMS has no centre and no bias."""
        count, is_centred = self._count_features(), self.kind.is_("layer").astype(x.dtype)
        mask = self.features.mask()
        centre = is_centred * jnp.sum(jnp.where(mask, x, 0.0), -1, keepdims=True) / count
        deviation = jnp.where(mask, x - centre, 0.0)
        square = jnp.sum(deviation * deviation, -1, keepdims=True) / count
        return deviation * (jax.lax.rsqrt(square + 1e-6) * self.scale[...]) + is_centred * self.bias[...]

    def _normalise_rms(self, x: jax.Array, statistics: Any) -> Any:
        square = jnp.sum(x * x, -1, keepdims=True) / self._count_features()
        return x * (jax.lax.rsqrt(square + 1e-6) * self.scale[...]), statistics

    def _normalise_batch(self, x: jax.Array, statistics: Any, share: Any) -> Any:
        mean, variance = statistics
        if not self.use_running_average:
            axes = tuple(range(x.ndim - 1))
            mean = jnp.mean(x, axes) / share
            variance = jnp.maximum(jnp.mean(x * x, axes) / share - mean * mean, 0.0)
            pairs = zip(statistics, (mean, variance), strict=True)
            statistics = tuple(0.99 * old + 0.01 * new for old, new in pairs)
        return (x - mean) * (jax.lax.rsqrt(variance + 1e-5) * self.scale[...]) + self.bias[...], statistics

    def _count_features(self) -> jax.Array:
        """How many features are in use, `[]` float32."""
        return jnp.asarray(self.features.active, jnp.float32)


def _pass_on(x: jax.Array, statistics: Any) -> Any:
    return x, statistics


def make_norm(kind: str | Option, features: int | Length, *, rngs: nnx.Rngs) -> Any:
    """The normalisation of this name: a stock layer where everything is plain, None for "none".

    Raises: ValueError if the name is unknown.
    """
    kind, features = Option.of(kind).check("normalisation", NORMALISATIONS), Length.of(features)
    if kind.is_always("none"):
        return None
    if not (kind.is_plain and features.is_plain):
        return PaddedNorm(kind, features)
    if kind.is_always("rms"):
        return nnx.RMSNorm(features.size, scale_init=ones, rngs=rngs)
    layer = {"batch": nnx.BatchNorm, "layer": nnx.LayerNorm}[kind.value]
    return layer(features.size, scale_init=ones, bias_init=zeros, rngs=rngs)
