"""Mixtures of experts against NumPy in float64, by data against plain, and what a token's result depends on."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from widths import corner, short, wide

from l2l.nn.length import Length
from l2l.nn.moe import Measure, MixtureOfExperts, Penalty
from l2l.nn.option import Option
from l2l.nn.router import ROUTERS

FEATURES, WIDTH, EXPERTS, LENGTH = 6, 5, 4, 10
BOUND = ("softmax", "sigmoid")
"""The routers that see no later token and draw no noise."""


def make_layer(**options: Any) -> Any:
    arguments = {
        "experts": EXPERTS,
        "width": WIDTH,
        "k": 2,
        "causal": False,
        "activation": "tanh",
        "room": 1.0,
    } | options
    layer = MixtureOfExperts(FEATURES, rngs=nnx.Rngs(0, params=3), **arguments)
    layer.train()
    return layer


def tokens(batch: int = 3, length: int = LENGTH, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, length, FEATURES))


def ragged(batch: int = 3, length: int = LENGTH) -> np.ndarray:
    return np.arange(length) < np.maximum(length - 3 * np.arange(batch), 1)[:, None]


def softmax(x: np.ndarray) -> np.ndarray:
    shares = np.exp(x - x.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def routed(router: str, logits: np.ndarray, mask: np.ndarray, k: int, room: float | None) -> list[tuple[Any, ...]]:
    """Group, token, expert, weight of what there is room for, and of what is dropped: the weight None."""
    entries: list[tuple[Any, ...]] = []
    length, experts = logits.shape[1:]
    capacity = max(math.ceil(k * length * (1.0 if router == "expert_choice" else room or 1e9) / experts - 1e-4), 1)
    shares = softmax(logits)
    for g in range(len(logits)):
        if router == "expert_choice":
            for e in range(experts):
                preferred = np.argsort(np.where(mask[g], -shares[g, :, e], 1.0), kind="stable")[:capacity]
                entries += [(g, t, e, shares[g, t, e]) for t in preferred if mask[g, t]]
            continue
        taken = [0] * experts
        for t in np.flatnonzero(mask[g]):
            chosen = np.argsort(-logits[g, t], kind="stable")[:k]
            weights = {
                "softmax": shares[g, t, chosen],
                "noisy": softmax(logits[g, t, chosen]),
                "sigmoid": 1 / (1 + np.exp(-logits[g, t, chosen])),
            }[router]
            for e, weight in zip(chosen, weights, strict=True):
                taken[e] += 1
                entries.append((g, t, e, weight if taken[e] <= capacity else None))
    return entries


def reference(layer: Any, x: np.ndarray, mask: np.ndarray, router: str, k: int = 2, room: float | None = 1.0) -> Any:
    """The dense form: every token through every expert that it is sent to, one at a time; and what is measured."""
    kernel, inner, outer = (
        np.asarray(weights[...], np.float64) for weights in (layer.router.kernel, layer.inner, layer.outer)
    )
    logits = x @ kernel
    y, sent = np.zeros(x.shape), routed(router, logits, mask, k, room)
    for g, t, e, weight in sent:
        if weight is not None:
            y[g, t] += weight * (np.tanh(x[g, t] @ inner[e]) @ outer[e])
    if layer.shared_inner is not None:
        first, last = (np.asarray(layer.kernel[...], np.float64) for layer in (layer.shared_inner, layer.shared_outer))
        y = y + np.tanh(x @ first) @ last
    load = np.bincount([e for _, _, e, _ in sent], minlength=kernel.shape[1]) / len(sent)
    probabilities = softmax(logits)
    if router == "sigmoid":
        probabilities = 1 / (1 + np.exp(-logits))
        probabilities = probabilities / probabilities.sum(-1, keepdims=True)
    squares = np.log(np.exp(logits).sum(-1)) ** 2
    imbalance = 0.0 if router == "expert_choice" else kernel.shape[1] * (probabilities[mask].mean(0) * load).sum()
    measured = {
        "expert_load": load,
        "expert_load_max": load.max() * len(load),
        "expert_load_min": load.min() * len(load),
        "drop_rate": np.mean([weight is None for *_, weight in sent]),
        "router_entropy": -(probabilities * np.log(probabilities)).sum(-1)[mask].mean(),
        "penalty": 0.01 * imbalance + 0.001 * squares[mask].mean(),
    }
    return y * mask[..., None], measured


@pytest.mark.parametrize(("k", "room", "shared"), [(1, 1.0, False), (2, 1.25, True), (2, None, False), (4, 0.5, True)])
@pytest.mark.parametrize("router", ROUTERS)
def test_outputs_gradients_and_measures_are_those_of_numpy(
    router: str, k: int, room: float | None, shared: bool
) -> None:
    layer, x, mask = make_layer(router=router, k=k, room=room, shared=shared), tokens(), ragged()
    towards, weight = tokens(seed=1), tokens(seed=2)
    with jax.enable_x64(True):
        exact = wide(layer)
        exact.router.deterministic = True

        def run(x: Any) -> Any:
            return nnx.merge(*nnx.split(exact), copy=True)(x, jnp.asarray(mask))

        y, pull = jax.vjp(run, jnp.asarray(x))
        (gradient,) = pull(jnp.asarray(weight))
        exact(jnp.asarray(x), jnp.asarray(mask))
    expected, measured = reference(layer, x, mask, router, k, room)
    np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-12)
    for name, value in measured.items():
        np.testing.assert_allclose(getattr(exact, name)[...], value, rtol=1e-6, atol=1e-8, err_msg=name)
    ends = [reference(layer, x + sign * 1e-6 * towards, mask, router, k, room)[0] for sign in (1, -1)]
    difference = ((ends[0] - ends[1]) * weight).sum() / 2e-6
    np.testing.assert_allclose(np.sum(np.asarray(gradient) * towards), difference, rtol=1e-6)


@pytest.mark.parametrize("router", ROUTERS)
def test_gradients_of_weights_are_those_of_numpy(router: str) -> None:
    layer, x, mask, weight = make_layer(router=router, shared=True), tokens(), ragged(), tokens(seed=2)
    layer.router.deterministic = True
    graph, _ = nnx.split(layer)
    draw = np.random.default_rng(5)
    with jax.enable_x64(True):
        params, rest = (nnx.state(wide(layer), kind) for kind in (nnx.Param, nnx.Not(nnx.Param)))
        towards = jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape)), params)

        def run(params: Any) -> Any:
            module = nnx.merge(graph, params, rest, copy=True)
            return jnp.sum(module(jnp.asarray(x), jnp.asarray(mask)) * weight) + module.penalty[...]

        gradients = jax.grad(run)(params)
        losses: list[float] = []
        for sign in (1, -1):
            stepped = jax.tree.map(lambda leaf, way, sign=sign: leaf + sign * 1e-6 * way, params, towards)
            y, measured = reference(nnx.merge(graph, stepped, rest), x, mask, router)
            losses.append((y * weight).sum() + measured["penalty"])
    pairs = zip(jax.tree.leaves(gradients), jax.tree.leaves(towards), strict=True)
    difference = sum(float((np.asarray(a) * np.asarray(b)).sum()) for a, b in pairs)
    np.testing.assert_allclose(difference, (losses[0] - losses[1]) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize("router", ROUTERS)
def test_bfloat16_is_within_two_percent(router: str) -> None:
    layer, x, mask = make_layer(router=router, room=None), tokens(), ragged()
    layer.eval()
    rounded = short(layer)
    # Rounded first, so that both send each token to the same experts.
    x = np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)
    y = rounded(jnp.asarray(x, jnp.bfloat16), jnp.asarray(mask))
    assert y.dtype == jnp.bfloat16
    expected, _ = reference(rounded, x, mask, router, room=None)
    assert np.abs(np.asarray(y, np.float64) - expected).max() <= 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("router", ROUTERS)
def test_lanes_are_what_each_is_alone(router: str) -> None:
    layers = [
        MixtureOfExperts(FEATURES, experts=4, width=5, k=2, router=router, causal=False, rngs=nnx.Rngs(n))
        for n in range(3)
    ]
    for layer in layers:
        layer.train()
    graph, _ = nnx.split(layers[0])
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[nnx.state(layer) for layer in layers])
    x = jnp.asarray(np.stack([tokens(seed=n) for n in range(3)]), jnp.float32)

    def run(state: Any, x: Any) -> Any:
        layer = nnx.merge(graph, state, copy=True)
        return jnp.sum(layer(x) ** 2) + layer.penalty[...]

    together = jax.vmap(run)(states, x)
    alone = [run(nnx.state(layer), inputs) for layer, inputs in zip(layers, x, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=1e-5)


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(BOUND), st.integers(1, 40), st.integers(1, 4), st.sampled_from([0.5, 1.0, None]), st.data())
def test_no_token_sees_the_future_or_another_sequence(
    router: str, length: int, k: int, room: float | None, data: st.DataObject
) -> None:
    layer = make_layer(router=router, k=k, room=room, causal=True)
    layer.eval()
    x = jnp.asarray(tokens(2, length), jnp.float32)
    at = data.draw(st.integers(0, length - 1))
    apply = jax.jit(lambda x: layer(x))
    y, changed = apply(x), apply(x.at[0, at:].add(1.0))
    assert np.array_equal(y[0, :at], changed[0, :at])
    assert np.array_equal(y[1], changed[1])
    np.testing.assert_allclose(apply(x[1:])[0], y[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("router", ROUTERS)
def test_padding_is_not_computed_and_takes_no_place(router: str) -> None:
    layer, x = make_layer(router=router, room=0.5), jnp.asarray(tokens(), jnp.float32)
    layer.eval()
    mask = jnp.asarray(ragged())
    y, other = layer(x, mask), layer(jnp.where(mask[..., None], x, 50.0), mask)
    np.testing.assert_array_equal(y, other)
    assert not np.any(y[~np.asarray(mask)])


def program(choice: dict[str, Any]) -> Any:
    """A layer of which everything is data."""
    layer = MixtureOfExperts(
        Length(8, choice["features"]), experts=Length(6, choice["experts"]), width=Length(7, choice["width"]),
        k=Option((1, 2, 3), choice["k"]), router=Option(ROUTERS, choice["router"]), room=choice["room"],
        shared=Option((False, True), choice["shared"]), activation=Option(("gelu", "tanh"), 1), balance_weight=0.01,
        causal=False, rngs=nnx.Rngs(0),
    )  # fmt: skip
    layer.train()
    return layer


@jax.jit
def run(choice: Any, params: Any, x: Any) -> Any:
    """Its output, what it measured, and gradients by its weights."""

    def squares(params: Any) -> Any:
        layer = program(choice)
        nnx.update(layer, params)
        y = layer(x, jnp.asarray(ragged()))
        return jnp.sum(y**2) + layer.penalty[...], (y, nnx.to_pure_dict(nnx.state(layer, Measure)))

    gradients, (y, measured) = jax.grad(squares, has_aux=True)(params)
    return y, measured, gradients


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("k", "room"), [(1, 1.0), (2, 1.2), (3, 0.5)])
@pytest.mark.parametrize("router", ["softmax", "sigmoid", "expert_choice"])
def test_data_choose_what_is_plain_alone(router: str, k: int, room: float, shared: bool) -> None:
    plain = make_layer(router=router, k=k, room=room, shared=shared)
    choice = {
        "features": FEATURES, "experts": EXPERTS, "width": WIDTH, "k": k - 1, "router": ROUTERS.index(router),
        "room": jnp.float32(room), "shared": int(shared),
    }  # fmt: skip
    inner = dict(nnx.to_flat_state(nnx.state(plain, nnx.Param)))
    shapes = nnx.to_flat_state(nnx.state(program(choice), nnx.Param))
    weights = nnx.from_flat_state([(path, leaf.replace(corner(inner.get(path), leaf))) for path, leaf in shapes])
    x = np.pad(tokens(), ((0, 0), (0, 0), (0, 2)))
    y, measured, gradients = run(choice, weights, jnp.asarray(x, jnp.float32))
    expected = plain(jnp.asarray(tokens(), jnp.float32), jnp.asarray(ragged()))
    np.testing.assert_allclose(y[..., :FEATURES], expected, atol=2e-6)
    assert not np.any(y[..., FEATURES:])
    for name, value in measured.items():
        np.testing.assert_allclose(
            value[:EXPERTS] if value.ndim else value, getattr(plain, name)[...], rtol=1e-5, atol=1e-6
        )
    for path, gradient in nnx.to_flat_state(gradients):
        part = tuple(map(slice, inner[path].shape if path in inner else (0,)))
        assert not np.any(gradient[...].at[part].set(0.0)), path


def test_noise_is_drawn_in_training_alone_and_is_learnt() -> None:
    layer, x = make_layer(router="noisy", k=1, experts=16), jnp.asarray(tokens(), jnp.float32)
    layer.router.noise[...] = layer.router.noise[...] + 1.0
    calls = [layer.router(x)[1].expert for _ in range(2)]
    assert not np.array_equal(*calls)
    layer.eval()
    assert np.array_equal(*[layer.router(x)[1].expert for _ in range(2)])
    layer.train()
    layer = make_layer(router="noisy", k=2)
    graph, params, rest = nnx.split(layer, nnx.Param, ...)
    gradients = jax.grad(lambda params: jnp.sum(nnx.merge(graph, params, rest, copy=True)(x) ** 2))(params)
    assert np.any(gradients["router"]["noise"][...])


def test_what_is_left_behind_is_of_training() -> None:
    layer, x = make_layer(), jnp.asarray(tokens(), jnp.float32)
    layer.eval()
    layer(x)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(nnx.state(layer, (Measure, Penalty))))
    layer.train()
    layer(x)
    assert layer.penalty[...] > 0
    np.testing.assert_allclose(jnp.sum(layer.expert_load[...]), 1.0, rtol=1e-6)


@pytest.mark.slow
def test_experts_on_four_devices_give_what_they_give_together() -> None:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, Path(__file__).with_name("sharded.py")]
    process = subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-3000:]
    assert float(process.stdout) < 1e-5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": 5}, "k=5 experts a token: expected from 1 to the number of experts, 4"),
        ({"k": 0}, "k=0 experts a token"),
        ({"router": "hash"}, "expected one of softmax, noisy, sigmoid, expert_choice"),
        ({"router": "expert_choice", "causal": True}, "causal model must not see"),
        ({"experts": 64, "k": 1, "length": 16}, "capacity under one token"),
        ({"activation": "swish"}, "expected one of relu"),
    ],
)
def test_what_does_not_fit_is_one_sentence(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        make_layer(**options)
    assert "\n" not in str(caught.value)
