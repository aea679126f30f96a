"""Attention against NumPy in float64, by data against plain, and with the future changed."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from widths import corner, short, wide

from l2l.nn.attention import KINDS, Attention
from l2l.nn.length import Length
from l2l.nn.option import Option
from l2l.nn.position import POSITIONS

FEATURES, LENGTH = 12, 9
# JAX's softmax of scores is always float32, whatever goes in; the linear form has none.
CLOSE = {"global": 1e-5, "window": 1e-5, "linear": 1e-9}
CASES = [case for case in itertools.product(KINDS, POSITIONS) if case != ("linear", "alibi")]


def make_layer(**options: Any) -> Any:
    """A layer whose norms' scales are no ones."""
    arguments = {"heads": 4, "head_size": 6, "kv_heads": 2, "window": 3, "length": LENGTH} | options
    layer = Attention(FEATURES, rngs=nnx.Rngs(0, params=7), **arguments)
    for norm in (layer.query_norm, layer.key_norm):
        if norm is not None:
            norm.scale[...] = 1.0 + 0.1 * jnp.arange(norm.scale.shape[0])
    layer.eval()
    return layer


def tokens(batch: int = 2, length: int = LENGTH, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, length, FEATURES))


def ragged(batch: int = 2, length: int = LENGTH) -> np.ndarray:
    """Sequences, two tokens shorter from one to the next."""
    return np.arange(length) < np.maximum(length - 2 * np.arange(batch), 1)[:, None]


def reference(layer: Any, x: np.ndarray, mask: np.ndarray, **options: Any) -> np.ndarray:
    """The same layer, one query at a time, in NumPy."""
    weights = {name: np.asarray(getattr(layer, name).kernel[...], np.float64) for name in ("query", "key", "value")}
    positioned = x
    if options["position"] == "learned":
        positioned = x + np.asarray(layer.places[...], np.float64)[: x.shape[1]]
    query, key = (np.einsum("blc,chd->blhd", positioned, weights[name]) for name in ("query", "key"))
    value = np.einsum("blc,chd->blhd", x, weights["value"])
    if options.get("query_key_norm") == "rms":
        scales = (layer.query_norm.scale[...], layer.key_norm.scale[...])
        query, key = (
            heads / np.sqrt((heads**2).mean(-1, keepdims=True) + 1e-6) * np.asarray(scale, np.float64)
            for heads, scale in zip((query, key), scales, strict=True)
        )
    if options["kind"] == "linear":
        query, key = (np.where(heads > 0, heads + 1, np.exp(np.minimum(heads, 0))) for heads in (query, key))
    group = query.shape[2] // key.shape[2]
    y = np.zeros(query.shape)
    for b, h, t in np.ndindex(len(x), query.shape[2], x.shape[1]):
        seen = [s for s in range(x.shape[1]) if mask[b, s] and (s <= t or not options["causal"])]
        if options["kind"] == "window":
            seen = [s for s in seen if abs(t - s) < 3]
        if not seen:
            continue
        keys, values = key[b, seen, h // group], value[b, seen, h // group]
        plain = keys @ query[b, t, h]
        rotated = plain
        if options["position"] == "rotary":
            rotated = np.array([rotate(k, s) @ rotate(query[b, t, h], t) for k, s in zip(keys, seen, strict=True)])
        if options["kind"] == "linear":
            shares = rotated / plain.sum()
        else:
            scores = rotated / np.sqrt(query.shape[3])
            if options["position"] == "alibi":
                scores = scores - 2.0 ** (-8 * (h + 1) / query.shape[2]) * np.abs(t - np.array(seen))
            shares = np.exp(scores - scores.max())
            shares = shares / shares.sum()
        y[b, t, h] = shares @ values
    if options.get("gate"):
        y = y / (1 + np.exp(-np.einsum("blc,chd->blhd", x, np.asarray(layer.gate.kernel[...], np.float64))))
    y = np.einsum("blhd,hdc->blc", y, np.asarray(layer.output.kernel[...], np.float64))
    return y * mask[..., None]


def rotate(features: np.ndarray, position: int) -> np.ndarray:
    """Features as complex numbers, rotated by their position."""
    pairs = features[0::2] + 1j * features[1::2]
    pairs = pairs * np.exp(1j * position * 10_000.0 ** (-np.arange(len(pairs)) * 2 / len(features)))
    return np.stack([pairs.real, pairs.imag], -1).reshape(-1)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("kind", "position"), CASES)
