"""Steps of an optimizer on those parts of padded weights that are in use."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

BLOCK = 8192
"""The most numbers of a block: its weights, gradients and moments together fit into a core's cache."""


class Rule(Protocol):
    """An optimizer's rule for arrays of any shape, element by element."""

    def __call__(self, gradient: Any, mean: Any, square: Any, count: Any, /) -> tuple[Any, Any, Any]:
        """The update before decay and learning rate, and both moments after it; `count` are the steps before, `[]`."""
        ...


class Scalars(NamedTuple):
    """What a step is the same with for all weights, `[]` each."""

    count: Any
    """Steps before this one."""
    rate: Any
    decay: Any
    rule: Any
    """The index of the rule."""


class UsedBlocks(NamedTuple):
    """Which blocks of an array are in use."""

    order: Any
    """Indices of all blocks, those in use first, `[blocks]`."""
    count: Any
    """How many are in use, `[]`."""


class BlockState(NamedTuple):
    """What the optimizer remembers."""

    count: Any
    """Steps so far, `[]`."""
    mean: Any
    """The first moment: of each large array by itself, `[blocks, n]`, and of all others as one vector."""
    square: Any
    """The second moment, likewise."""
    blocks: tuple[UsedBlocks, ...]
    """Of each large array."""


class BlockOptimizer(NamedTuple):
    """An optimizer in the form of optax, for weights of which some may be padding.

    Padding is zero, and so is its gradient. A step therefore changes nothing in blocks of large arrays that were all
    zero at first, and leaves them out: it costs in proportion to the layers, rows and experts in use. A large array
    that is zero as a whole is no padding: all of it is computed. Under `vmap` every block is computed.
    """

    init: Callable[[Any], BlockState]
    """The state for these weights."""
    update: Callable[..., tuple[Any, BlockState]]
    """`(gradient, state, params)` to the change of the weights and the next state, as in optax."""
    apply: Callable[[Any, BlockState, Any], tuple[Any, BlockState]]
    """`(gradient, state, params)` to the next weights and state."""


def make_block_optimizer(
    rules: Sequence[Rule], rule: Any, rate: Callable[[Any], Any], decay: Any, decays: Callable[[Any], Any]
) -> BlockOptimizer:
    """The rule of index `rule` (`[]`) with the learning rate `rate(count)` and decoupled weight decay.

    `decays` says of a tree of weights, array by array, which of them decay.
    """

    def init(params: Any) -> BlockState:
        large, small = _pack(jax.tree.leaves(params))
        mean, square = (([jnp.zeros_like(array) for array in large], jnp.zeros_like(small)) for _ in range(2))
        return BlockState(jnp.zeros((), jnp.int32), mean, square, tuple(map(_find_used, large)))

    def apply(gradient: Any, state: BlockState, params: Any) -> tuple[Any, BlockState]:
        leaves, tree = jax.tree.flatten(params)
        flags = jax.tree.leaves(decays(params))
        decayed, small_decayed = _pack(
            [np.full(leaf.shape, flag, np.float32) for leaf, flag in zip(leaves, flags, strict=True)]
        )
        scalars = Scalars(state.count, rate(state.count), decay, rule)
        (weights, small), (gradients, small_gradient) = _pack(leaves), _pack(jax.tree.leaves(gradient))
        arrays = zip(weights, gradients, state.mean[0], state.square[0], strict=True)
        large = [
            _step_in_blocks(rules, float(share.flat[0]), blocks, scalars, *four)
            for share, blocks, four in zip(decayed, state.blocks, arrays, strict=True)
        ]
        rest = _step(rules, small_decayed, scalars, small, small_gradient, state.mean[1], state.square[1])
        after, mean, square = (([three[i] for three in large], rest[i]) for i in range(3))
        return tree.unflatten(_unpack(*after, leaves)), BlockState(state.count + 1, mean, square, state.blocks)

    def update(gradient: Any, state: BlockState, params: Any) -> tuple[Any, BlockState]:
        after, state = apply(gradient, state, params)
        return jax.tree.map(jnp.subtract, after, params), state

    return BlockOptimizer(init, update, apply)


