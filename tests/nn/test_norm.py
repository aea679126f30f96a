"""Normalisation over padded features against the stock layers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from l2l.nn.length import Length
from l2l.nn.norm import PaddedNorm
from l2l.nn.option import Option


@pytest.mark.parametrize("picked", [False, True])
@pytest.mark.parametrize("kind", ["batch", "layer"])
def test_padded_normalisation_equals_the_stock_layer_on_what_is_active(kind: str, picked: bool) -> None:
    stock = {"batch": nnx.BatchNorm, "layer": nnx.LayerNorm}[kind](3, rngs=nnx.Rngs(0))
    names = ("none", "batch", "layer")
    option = Option(names, jnp.int32(names.index(kind))) if picked else kind
    padded = PaddedNorm(Option.of(option), Length(5, jnp.int32(3)))
    padded.scale[...] = padded.scale[...].at[3:].set(0.0)  # as embedded weights are
    x = jax.random.normal(jax.random.key(0), (16, 3))
    wide = jnp.pad(x, ((0, 0), (0, 2)))
    for _ in range(2):
        y = padded(wide)
        np.testing.assert_allclose(y[:, :3], stock(x), atol=1e-5)
        np.testing.assert_array_equal(y[:, 3:], 0.0)
    if kind == "batch":
        stock.use_running_average = padded.use_running_average = True
        np.testing.assert_allclose(padded(wide)[:, :3], stock(x), atol=1e-5)

    def gradient(module: nnx.Module, x: jax.Array) -> jax.Array:
        parts = nnx.split(module)
        return jax.grad(lambda x: jnp.sum(nnx.merge(*parts, copy=True)(x) ** 3))(x)  # pyright: ignore

    gradients, expected = gradient(padded, wide), gradient(stock, x)
    np.testing.assert_allclose(gradients[:, :3], expected, atol=1e-4)
