"""The optimizer of padded weights against optax, which knows nothing of blocks."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from l2l.nn.optimizer import BLOCK, BlockOptimizer, make_block_optimizer
from search_spaces.recipe import RULES, _apply_rule, _select_matrices

NAMES = tuple(RULES)
RATE, DECAY = 0.1, 0.01


def make_rate(count: Any) -> Any:
    return RATE / (1.0 + count)


def make_optimizer(name: str) -> BlockOptimizer:
    rules = [functools.partial(_apply_rule, option) for option in NAMES]
    return make_block_optimizer(rules, jnp.int32(NAMES.index(name)), make_rate, jnp.float32(DECAY), _select_matrices)


def make_reference(name: str) -> optax.GradientTransformation:
    decay = optax.add_decayed_weights(DECAY, mask=_select_matrices)
    return optax.chain(RULES[name](), decay, optax.scale_by_learning_rate(make_rate))


def make_weights(seed: int) -> dict[str, Any]:
    """Small arrays and large ones, of which the first rows, layers or none are in use."""
    draw = np.random.default_rng(seed)
    whole = {
        "bias": draw.normal(size=7),
        "few rows": draw.normal(size=(256, 100)) * (np.arange(256)[:, None] < 50),
        "layers": draw.normal(size=(3, 128, 64)) * (np.arange(3)[:, None, None] < 2),
        "none": np.zeros((200, 128)),
        "small": draw.normal(size=(8, 4)),
        "vector": draw.normal(size=2 * BLOCK),
    }
    return {name: jnp.asarray(array, jnp.float32) for name, array in whole.items()}


def train(optimizer: Any, weights: Any, gradients: list[Any]) -> Any:
    """The weights after a step for each gradient."""
    state = optimizer.init(weights)
    for gradient in gradients:
        if isinstance(optimizer, BlockOptimizer):
            weights, state = optimizer.apply(gradient, state, weights)
        else:
            updates, state = optimizer.update(gradient, state, weights)
            weights = optax.apply_updates(weights, updates)
    return weights


def make_gradients() -> list[Any]:
    """Zero where the weights are padding."""
    return [jax.tree.map(lambda a, b: jnp.where(a == 0, 0.0, b), make_weights(0), make_weights(n)) for n in (1, 2, 3)]


@pytest.mark.parametrize("name", NAMES)
def test_it_steps_as_optax_does(name: str) -> None:
    weights, gradients = make_weights(0), make_gradients()
    after = jax.jit(functools.partial(train, make_optimizer(name)))(weights, gradients)
    expected = jax.jit(functools.partial(train, make_reference(name)))(weights, gradients)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), after, expected)
    assert not np.any(after["none"])
    assert not np.any(after["few rows"][50:])
    assert not np.any(after["layers"][2])


@pytest.mark.parametrize("name", NAMES)
def test_lanes_step_as_one_does(name: str) -> None:
    lanes = [jax.tree.map(lambda leaf, n=n: leaf * n, make_weights(0)) for n in (1.0, 2.0)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *lanes)
    run = functools.partial(train, make_optimizer(name), gradients=make_gradients())
    after = jax.jit(jax.vmap(run))(stacked)
    for index, lane in enumerate(lanes):
        alone = jax.jit(run)(lane)
        jax.tree.map(
            lambda a, b, index=index: np.testing.assert_allclose(a[index], b, rtol=1e-5, atol=1e-6), after, alone
        )


def test_only_the_blocks_in_use_are_computed() -> None:
    weights = make_weights(0)
    state = make_optimizer("adamw").init(weights)
    assert [int(blocks.count) for blocks in state.blocks] == [1, 2, 4, 1]
    assert state.blocks[1].order.tolist() == [0, 1, 2]
    used = {"weights": jnp.concatenate([jnp.zeros((128, 64)), jnp.ones((128, 64))])}
    (blocks,) = make_optimizer("adamw").init(used).blocks
    assert (int(blocks.count), blocks.order.tolist()) == (1, [1, 0])


def test_a_large_array_that_begins_at_zero_is_trained() -> None:
    weights, gradients = {"biases": jnp.zeros((8, 2 * BLOCK // 8))}, [{"biases": jnp.ones((8, 2 * BLOCK // 8))}]
    after = jax.jit(functools.partial(train, make_optimizer("adamw")))(weights, gradients)
    expected = jax.jit(functools.partial(train, make_reference("adamw")))(weights, gradients)
    np.testing.assert_allclose(after["biases"], expected["biases"], rtol=1e-5)
    assert np.all(after["biases"])


def test_loops_are_for_one_lane() -> None:
    weights, gradients = make_weights(0), make_gradients()[:1]
    run = functools.partial(train, make_optimizer("lion"))
    assert "while" in str(jax.make_jaxpr(run)(weights, gradients))
    lanes = jax.tree.map(lambda leaf: leaf[None], weights)
    assert "while" not in str(jax.make_jaxpr(jax.vmap(run, in_axes=(0, None)))(lanes, gradients))


def test_the_change_of_the_weights_is_what_optax_expects() -> None:
    weights, (gradient, *_) = make_weights(0), make_gradients()
    optimizer = make_optimizer("sgd")
    state = optimizer.init(weights)
    updates, state_after = optimizer.update(gradient, state, weights)
    after, _ = optimizer.apply(gradient, state, weights)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), optax.apply_updates(weights, updates), after)
    assert int(state_after.count) == 1