def _step(
    rules: Sequence[Rule], decayed: Any, scalars: Scalars, weights: Any, gradient: Any, mean: Any, square: Any
) -> tuple[Any, Any, Any]:
    """Weights and moments after a step; `decayed` is 1 where weights decay, else 0."""
    count, rate, decay, rule = scalars
    moments = (gradient, mean, square, count)
    updates, mean, square = rules[0](*moments) if len(rules) == 1 else jax.lax.switch(rule, rules, *moments)
    return weights - rate * (updates + decay * decayed * weights), mean, square


def _step_in_blocks(
    rules: Sequence[Rule], decayed: float, blocks: UsedBlocks, scalars: Scalars, *arrays: Any
) -> tuple[Any, Any, Any]:
    """`_step` of a large array, block by block: the arrays are changed where they lie in memory."""

    @custom_vmap
    def run(blocks: UsedBlocks, scalars: Scalars, weights: Any, gradient: Any, mean: Any, square: Any) -> Any:
        def run_block(index: Any, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
            block = blocks.order[index]
            weights, mean, square = (jax.lax.dynamic_index_in_dim(array, block, keepdims=False) for array in arrays)
            gradient_block = jax.lax.dynamic_index_in_dim(gradient, block, keepdims=False)
            after = _step(rules, decayed, scalars, weights, gradient_block, mean, square)
            pairs = zip(arrays, after, strict=True)
            return tuple(jax.lax.dynamic_update_index_in_dim(array, new, block, 0) for array, new in pairs)

        return jax.lax.fori_loop(0, blocks.count, run_block, (weights, mean, square))

    @run.def_vmap
    def run_lanes(size: int, batched: Any, blocks: UsedBlocks, scalars: Scalars, *arrays: Any) -> Any:
        # With lanes, a loop of each lane's own length would copy whole arrays in every round.
        axes = jax.tree.map(lambda has_lanes: 0 if has_lanes else None, batched[1:])
        after = jax.vmap(functools.partial(_step, rules, decayed), in_axes=tuple(axes), axis_size=size)(
            scalars, *arrays
        )
        return after, (True, True, True)

    return run(blocks, scalars, *arrays)


def _is_large(array: Any) -> bool:
    return array.size >= 2 * BLOCK


def _pack(arrays: Sequence[Any]) -> tuple[list[Any], Any]:
    """The large arrays, each in blocks of whole rows, `[blocks, n]`, and all others as one vector."""
    large = [array.reshape(-1, _choose_block(array.shape)) for array in arrays if _is_large(array)]
    small = [array.reshape(-1) for array in arrays if not _is_large(array)]
    numpy: Any = np if all(isinstance(array, np.ndarray) for array in arrays) else jnp
    return large, numpy.concatenate(small) if small else numpy.zeros(0, np.float32)


def _unpack(large: Sequence[Any], small: Any, arrays: Sequence[Any]) -> list[Any]:
    """Packed arrays in the shapes of `arrays`."""
    unpacked: list[Any] = []
    remaining, start = iter(large), 0
    for array in arrays:
        if _is_large(array):
            unpacked.append(next(remaining).reshape(array.shape))
        else:
            unpacked.append(small[start : start + array.size].reshape(array.shape))
            start += array.size
    return unpacked


def _choose_block(shape: Sequence[int]) -> int:
    """Numbers of a block: as many rows (last axis) as fit, and a divisor of the rows of a matrix (last two axes)."""
    columns = shape[-1]
    rows = shape[-2] if len(shape) > 1 else 1
    return columns * max((n for n in range(1, rows + 1) if rows % n == 0 and n * columns <= BLOCK), default=1)


def _find_used(array: Any) -> UsedBlocks:
    """The blocks of an array that are not all zero; all of them if the whole array is, as that of many biases is."""
    is_used = jnp.any(array != 0, axis=-1)
    is_used = is_used | ~jnp.any(is_used)
    return UsedBlocks(jnp.argsort(~is_used), jnp.sum(is_used, dtype=jnp.int32))
