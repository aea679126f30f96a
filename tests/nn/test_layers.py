"""Layers against plain references."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from l2l.nn import conv
from l2l.nn.blocks import Standardised
from l2l.nn.conv import convolve_patches
from l2l.nn.dropout import Dropout, make_dropout, mix_bits
from l2l.nn.initial import he_normal
from l2l.nn.norm import make_norm
from l2l.nn.pool import pool


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.integers(1, 3),
    padding=st.sampled_from(["SAME", "VALID", ((0, 2), (3, 1))]),
)
def test_convolution_equals_lax(size, kernel, stride, padding) -> None:
    if padding != "SAME" and (kernel[0] > size[0] or kernel[1] > size[1]):
        return
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.normal(size=(2, *size, 3)), jnp.float32)
    w = jnp.asarray(draw.normal(size=(*kernel, 3, 4)), jnp.float32)
    numbers = lax.conv_dimension_numbers(x.shape, w.shape, ("NHWC", "HWIO", "NHWC"))

    def reference(x, w):
        return lax.conv_general_dilated(x, w, (stride, stride), padding, dimension_numbers=numbers)

    def convolve(x, w):
        return convolve_patches(x, w, (stride, stride), padding, dimension_numbers=numbers)

    @jax.jit  # one program for each example
    def outputs_and_gradients(x, w):
        outputs, pull = jax.vjp(convolve, x, w)
        expected, pull_reference = jax.vjp(reference, x, w)
        weight = jnp.sin(jnp.arange(expected.size, dtype=jnp.float32)).reshape(expected.shape)
        return (outputs, expected), tuple(zip(pull(weight), pull_reference(weight), strict=True))

    (outputs, expected), gradients = outputs_and_gradients(x, w)
    np.testing.assert_allclose(outputs, expected, atol=1e-4)
    for left, right in gradients:
        np.testing.assert_allclose(left, right, atol=1e-3)


@pytest.mark.parametrize("batch", [1, 6, 7])
def test_images_in_parts_give_what_they_give_at_once(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    x, w = (jnp.asarray(draw.normal(size=size), jnp.float32) for size in ((batch, 6, 7, 3), (3, 3, 3, 4)))

    def loss(x, w):
        return jnp.sum(jnp.sin(convolve_patches(x, w, (1, 1), "SAME")))

    whole = jax.value_and_grad(loss, (0, 1))(x, w)
    assert "scan" not in str(jax.make_jaxpr(jax.grad(loss))(x, w))
    monkeypatch.setattr(conv, "LARGE", 0)
    monkeypatch.setattr(conv, "PART", 2 * 6 * 7 * 27 * 4)  # two images
    parts = jax.value_and_grad(loss, (0, 1))(x, w)
    assert ("scan" in str(jax.make_jaxpr(jax.grad(loss))(x, w))) == (batch > 1)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-5), parts, whole)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "scan" not in str(jax.make_jaxpr(jax.grad(loss))(x, w))


def test_grouped_convolution_goes_to_lax() -> None:
    x, w = jnp.ones((1, 5, 5, 4)), jnp.ones((3, 3, 1, 4))
    numbers = lax.conv_dimension_numbers(x.shape, w.shape, ("NHWC", "HWIO", "NHWC"))
    options = {"dimension_numbers": numbers, "feature_group_count": 4}
    np.testing.assert_array_equal(
        convolve_patches(x, w, (1, 1), "SAME", **options), lax.conv_general_dilated(x, w, (1, 1), "SAME", **options)
    )


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("window", [2, 3])
@pytest.mark.parametrize("kind", ["max", "average"])
def test_pool_equals_flax(side: int, window: int, kind: str) -> None:
    x = jnp.asarray(np.random.default_rng(side).normal(size=(2, side, side + 1, 3)), jnp.float32)
    options = {"window_shape": (window, window), "strides": (window, window)}
    # Flax pads SAME on both sides; ours ends with the incomplete window, which is padding on the far side alone.
    far = [(0, -length % window) for length in x.shape[1:3]]
    if kind == "max":
        expected = nnx.max_pool(x, **options, padding=far)
    else:
        expected = nnx.avg_pool(x, **options, padding=far, count_include_pad=False)
    np.testing.assert_allclose(pool(kind, x, window), expected, atol=1e-6)


def test_pool_none_is_the_identity() -> None:
    x = jnp.ones((1, 3, 3, 2))
    assert pool("none", x) is x


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_the_share(rate: float) -> None:
    layer = Dropout(jnp.float32(rate), rngs=nnx.Rngs(0))
    x = jnp.ones((400, 250))
    first, second = layer(x), layer(x)
    share = float((first != 0).mean())
    assert abs(share - (1 - rate)) < 4 * (rate * (1 - rate) / x.size) ** 0.5 + 1e-6
    assert abs(float(first.mean()) - 1) < 0.05
    if rate:
        assert (first != second).any()
        rows, columns = np.asarray(first != 0).mean(0), np.asarray(first != 0).mean(1)
        assert rows.std() < 2 * (rate * (1 - rate) / 400) ** 0.5
        assert columns.std() < 2 * (rate * (1 - rate) / 250) ** 0.5
    layer.eval()
    np.testing.assert_array_equal(layer(x), x)


def test_dropout_mask_of_a_narrow_layer_begins_that_of_a_wide_one() -> None:
    wide, narrow = (Dropout(jnp.float32(0.5), rngs=nnx.Rngs(1)) for _ in range(2))
    np.testing.assert_array_equal(wide(jnp.ones((8, 6)))[:, :4], narrow(jnp.ones((8, 4))))


def test_dropout_streams_differ() -> None:
    rngs = nnx.Rngs(0)
    one, two = Dropout(jnp.float32(0.5), rngs=rngs), Dropout(jnp.float32(0.5), rngs=rngs)
    assert (one(jnp.ones((8, 8))) != two(jnp.ones((8, 8)))).any()


def test_dropout_of_a_plain_number_is_the_stock_layer() -> None:
    assert isinstance(make_dropout(0.1, rngs=nnx.Rngs(0)), nnx.Dropout)
    assert isinstance(make_dropout(jnp.float32(0.1), rngs=nnx.Rngs(0)), Dropout)


def test_mix_is_a_bijection_on_a_sample() -> None:
    words = jnp.arange(1 << 16, dtype=jnp.uint32)
    assert len(np.unique(np.asarray(mix_bits(words)))) == 1 << 16


@pytest.mark.parametrize("shape", [(64, 32), (3, 3, 8, 16)])
def test_he_normal_has_its_variance_and_is_a_function_of_the_key(shape) -> None:
    key = jax.random.key(0)
    sample = np.asarray(he_normal(key, shape))
    expected = 2 / np.prod(shape[:-1])
    assert abs(sample.var() / expected - 1) < 0.15
    np.testing.assert_array_equal(sample, he_normal(key, shape))
    assert (sample != he_normal(jax.random.key(1), shape)).any()
    assert jax.eval_shape(lambda k: he_normal(k, shape), key).shape == shape


def test_standardised_takes_raw_inputs_of_any_dtype() -> None:
    model = Standardised(lambda x: x, np.array([2.0]), np.array([4.0]))
    np.testing.assert_allclose(model(np.array([[6]], np.uint8)), [[1.0]])


def test_norm_by_name() -> None:
    assert make_norm("none", 3, rngs=nnx.Rngs(0)) is None
    assert isinstance(make_norm("batch", 3, rngs=nnx.Rngs(0)), nnx.BatchNorm)
    assert isinstance(make_norm("layer", 3, rngs=nnx.Rngs(0)), nnx.LayerNorm)
