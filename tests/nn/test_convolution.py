"""A convolutional layer whose maps are of a size that data choose, against the layer of that size."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from l2l.nn.convolution import POOLINGS, Convolution, ToFeatures, halve_size, list_sizes
from l2l.nn.option import Option
from l2l.nn.pool import pool

SIZE = (7, 5)
SIZES = list_sizes(SIZE)


def test_sizes_end_at_one_pixel() -> None:
    assert list_sizes((7, 5)) == ((7, 5), (4, 3), (2, 2), (1, 1))
    assert list_sizes((1, 1)) == ((1, 1),)
    assert list_sizes((3, 1)) == ((3, 1), (2, 1), (1, 1))


def test_a_map_is_halved_where_a_layer_pools() -> None:
    size, plain = Option(SIZES, 1), Option.of(SIZE)
    assert halve_size(plain, Option.of("max")).read() == (4, 3)
    assert halve_size(plain, Option.of("none")) is plain
    assert halve_size(plain, Option(("max", "average"), 1)).read() == (4, 3)
    assert halve_size(plain, Option(("max", "none"), 0)).read() == (4, 3)
    assert halve_size(size, Option(("max", "none"), 0)).read() == (2, 2)
    assert halve_size(size, Option(("max", "none"), 1)).read() == (4, 3)
    assert halve_size(Option(SIZES, 3), Option(("none", "max"), 1)).read() == (1, 1)


def place(x: jax.Array) -> jax.Array:
    """Maps in the upper left corner of the largest ones."""
    return jnp.pad(x, ((0, 0), (0, SIZE[0] - x.shape[1]), (0, SIZE[1] - x.shape[2]), (0, 0)))


def draw(size: tuple[int, int]) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).normal(size=(3, *size, 4)), jnp.float32)


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("window", [2, 3])
@pytest.mark.parametrize("size", SIZES)
def test_pooling_inside_equals_pooling_the_map_alone(size: tuple[int, int], window: int, kind: str) -> None:
    x, inside = draw(size), place(jnp.ones((1, *size, 1), bool))[0]
    expected, pull_expected = jax.vjp(lambda x: pool(kind, x, window), x)
    y, pull = jax.vjp(lambda x: pool(kind, x, window, inside), place(x))
    rows, columns = expected.shape[1:3]
    np.testing.assert_allclose(y[:, :rows, :columns], expected, atol=1e-6)
    assert not np.any(y[:, rows:])
    assert not np.any(y[:, :, columns:])
    (gradient,) = pull(jnp.ones_like(y))
    np.testing.assert_allclose(
        jnp.where(place(jnp.ones_like(x)), gradient, 0.0), place(pull_expected(jnp.ones_like(expected))[0]), atol=1e-6
    )


def make_layer(size: Any, pooling: Any, normalisation: Any) -> Convolution:
    return Convolution(
        4, 4, size=size, kernel=3, activation="relu", normalisation=normalisation, skip=True, pooling=pooling,
        rngs=nnx.Rngs(0),
    )  # fmt: skip


def run(layer: Convolution, x: jax.Array) -> tuple[jax.Array, jax.Array, list[jax.Array]]:
    """Output, gradient by the input, and the statistics of batches."""
    graph, state = nnx.split(layer)

    def call(x: jax.Array) -> Any:
        module = nnx.merge(graph, state, copy=True)
        return module(x), jax.tree.leaves(nnx.state(module, nnx.BatchStat))

    y, pull, statistics = jax.vjp(jax.jit(call), x, has_aux=True)
    return y, pull(jnp.ones_like(y))[0], statistics


@pytest.mark.parametrize("normalisation", ["none", "batch", "layer"])
@pytest.mark.parametrize(("size", "pooling"), list(itertools.product(SIZES, POOLINGS)))
def test_a_size_that_data_choose_changes_nothing(size: tuple[int, int], pooling: str, normalisation: str) -> None:
    kinds = ("batch", "layer", "none")
    alone = make_layer(size, pooling, normalisation)
    layer = make_layer(
        Option(SIZES, SIZES.index(size)), Option(POOLINGS, POOLINGS.index(pooling)),
        Option(kinds, kinds.index(normalisation)),
    )  # fmt: skip
    weight: Any = alone.conv.kernel
    layer.conv.kernel[...] = weight[...]
    if alone.conv.bias is not None:
        alone.conv.bias[...] = layer.conv.bias[...] = jnp.arange(1.0, 5.0)

    y, gradient, statistics = run(layer, place(draw(size)))
    expected, expected_gradient, expected_statistics = run(alone, draw(size))
    assert y.shape == (3, *SIZE, 4)
    assert layer.size_out.read() == expected.shape[1:3]
    np.testing.assert_allclose(y, place(expected), atol=1e-5)
    np.testing.assert_allclose(gradient[:, : size[0], : size[1]], expected_gradient, atol=1e-4)
    if normalisation == "batch":
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), statistics, expected_statistics)


@pytest.mark.parametrize("size", SIZES)
def test_features_of_a_smaller_map_come_first(size: tuple[int, int]) -> None:
    alone, flatten = ToFeatures(4, Option.of(size), 2), ToFeatures(4, Option(SIZES, SIZES.index(size)), 2)
    expected, features = alone(draw(size)), flatten(place(draw(size)))
    assert expected.shape == (3, alone.features)
    assert features.shape == (3, flatten.features)
    np.testing.assert_allclose(features[:, : alone.features], expected, atol=1e-6)
    assert not np.any(features[:, alone.features :])
