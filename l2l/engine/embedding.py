"""A candidate's weights inside the padded arrays of its program, and back out of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from l2l.nn.stack import ALONE, STACKED


def embed(small: Any, large: Any) -> Any:
    """The state `small` at the beginning of zeros in the shapes of `large`.

    Layers that `small` holds one by one are stacked where `large` holds them stacked.

    Raises: ValueError if `large` lacks a variable of `small`, or has less room for one.
    """
    leaves = dict(nnx.to_flat_state(small))

    def pad(path: Any, shape: Any) -> Any:
        leaf = leaves.pop(path, None)
        value = make_zeros(shape) if leaf is None else move_to_host(get_value(leaf))
        if value.shape != shape.shape:
            value = np.pad(value, [(0, b - a) for a, b in zip(value.shape, shape.shape, strict=True)])
        return value

    embedded: list[Any] = []
    for path, leaf in nnx.to_flat_state(large):
        shape = get_value(leaf)
        if STACKED in path:
            layer_shape = jax.ShapeDtypeStruct(shape.shape[1:], shape.dtype)
            value = np.stack([pad(_unstack_path(path, layer), layer_shape) for layer in range(shape.shape[0])])
        else:
            value = pad(path, shape)
        embedded.append((path, replace_value(leaf, value)))
    for path, leaf in leaves.items():
        if isinstance(leaf, nnx.Variable):  # an array that is no variable is a constant of the program
            raise ValueError(f"the padded model has no {'.'.join(map(str, path))}")
    return nnx.from_flat_state(embedded)


def crop(large: Any, small: Any) -> Any:
    """The beginning of every array of the state `large`, in the shapes of `small`; stacked layers one by one."""
    leaves = dict(nnx.to_flat_state(large))
    for path in [path for path in leaves if STACKED in path]:
        stacked = leaves.pop(path)
        for layer, value in enumerate(get_value(stacked)):
            leaves[_unstack_path(path, layer)] = replace_value(stacked, value)
    cropped: list[Any] = []
    for path, leaf in nnx.to_flat_state(small):
        value = get_value(leaves.get(path, leaf))
        part = value if is_key(value) else value[tuple(map(slice, get_value(leaf).shape))]
        cropped.append((path, replace_value(leaf, part)))
    return nnx.from_flat_state(cropped)


def _unstack_path(path: tuple[Any, ...], layer: int) -> tuple[Any, ...]:
    """The path of one layer's variable in an unstacked model, from the variable's path in the stacked model."""
    index = path.index(STACKED)
    return (*path[:index], ALONE, layer, *path[index + 1 :])


def stack_lanes(lanes: Sequence[Any]) -> Any:
    """One tree with a leading axis P from the trees of P lanes; on the host, where a new shape compiles nothing."""

    def stack_leaves(*leaves: Any) -> Any:
        if is_key(leaves[0]):
            words: Any = np.stack([np.asarray(jax.random.key_data(leaf)) for leaf in leaves])
            return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaves[0]))
        return np.stack([np.asarray(leaf) for leaf in leaves])

    return jax.tree.map(stack_leaves, *lanes)


def get_value(leaf: Any) -> Any:
    """The array of a variable, or the leaf itself if it is an array."""
    return leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf


def replace_value(leaf: Any, value: Any) -> Any:
    """The same kind of leaf with another array."""
    return leaf.replace(value) if isinstance(leaf, nnx.Variable) else value


def make_zeros(shape: Any) -> Any:
    """Zeros of a shape and dtype; for a typed key, a key of zeros."""
    if is_key_type(shape):
        words: Any = np.zeros((*shape.shape, 2), np.uint32)
        return jax.random.wrap_key_data(words)
    return np.zeros(shape.shape, shape.dtype)


def move_to_host(leaf: Any) -> Any:
    """The leaf as a NumPy array; a typed key stays as it is."""
    return leaf if is_key(leaf) else np.asarray(leaf)


def is_key(leaf: Any) -> bool:
    """Whether the leaf is an array of typed JAX keys."""
    return isinstance(leaf, jax.Array) and is_key_type(leaf)


def is_key_type(leaf: Any) -> bool:
    """Whether the dtype of an array or of a shape is that of typed JAX keys."""
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))
