"""Layers of which data say how many: what they compute, remember and pass back is that of a plain loop."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from l2l.nn.dropout import Dropout
from l2l.nn.padded import Bound
from l2l.nn.stack import through


class Layer(nnx.Module):
    """A linear map that counts its calls and drops."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.drop = Dropout(0.3, rngs=rngs)
        self.calls = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, x: jax.Array) -> jax.Array:
        if not self.drop.deterministic:
            self.calls[...] = self.calls[...] + 1.0
        return self.drop(jnp.tanh(self.linear(x)))


class Wide(Layer):
    """The same in a shape of its own."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        super().__init__(rngs)
        self.more = nnx.Linear(4, 7, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x) + self.more(x).sum(-1, keepdims=True)


class Stack(nnx.Module):
    def __init__(self, kinds: list[type[Layer]], depth: Any) -> None:
        self.layers = nnx.List([kind(nnx.Rngs(n, params=n, dropout=n)) for n, kind in enumerate(kinds)])
        self.depth = depth

    def __call__(self, x: jax.Array) -> jax.Array:
        return through(self.layers, self.depth, x)


def ran(model: Stack) -> Any:
    """Output, slopes and what the layers remember, after two calls."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def run(params: Any, rest: Any) -> Any:
        def loss(params: Any) -> Any:
            held = nnx.merge(graph, params, rest, copy=True)
            x = jnp.arange(8.0).reshape(2, 4) / 8
            y = held(held(x))
            kept = [(layer.calls[...], layer.drop.calls[...]) for layer in held.layers]
            return jnp.sum(y**2), (y, kept)

        return jax.grad(loss, has_aux=True)(params)

    slopes, (y, kept) = run(params, rest)
    return y, [jax.tree.leaves(nnx.state(slopes["layers"][n])) for n in range(len(model.layers))], kept


@pytest.mark.parametrize("kinds", [[Layer] * 4, [Layer, Wide, Layer, Layer]])
@pytest.mark.parametrize("depth", [1, 3, 4])
def test_data_and_a_plain_loop_agree(kinds: list[type[Layer]], depth: int) -> None:
    own, shared = Stack(kinds[:depth], depth), Stack(kinds, Bound(jnp.int32(depth)))
    y, slopes, kept = ran(own)
    found, others, remembered = ran(shared)
    np.testing.assert_allclose(found, y, rtol=1e-6)
    for mine, theirs in zip(slopes, others, strict=False):
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)
    assert remembered[:depth] == kept
    assert all(calls == 0 for layer in remembered[depth:] for calls in layer)
    assert not any(np.any(leaf) for layer in others[depth:] for leaf in layer)


def test_equal_layers_are_one_in_the_program() -> None:
    def equations(count: int) -> int:
        model = Stack([Layer] * count, Bound(jnp.int32(1)))
        return len(
            str(jax.make_jaxpr(lambda x: nnx.merge(*nnx.split(model), copy=True)(x))(jnp.ones((2, 4)))).split("tanh")
        )

    assert equations(2) == equations(6)


def test_nothing_is_remembered_in_evaluation() -> None:
    model = Stack([Layer] * 3, Bound(jnp.int32(2)))
    model.eval()
    y = jax.lax.map(lambda x: model(x), jnp.ones((5, 2, 4)))  # would fail if a variable were written to
    np.testing.assert_allclose(y[0], y[4])
