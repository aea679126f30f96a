"""Modules that run only where data ask for them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from l2l.nn.conditional import call_if
from l2l.nn.length import Length


class Counting(nnx.Module):
    """Doubles its input and counts its calls."""

    def __init__(self) -> None:
        self.calls = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Any shape to the same."""
        self.calls[...] = self.calls[...] + 1.0
        return 2.0 * x


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("recompute", [False, True])
def test_parts_beyond_the_length_change_nothing(length: int, recompute: bool) -> None:
    @jax.jit
    def run(length: jax.Array, x: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        parts = [Counting() for _ in range(3)]
        depth = Length(3, length)
        for n, part in enumerate(parts, 1):
            x = call_if(depth.reaches(n), [part], x, recompute=recompute)
        return x, [part.calls[...] for part in parts]

    y, calls = run(jnp.int32(length), jnp.ones(4))
    np.testing.assert_array_equal(y, np.full(4, 2.0**length))
    assert [float(count) for count in calls] == [1.0] * length + [0.0] * (3 - length)
    assert float(call_if(Length(2).reaches(2), [Counting()], jnp.ones(()))) == 2.0
    assert float(call_if(Length(2).reaches(5), [Counting()], jnp.ones(()))) == 1.0


class Scaling(nnx.Module):
    """Multiplies its input by a weight and an integer, and counts its calls in an integer."""

    def __init__(self) -> None:
        self.weight = nnx.Param(jnp.float32(3.0))
        self.calls = nnx.BatchStat(jnp.int32(1))

    def __call__(self, x: jax.Array, times: jax.Array) -> jax.Array:
        """Any shape to the same."""
        self.calls[...] = self.calls[...] + 1
        return jnp.sin(self.weight[...] * times * x)


@pytest.mark.parametrize("flag", [False, True])
def test_a_recomputed_call_has_the_gradients_of_a_plain_one(flag: bool) -> None:
    graph, params, rest = nnx.split(Scaling(), nnx.Param, ...)

    def run(params: nnx.State, x: jax.Array, flag: bool | jax.Array) -> tuple[jax.Array, jax.Array]:
        module = nnx.merge(graph, params, rest, copy=True)
        y = call_if(flag, [module], x, jnp.int32(2), recompute=True)
        return jnp.sum(y**2), module.calls[...]

    x = jnp.arange(3.0)
    results = jax.jit(jax.value_and_grad(run, (0, 1), has_aux=True))(params, x, jnp.asarray(flag))
    expected = jax.value_and_grad(lambda params, x: run(params, x, flag), (0, 1), has_aux=True)(params, x)
    for one, other in zip(jax.tree.leaves(results), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
