"""Layers of one kind after another, of which data say how many: in the program there is one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from l2l.nn.padded import Bound, Padded, bound

SMALL = 1024
"""Numbers of an array that is packed with others."""
ALONE, STACKED = "layers", "l2l_stacked"
"""Where a `Stack` keeps its layers: one by one, or as one whose arrays have an axis of layers before their own.

Found by name in the paths of a state, hence one that no module of a user's has."""
KEPT = "layer"
"""The name of what a layer's parts give, which is all that is kept of it for the way back."""


class Stack(nnx.Module):
    """The first `depth` of some layers, which keep the shape of what they get.

    A layer is called with that, whether it is in use, and what else is given.

    Where the depth is data, layers that differ in nothing but numbers are one whose arrays are stacked, and a loop
    goes through it: it is compiled once, those beyond the depth cost nothing, and on the way back what is not `KEPT`
    by name is computed again. What a layer remembers changes only where it is used.
    """

    def __init__(self, layers: Sequence[nnx.Module], depth: int | Padded) -> None:
        self.depth = bound(depth)
        parts = [nnx.split(layer) for layer in layers]
        graph, shapes = parts[0][0], [jax.tree.map(jnp.shape, state) for _, state in parts]
        alike = all(each[0] == graph and shape == shapes[0] for each, shape in zip(parts, shapes, strict=True))
        loops = isinstance(depth, Padded) and alike
        self.layers = None if loops else nnx.List(layers)
        self.l2l_stacked = (
            nnx.merge(graph, jax.tree.map(lambda *leaves: jnp.stack(leaves), *[state for _, state in parts]))
            if loops
            else None
        )

    def __call__(self, x: jax.Array, *given: Any) -> jax.Array:
        """Any shape in, the same shape out; each layer gets what is `given`."""
        depth: Any = self.depth
        if self.l2l_stacked is not None:
            return self._looped(x, *given)
        layers: Any = self.layers
        for number, layer in enumerate(layers[:depth] if isinstance(depth, int) else layers, 1):
            x = layer(x, True if isinstance(depth, int) else number <= depth[...], *given)
        return x

    def _looped(self, x: jax.Array, *given: Any) -> jax.Array:
        depth: Any = self.depth
        fixed = nnx.Any(nnx.Param, Bound)
        graph, rest, held = nnx.split(self.l2l_stacked, nnx.Not(fixed), ...)
        packed, unpack = _packed((rest, held))
        tree = jax.tree.structure(rest)
        changed: list[int] = []  # known once the loop has been traced

        def body(x: jax.Array, each: tuple[Any, Any]) -> tuple[jax.Array, list[jax.Array]]:
            number, row = each
            rest, held = unpack(row)
            layer: Any = nnx.merge(graph, rest, held, copy=True)
            x = layer(x, number <= depth[...], *given)
            after = jax.tree.leaves(nnx.state(layer, nnx.Not(fixed)))
            changed[:] = [
                at for at, (old, new) in enumerate(zip(jax.tree.leaves(rest), after, strict=True)) if old is not new
            ]
            return x, [after[at] for at in changed]

        body = jax.checkpoint(body, prevent_cse=False, policy=jax.checkpoint_policies.save_only_these_names(KEPT))
        x, after = jax.lax.scan(body, x, (jnp.arange(1, len(packed[0]) + 1), packed))
        if changed:
            leaves = jax.tree.leaves(rest)
            for at, values in zip(changed, after, strict=True):
                leaves[at] = values
            nnx.update(self.l2l_stacked, jax.tree.unflatten(tree, leaves))
        return x


def kept(x: jax.Array) -> jax.Array:
    """`x`, to be kept for the way back through a loop of layers."""
    return checkpoint_name(x, KEPT)


def _packed(stacked: Any) -> tuple[list[jax.Array], Callable[[list[jax.Array]], Any]]:
    """A tree of arrays with an axis of layers as a few such arrays, and a function from one layer's to its tree.

    Small arrays of one dtype stand behind one another in one: each array of a loop costs time, however small it is.
    """
    leaves, tree = jax.tree.flatten(stacked)
    shapes = [leaf.shape[1:] for leaf in leaves]
    sizes = [leaf[0].size for leaf in leaves]
    large = [at for at, size in enumerate(sizes) if size > SMALL]
    kinds = sorted({str(leaf.dtype) for leaf, size in zip(leaves, sizes, strict=True) if size <= SMALL})
    small = [[at for at, size in enumerate(sizes) if size <= SMALL and str(leaves[at].dtype) == kind] for kind in kinds]
    packed = [leaves[at] for at in large]
    packed += [jnp.concatenate([leaves[at].reshape(len(leaves[at]), -1) for at in places], 1) for places in small]

    def unpack(row: list[jax.Array]) -> Any:
        found: list[Any] = [None] * len(leaves)
        for at, array in zip(large, row, strict=False):
            found[at] = array
        for places, array in zip(small, row[len(large) :], strict=True):
            start = 0
            for at in places:
                found[at] = array[start : start + sizes[at]].reshape(shapes[at])
                start += sizes[at]
        return jax.tree.unflatten(tree, found)

    return packed, unpack
