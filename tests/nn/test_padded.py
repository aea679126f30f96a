"""Padded sizes and picked options against the plain modules that they stand for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from l2l.nn.blocks import ACTIVATIONS
from l2l.nn.padded import Bound, Padded, PaddedNorm, Picked, active, bound, elementwise, if_reached, resized, size


class Counting(nnx.Module):
    """Doubles its input and counts its calls."""

    def __init__(self) -> None:
        self.calls = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Any shape to the same."""
        self.calls[...] = self.calls[...] + 1.0
        return 2.0 * x


def test_a_padded_length_is_a_size_and_data() -> None:
    length = Padded(64, jnp.int32(32))
    assert size(length) == 64
    assert size(5) == active(5) == bound(5) == 5
    assert int(active(length)) == 32
    assert size(4 * length) == 256
    assert int(active(length * 4)) == 128
    assert isinstance(bound(length), Bound)


def test_a_picked_option_has_a_number_and_a_name() -> None:
    kernel = Picked((3, 5), jnp.int32(1))
    assert int(kernel.number) == 5
    assert bool(kernel.named(5))
    assert not bool(kernel.named(3))
    assert not bool(kernel.named(7))


@pytest.mark.parametrize("features", [2, 3, 5])
def test_resized_cuts_or_fills_with_zeros(features: int) -> None:
    x = jnp.arange(6.0).reshape(2, 3)
    expected = np.zeros((2, features))
    expected[:, : min(features, 3)] = np.asarray(x)[:, : min(features, 3)]
    np.testing.assert_array_equal(resized(x, features), expected)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_elementwise_is_the_named_function_forwards_and_backwards(name: str) -> None:
    x = jnp.linspace(-3.0, 3.0, 31)
    index = jnp.int32(list(ACTIVATIONS).index(name))
    ours = jax.jit(lambda index, x: jax.vjp(lambda x: elementwise([*ACTIVATIONS.values()], index, x), x))
    value, pull = ours(index, x)
    expected, expected_pull = jax.vjp(ACTIVATIONS[name], x)
    np.testing.assert_allclose(value, expected, atol=1e-6)
    np.testing.assert_allclose(pull(jnp.cos(x))[0], expected_pull(jnp.cos(x))[0], atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_parts_beyond_the_length_change_nothing(length: int) -> None:
    @jax.jit
    def run(length: jax.Array, x: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        parts = [Counting() for _ in range(3)]
        depth = Bound(length)
        for n, part in enumerate(parts, 1):
            x = if_reached(n, depth, (part,), x)
        return x, [part.calls[...] for part in parts]

    y, calls = run(jnp.int32(length), jnp.ones(4))
    np.testing.assert_array_equal(y, np.full(4, 2.0**length))
    assert [float(each) for each in calls] == [1.0] * length + [0.0] * (3 - length)
    assert float(if_reached(5, 2, (Counting(),), jnp.ones(()))) == 2.0  # a plain length is settled by who built it


@pytest.mark.parametrize("picked", [False, True])
@pytest.mark.parametrize("kind", ["batch", "layer"])
def test_padded_normalisation_equals_the_stock_layer_on_what_is_active(kind: str, picked: bool) -> None:
    stock = {"batch": nnx.BatchNorm, "layer": nnx.LayerNorm}[kind](3, rngs=nnx.Rngs(0))
    names = ("none", "batch", "layer")
    option = Picked(names, jnp.int32(names.index(kind))) if picked else kind
    ours = PaddedNorm(option, Padded(5, jnp.int32(3)))
    ours.scale[...] = ours.scale[...].at[3:].set(0.0)  # as embedded weights are
    x = jax.random.normal(jax.random.key(0), (16, 3))
    wide = jnp.pad(x, ((0, 0), (0, 2)))
    for _ in range(2):
        y = ours(wide)
        np.testing.assert_allclose(y[:, :3], stock(x), atol=1e-5)
        np.testing.assert_array_equal(y[:, 3:], 0.0)
    if kind == "batch":
        stock.use_running_average = ours.use_running_average = True
        np.testing.assert_allclose(ours(wide)[:, :3], stock(x), atol=1e-5)

    def slope(module: nnx.Module, x: jax.Array) -> jax.Array:
        parts = nnx.split(module)
        return jax.grad(lambda x: jnp.sum(nnx.merge(*parts, copy=True)(x) ** 3))(x)  # pyright: ignore

    slopes, expected = slope(ours, wide), slope(stock, x)
    np.testing.assert_allclose(slopes[:, :3], expected, atol=1e-4)
