"""The cost model: operations are counted right."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from l2l.engine import cost
from l2l.nn.attention import Attention
from l2l.nn.moe import MixtureOfExperts
from l2l.types import Spec
from search_spaces import cnn, mlp, moe

SPEC = Spec((8, 8, 1), 10, 1000, 5)


def choose_values(space: Any, **fixed: Any) -> dict[str, Any]:
    return dict(space.complete(lambda name, choice: fixed.get(name, choice.value_at(0.0))).values)


def test_operations_of_a_perceptron() -> None:
    operations = cost.count_training_operations(
        mlp.space(), choose_values(mlp.space(), depth=2, layer1_width=32, layer2_width=64), SPEC
    )
    assert operations == 3 * 2 * (64 * 32 + 32 * 64 + 64 * 10) * 1000 * 5


def test_operations_of_a_convolutional_network() -> None:
    # One layer on 8x8, pooled to 4x4 before the head.
    operations = cost.count_training_operations(
        cnn.space(), choose_values(cnn.space(), depth=1, layer1_filters=16, layer1_kernel=5), SPEC
    )
    assert operations == 3 * 2 * (64 * 25 * 16 + 16 * 16 * 10) * 1000 * 5


def test_operations_of_experts_grow_with_the_choices_of_a_token_and_not_with_the_experts() -> None:
    for experts, k in ((4, 1), (16, 1), (16, 2)):
        layer = MixtureOfExperts(32, experts=experts, width=48, k=k, rngs=nnx.Rngs(0))
        layer.eval()
        operations = cost.count_operations(
            jax.make_jaxpr(lambda x, layer=layer: layer(x))(jnp.zeros((4, 64, 32))).jaxpr
        )
        assert operations == 256 * (2 * 32 * experts + k * 2 * 2 * 32 * 48)


def test_operations_of_experts_are_the_same_on_every_device(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[float] = []
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        jax.clear_caches()
        layer = MixtureOfExperts(32, experts=16, width=48, k=2, rngs=nnx.Rngs(0))
        layer.eval()
        counts.append(
            cost.count_operations(jax.make_jaxpr(lambda x, layer=layer: layer(x))(jnp.zeros((4, 64, 32))).jaxpr)
        )
    monkeypatch.undo()
    jax.clear_caches()
    assert counts[0] == counts[1] == 256 * (2 * 32 * 16 + 2 * 2 * 2 * 32 * 48)


def test_the_noise_of_a_router_is_counted_in_training_alone() -> None:
    text = Spec((12,), 5, 1000, 2, 5, (12,))
    plain, noisy = (
        cost.measure_cost(space, choose_values(space, depth=1, layer1_forward="experts"), text)
        for router in ("softmax", "noisy")
        for space in [moe.space(depth=(1, 1), widths=(8,), forward=("experts",), experts=(4,), routers=(router,))]
    )
    assert noisy.flops == plain.flops
    assert noisy.train_flops - plain.train_flops == 3 * 1000 * 2 * 12 * 2 * 8 * 4
    assert plain.train_flops == 3 * 1000 * 2 * plain.flops


def test_operations_of_attention_are_those_that_xla_counts() -> None:
    layer = Attention(32, heads=4, kv_heads=2, head_size=8, position="none", rngs=nnx.Rngs(0))
    layer.eval()
    x = jnp.zeros((2, 64, 32))
    operations = cost.count_operations(jax.make_jaxpr(lambda x: layer(x))(x).jaxpr)
    assert operations == 2 * 2 * 64 * (2 * 32 * 32 + 2 * 32 * 16) + 2 * 2 * 2 * 64 * 64 * 32
    # XLA counts the softmax, too.
    counted: Any = jax.jit(lambda x: layer(x)).lower(x).cost_analysis()
    assert operations <= counted["flops"] <= 1.2 * operations
