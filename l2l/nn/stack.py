"""Layers of one kind in a row, of which data say how many are in use: the program compiles one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from l2l.nn.description import Description, describe_all
from l2l.nn.length import Length
from l2l.nn.number import ProgramInput

SMALL = 1024
"""An array of at most so many numbers is packed with others."""
ALONE, STACKED = "layers", "l2l_stacked"
"""The attributes of a `Stack` for its layers: one by one, or as one whose arrays have an axis of layers in front.

The engine looks for these names in the paths of a state, so no module of a user's may have the second."""
RESIDUAL = "layer"
"""The name of what a layer's parts return: the only residuals that are saved for the backward pass."""


class Stack(nnx.Module):
    """The first `depth` of some layers, which keep the shape of their input.

    A layer is called with its input, whether it is in use, and the extra arguments of the call.

    Where the depth is padded, layers that differ in nothing but numbers become one layer with stacked arrays, and a
    loop goes through it: it is compiled once, layers beyond the depth cost nothing, and the backward pass computes
    again whatever is not a `RESIDUAL`. The variables of a layer change only where it is in use.
    """

    def __init__(self, layers: Sequence[nnx.Module], depth: int | Length) -> None:
        self.depth = Length.of(depth)
        loops = bool(layers) and not self.depth.is_plain and _are_alike(layers)
        self.layers = None if loops else nnx.List(layers)
        self.l2l_stacked = _stack_layers(layers) if loops else None

    def __call__(self, x: jax.Array, *extra: Any) -> jax.Array:
        """Any shape in, the same shape out; each layer gets the `extra` arguments."""
        if self.l2l_stacked is not None:
            return self._loop(x, *extra)
        layers: Any = self.layers
        for number, layer in enumerate(layers[: self.depth.size], 1):
            x = layer(x, self.depth.reaches(number), *extra)
        return x

    def describe_layers(self, shape: tuple[int, ...], first: int = 1) -> list[Description]:
        """The layers in use in words, numbered from `first`; in a program, where they are one layer, none."""
        layers: list[Any] = list(self.layers or ())[: int(self.depth.active)]
        descriptions = describe_all(layers, shape)
        return [replace(layer, name=f"layer {number}") for number, layer in enumerate(descriptions, first)]

    def _loop(self, x: jax.Array, *extra: Any) -> jax.Array:
        fixed = nnx.Any(nnx.Param, ProgramInput)
        graph, variables, constants = nnx.split(self.l2l_stacked, nnx.Not(fixed), ...)
        packed, unpack = _pack((variables, constants))
        before, tree = jax.tree.flatten(variables)
        depth = self.depth

        def body(x: jax.Array, layer: tuple[Any, Any]) -> tuple[jax.Array, dict[int, jax.Array]]:
            number, row = layer
            variables, constants = unpack(row)
            module: Any = nnx.merge(graph, variables, constants, copy=True)
            x = module(x, depth.reaches(number), *extra)
            pairs = zip(jax.tree.leaves(variables), jax.tree.leaves(nnx.state(module, nnx.Not(fixed))), strict=True)
            return x, {index: new for index, (old, new) in enumerate(pairs) if old is not new}

        body = jax.checkpoint(body, prevent_cse=False, policy=jax.checkpoint_policies.save_only_these_names(RESIDUAL))
        x, changes = jax.lax.scan(body, x, (jnp.arange(1, len(packed[0]) + 1), packed))
        if changes:
            leaves = [changes.get(index, leaf) for index, leaf in enumerate(before)]
            nnx.update(self.l2l_stacked, jax.tree.unflatten(tree, leaves))
        return x


def describe_network(first: Any, rest: Stack, head: Any, shape: tuple[int, ...]) -> Description:
    """A network in words that consists of a first layer, others and a head."""
    layer = replace(describe_all([first], shape)[0], name="layer 1")
    layers = [layer, *rest.describe_layers(layer.shape, 2)]
    last = replace(describe_all([head], layers[-1].shape)[0], name="head")
    return Description(parts=(*layers, last), shape=last.shape)


def _are_alike(layers: Sequence[nnx.Module]) -> bool:
    """Whether layers differ in nothing but numbers."""
    parts = [nnx.split(layer) for layer in layers]
    graph, shapes = parts[0][0], [jax.tree.map(jnp.shape, state) for _, state in parts]
    return all(part[0] == graph and shape == shapes[0] for part, shape in zip(parts, shapes, strict=True))


def _stack_layers(layers: Sequence[nnx.Module]) -> Any:
    """Layers that are alike as one whose arrays have an axis of layers in front."""
    parts = [nnx.split(layer) for layer in layers]
    return nnx.merge(parts[0][0], jax.tree.map(lambda *leaves: jnp.stack(leaves), *[state for _, state in parts]))


def save_residual(x: jax.Array) -> jax.Array:
    """`x`, saved for the backward pass through a loop of layers."""
    return checkpoint_name(x, RESIDUAL)


def _pack(stacked: Any) -> tuple[list[jax.Array], Callable[[list[jax.Array]], Any]]:
    """A tree of arrays with an axis of layers as a few such arrays, and a function from one layer's to its tree.

    Small arrays of one dtype are concatenated: each array of a loop costs time, however small it is.
    """
    leaves, tree = jax.tree.flatten(stacked)
    shapes = [leaf.shape[1:] for leaf in leaves]
    sizes = [leaf[0].size for leaf in leaves]
    large = [index for index, size in enumerate(sizes) if size > SMALL]
    dtypes = sorted({str(leaf.dtype) for leaf, size in zip(leaves, sizes, strict=True) if size <= SMALL})
    small = [
        [index for index, size in enumerate(sizes) if size <= SMALL and str(leaves[index].dtype) == dtype]
        for dtype in dtypes
    ]
    packed = [leaves[index] for index in large]
    packed += [
        jnp.concatenate([leaves[index].reshape(len(leaves[index]), -1) for index in group], 1) for group in small
    ]

    def unpack(row: list[jax.Array]) -> Any:
        unpacked: list[Any] = [None] * len(leaves)
        for index, array in zip(large, row, strict=False):
            unpacked[index] = array
        for group, array in zip(small, row[len(large) :], strict=True):
            start = 0
            for index in group:
                unpacked[index] = array[start : start + sizes[index]].reshape(shapes[index])
                start += sizes[index]
        return jax.tree.unflatten(tree, unpacked)

    return packed, unpack