def test_outputs_and_gradients_are_those_of_numpy(kind: str, position: str, causal: bool) -> None:
    extra = {"query_key_norm": "rms", "gate": True} if position in ("rotary", "none") else {}
    options = {"kind": kind, "position": position, "causal": causal, **extra}
    layer, x, mask = make_layer(**options), tokens(), ragged()
    towards, weight = tokens(seed=1), tokens(seed=2)
    with jax.enable_x64(True):
        exact = wide(layer)

        def run(x: Any) -> Any:
            return exact(x, jnp.asarray(mask))

        y, pull = jax.vjp(run, jnp.asarray(x))
        (gradient,) = pull(jnp.asarray(weight))
    np.testing.assert_allclose(y, reference(layer, x, mask, **options), rtol=CLOSE[kind], atol=CLOSE[kind] / 10)
    step = 1e-6
    ends = [reference(layer, x + sign * step * towards, mask, **options) for sign in (1, -1)]
    difference = ((ends[0] - ends[1]) * weight).sum() / (2 * step)
    np.testing.assert_allclose(np.sum(np.asarray(gradient) * towards), difference, rtol=max(CLOSE[kind], 1e-6))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_weights_are_those_of_numpy(kind: str, kv_heads: int) -> None:
    options = {"kind": kind, "position": "rotary", "causal": True, "query_key_norm": "rms", "gate": True}
    layer, x, mask = make_layer(**options, kv_heads=kv_heads), tokens(), ragged()
    weight = tokens(seed=2)
    graph, _ = nnx.split(layer)
    draw = np.random.default_rng(3)
    towards = jax.tree.map(lambda leaf: draw.normal(size=leaf.shape), nnx.state(layer, nnx.Param))
    with jax.enable_x64(True):
        params, rest = nnx.state(wide(layer), nnx.Param), nnx.state(layer, nnx.Not(nnx.Param))

        def run(params: Any) -> Any:
            return jnp.sum(nnx.merge(graph, params, rest)(jnp.asarray(x), jnp.asarray(mask)) * weight)

        gradients = jax.grad(run)(params)
        losses = []
        for sign in (1, -1):
            stepped = jax.tree.map(lambda leaf, way, sign=sign: leaf + sign * 1e-6 * way, params, towards)
            losses.append((reference(nnx.merge(graph, stepped, rest), x, mask, **options) * weight).sum())
    difference = sum(
        float((np.asarray(a) * b).sum())
        for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(towards), strict=True)
    )
    np.testing.assert_allclose(difference, (losses[0] - losses[1]) / 2e-6, rtol=max(CLOSE[kind], 1e-6))


@pytest.mark.parametrize(("kind", "position"), CASES)
def test_bfloat16_is_within_two_percent(kind: str, position: str) -> None:
    options = {"kind": kind, "position": position, "causal": True, "query_key_norm": "rms", "gate": True}
    layer, x, mask = make_layer(**options), tokens(), ragged()
    rounded = short(layer)
    y = rounded(jnp.asarray(x, jnp.bfloat16), jnp.asarray(mask))
    assert y.dtype == jnp.bfloat16
    expected = reference(layer, x, mask, **options)
    assert np.abs(np.asarray(y, np.float64) - expected).max() <= 0.02 * np.abs(expected).max()


@pytest.mark.parametrize(("kind", "position"), CASES)
def test_lanes_are_what_each_is_alone(kind: str, position: str) -> None:
    layers = [
        Attention(
            FEATURES, heads=2, head_size=4, kind=kind, window=3, position=position, length=LENGTH, rngs=nnx.Rngs(n)
        )
        for n in range(3)
    ]
    for layer in layers:
        layer.eval()
    graph, _ = nnx.split(layers[0])
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[nnx.state(layer) for layer in layers])
    x = jnp.asarray(np.stack([tokens(seed=n) for n in range(3)]), jnp.float32)
    together = jax.vmap(lambda state, x: nnx.merge(graph, state)(x))(states, x)
    for layer, inputs, y in zip(layers, x, together, strict=True):
        np.testing.assert_allclose(y, layer(inputs), rtol=1e-4, atol=1e-5)


@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from(CASES), st.integers(1, 150), st.sampled_from([(1, 1), (2, 1), (4, 2), (3, 3)]), st.integers(1, 9),
    st.data(),
)  # fmt: skip
def test_no_token_sees_the_future(
    case: tuple[str, str], length: int, heads: tuple[int, int], window: int, data: st.DataObject
) -> None:
    kind, position = case
    layer = Attention(
        FEATURES, heads=heads[0], kv_heads=heads[1], head_size=4, kind=kind, window=min(window, length),
        position=position, length=length, rngs=nnx.Rngs(0),
    )  # fmt: skip
    layer.eval()
    x = jnp.asarray(tokens(1, length), jnp.float32)
    at = data.draw(st.integers(0, length - 1))
    apply = jax.jit(lambda x: layer(x))
    y, changed = apply(x), apply(x.at[:, at:].add(1.0))
    assert y.shape == x.shape
    assert np.array_equal(y[:, :at], changed[:, :at])
    assert not np.array_equal(y[:, at], changed[:, at])


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_not_seen(kind: str) -> None:
    layer, x = make_layer(kind=kind, causal=False), jnp.asarray(tokens(), jnp.float32)
    mask = jnp.arange(LENGTH) < 5
    alone = layer(x[:, :5])
    padded = layer(x.at[:, 5:].set(9.0), jnp.broadcast_to(mask, x.shape[:2]))
    np.testing.assert_allclose(padded[:, :5], alone, rtol=1e-4, atol=1e-5)
    assert not np.any(padded[:, 5:])


