"""Layers of which data say how many: what they compute, remember and pass back is that of a plain loop."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from l2l.engine.embedding import crop, embed
from l2l.nn.conditional import call_if
from l2l.nn.dropout import Dropout
from l2l.nn.length import Length
from l2l.nn.stack import Stack, save_residual


class Layer(nnx.Module):
    """A linear map that counts its calls, drops, and adds a penalty."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.drop = Dropout(0.3, rngs=rngs)
        self.calls = nnx.BatchStat(jnp.zeros(()))
        self.size = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, x: jax.Array) -> jax.Array:
        y = jnp.tanh(self.linear(x))
        if not self.drop.deterministic:
            self.calls[...] = self.calls[...] + 1.0
            self.size[...] = jnp.sum(y * y)
        return self.drop(y)


class Wide(Layer):
    """The same in another shape."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        super().__init__(rngs)
        self.more = nnx.Linear(4, 7, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x) + self.more(x).sum(-1, keepdims=True)


class If(nnx.Module):
    """A layer that takes whether it is in use."""

    def __init__(self, kind: type[Layer], rngs: nnx.Rngs) -> None:
        self.layer = kind(rngs)

    def __call__(self, x: jax.Array, reached: Any = True) -> jax.Array:
        return save_residual(call_if(reached, [self.layer], x, recompute=True))


def stack(kinds: list[type[Layer]], depth: Any) -> Stack:
    return Stack([If(kind, nnx.Rngs(n, params=n, dropout=n)) for n, kind in enumerate(kinds)], depth)


def run_twice(model: Stack) -> tuple[Any, Any, Any]:
    """Output, gradients and what the layers remember, after two calls, of the penalty's gradients too."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def run(params: Any, rest: Any) -> Any:
        def loss(params: Any) -> Any:
            module = nnx.merge(graph, params, rest, copy=True)
            x = jnp.arange(8.0).reshape(2, 4) / 8
            y = module(module(x))
            state = nnx.state(module, nnx.Not(nnx.Param))
            sizes = [leaf for path, leaf in nnx.to_flat_state(state) if path[-1] == "size"]
            return jnp.sum(y**2) + 0.1 * sum(jnp.sum(size.get_value()) for size in sizes), (y, state)

        return jax.grad(loss, has_aux=True)(params)

    gradients, (y, state) = run(params, rest)
    return y, gradients, state


@pytest.mark.parametrize("kinds", [[Layer] * 4, [Layer, Wide, Layer, Layer]])
@pytest.mark.parametrize("depth", [1, 3, 4])
def test_data_and_a_plain_loop_agree(kinds: list[type[Layer]], depth: int) -> None:
    plain, shared = stack(kinds[:depth], depth), stack(kinds, Length(4, jnp.int32(depth)))
    assert (shared.l2l_stacked is None) == (Wide in kinds)
    y, gradients, state = run_twice(plain)
    shared_y, shared_gradients, shared_state = run_twice(shared)
    np.testing.assert_allclose(shared_y, y, rtol=1e-6, atol=1e-6)
    for large, small in ((shared_gradients, gradients), (shared_state, state)):
        cut = crop(large, small)
        for (path, one), (_, other) in zip(nnx.to_flat_state(small), nnx.to_flat_state(cut), strict=True):
            np.testing.assert_allclose(other.get_value(), one.get_value(), rtol=1e-5, atol=1e-5, err_msg=str(path))
    # Nothing of a layer beyond the depth was used: its gradients and what it counts are zero.
    for path, leaf in nnx.to_flat_state(crop(shared_gradients, nnx.state(stack(kinds, 4), nnx.Param))):
        number = next(key for key in path if isinstance(key, int))
        assert number < depth or not np.any(leaf.get_value()), path


def test_layers_are_stacked_and_cut_apart_again() -> None:
    plain, shared = stack([Layer] * 2, 2), stack([Layer] * 3, Length(3, jnp.int32(2)))
    small, large = nnx.state(plain, nnx.Param), nnx.state(shared, nnx.Param)
    embedded = embed(small, large)
    for path, leaf in nnx.to_flat_state(embedded):
        assert leaf.get_value().shape[0] == 3
        assert not np.any(leaf.get_value()[2]), path
    for (path, one), (_, other) in zip(
        nnx.to_flat_state(small), nnx.to_flat_state(crop(embedded, small)), strict=True
    ):  # fmt: skip
        np.testing.assert_array_equal(one.get_value(), other.get_value(), err_msg=str(path))


def test_equal_layers_are_one_in_the_program() -> None:
    def tanhs(count: int) -> int:
        graph, state = nnx.split(stack([Layer] * count, Length(count, jnp.int32(1))))
        jaxpr = jax.make_jaxpr(lambda x: nnx.merge(graph, state, copy=True)(x))(jnp.ones((2, 4)))
        return str(jaxpr).count("tanh")

    assert tanhs(2) == tanhs(6) > 0


def test_nothing_is_remembered_in_evaluation() -> None:
    model = stack([Layer] * 3, Length(3, jnp.int32(2)))
    model.eval()
    y = jax.lax.map(lambda x: model(x), jnp.ones((5, 2, 4)))  # would fail if a variable were written to
    np.testing.assert_allclose(y[0], y[4])


def test_lanes_agree_with_one_alone() -> None:
    graph, params, rest = nnx.split(stack([Layer] * 3, Length(3, jnp.int32(0))), nnx.Param, ...)
    x = jnp.arange(8.0).reshape(2, 4) / 8

    def gradient(depth: Any) -> Any:
        def loss(params: Any) -> Any:
            model = nnx.merge(graph, params, rest, copy=True)
            model.depth = Length(3, depth)
            return jnp.sum(model(x) ** 2)

        return jax.grad(loss)(params)

    together = jax.vmap(gradient)(jnp.arange(4))
    for depth in range(4):
        for one, other in zip(jax.tree.leaves(gradient(depth)), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(other[depth], one, rtol=1e-5, atol=1e-6)
