"""The parts of built-in spaces."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l.nn.blocks import ACTIVATIONS, activate, resize_features
from l2l.nn.option import Option


@pytest.mark.parametrize("features", [2, 3, 5])
def test_resizing_cuts_or_fills_with_zeros(features: int) -> None:
    x = jnp.arange(6.0).reshape(2, 3)
    expected = np.zeros((2, features))
    expected[:, : min(features, 3)] = np.asarray(x)[:, : min(features, 3)]
    np.testing.assert_array_equal(resize_features(x, features), expected)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_the_named_function_forwards_and_backwards(name: str) -> None:
    x = jnp.linspace(-3.0, 3.0, 31)
    index = jnp.int32(list(ACTIVATIONS).index(name))
    differentiate = jax.jit(lambda index, x: jax.vjp(lambda x: activate(Option(ACTIVATIONS, index), x), x))
    value, pull = differentiate(index, x)
    expected, expected_pull = jax.vjp(ACTIVATIONS[name], x)
    np.testing.assert_allclose(value, expected, atol=1e-6)
    np.testing.assert_allclose(pull(jnp.cos(x))[0], expected_pull(jnp.cos(x))[0], atol=1e-6)