def program(choice: dict[str, Any], causal: bool) -> Any:
    """A layer of which everything is data."""
    layer = Attention(
        Length(16, choice["features"]), heads=Length(8, choice["heads"]), head_size=Length(10, choice["head_size"]),
        kv_heads=Length(8, choice["kv_heads"]), kind=Option(KINDS, choice["kind"]), window=choice["window"],
        position=Option(POSITIONS, choice["position"]), length=LENGTH, causal=causal,
        query_key_norm=Option(("none", "rms"), choice["norm"]), gate=Option((False, True), choice["gate"]),
        rngs=nnx.Rngs(0),
    )  # fmt: skip
    layer.eval()
    return layer


@functools.partial(jax.jit, static_argnums=3)
def run(choice: Any, params: Any, x: Any, causal: bool) -> Any:
    """Its output, and the gradients of the sum of squares by its weights."""

    def squares(params: Any) -> Any:
        layer = program(choice, causal)
        nnx.update(layer, params)
        y = layer(x, jnp.asarray(ragged()))
        return jnp.sum(y**2), y

    gradients, y = jax.grad(squares, has_aux=True)(params)
    return y, gradients


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("kind", "position"), CASES)
@pytest.mark.parametrize(("norm", "gate"), [("none", False), ("rms", True)])
def test_data_choose_what_is_plain_alone(kind: str, position: str, causal: bool, norm: str, gate: bool) -> None:
    plain = make_layer(
        kind=kind, position=position, causal=causal, query_key_norm=norm, gate=gate, heads=4, head_size=6
    )
    choice = {
        "features": FEATURES, "heads": 4, "head_size": 6, "kv_heads": 2, "window": 3, "kind": KINDS.index(kind),
        "position": POSITIONS.index(position), "norm": ("none", "rms").index(norm), "gate": int(gate),
    }  # fmt: skip
    inner = dict(nnx.to_flat_state(nnx.state(plain, nnx.Param)))
    shapes = nnx.to_flat_state(nnx.state(program(choice, causal), nnx.Param))
    weights = nnx.from_flat_state([(path, leaf.replace(corner(inner.get(path), leaf))) for path, leaf in shapes])
    x = np.pad(tokens(), ((0, 0), (0, 0), (0, 4)))
    y, gradients = run(choice, weights, jnp.asarray(x, jnp.float32), causal)
    expected = plain(jnp.asarray(tokens(), jnp.float32), jnp.asarray(ragged()))
    np.testing.assert_allclose(y[..., :FEATURES], expected, atol=2e-6)
    assert not np.any(y[..., FEATURES:])
    for path, gradient in nnx.to_flat_state(gradients):
        own_part = tuple(map(slice, inner[path].shape if path in inner else (0,)))
        assert not np.any(gradient[...].at[own_part].set(0.0)), path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heads": 6, "kv_heads": 4}, "6 heads cannot share 4 kv_heads"),
        ({"kv_heads": 0}, "cannot share 0 kv_heads"),
        ({"head_size": 5}, "head_size must be even"),
        ({"kind": "window", "window": 12}, "longer than the context of 9"),
        ({"kind": "window", "window": 0}, "at least 1 token"),
        ({"kind": "window", "window": None}, "at least 1 token"),
        ({"kind": "linear", "position": "alibi"}, "no scores that alibi"),
        ({"position": "learned", "length": None}, "length of the context"),
        ({"kind": "sparse"}, "expected one of global, window, linear"),
        ({"position": "sine"}, "expected one of none, learned, rotary, alibi"),
        ({"query_key_norm": "l2"}, "expected one of none"),
    ],
)
def test_what_does_not_fit_is_one_sentence(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        make_layer(**options)
    assert "\n" not in str(caught.value)


def test_dropout_is_for_training_alone() -> None:
    layer, x = make_layer(dropout_rate=0.5), jnp.asarray(tokens(), jnp.float32)
    still = layer(x)
    layer.train()
    assert np.mean(np.asarray(layer(x)) == 0.0) > 0.3
    layer.eval()
    assert np.array_equal(layer(x), still)
