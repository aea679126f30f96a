"""Layers of one kind after another, of which data say how many: in the program there is one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.nn.padded import Bound, if_reached


def through(layers: Sequence[nnx.Module], depth: int | Bound, x: jax.Array) -> jax.Array:
    """`x` through the first `depth` layers, which keep its shape.

    Where the depth is data, layers that differ in nothing but arrays are one loop: compiled once, and those beyond
    the depth cost nothing. What a layer remembers changes only where it is used.
    """
    if isinstance(depth, int):
        for layer in layers[:depth]:
            x = layer(x)  # pyright: ignore[reportCallIssue]
        return x
    parts = [nnx.split(layer, nnx.Not(nnx.Any(nnx.Param, Bound)), ...) for layer in layers]
    graph, rest, _ = parts[0]
    shapes = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(each[1:])] for each in parts]
    if any(each[0] != graph or found != shapes[0] for each, found in zip(parts, shapes, strict=True)):
        for number, layer in enumerate(layers, 1):
            x = if_reached(number, depth, (layer,), x)
        return x
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[each[1:] for each in parts])
    tree = jax.tree.structure(rest)
    changed: list[int] = []  # known once the loop has been traced

    def body(x: jax.Array, each: tuple[Any, Any]) -> tuple[jax.Array, list[jax.Array]]:
        number, (rest, fixed) = each
        layer = nnx.merge(graph, rest, fixed, copy=True)
        x = if_reached(number, depth, (layer,), x)
        after = jax.tree.leaves(nnx.state(layer, nnx.Not(nnx.Any(nnx.Param, Bound))))
        changed[:] = [
            at for at, (old, new) in enumerate(zip(jax.tree.leaves(rest), after, strict=True)) if old is not new
        ]
        return x, [after[at] for at in changed]

    x, after = jax.lax.scan(body, x, (jnp.arange(1, len(layers) + 1), stacked))
    if changed:
        for number, (layer, (_, own, _)) in enumerate(zip(layers, parts, strict=True)):
            leaves = jax.tree.leaves(own)
            for at, values in zip(changed, after, strict=True):
                leaves[at] = values[number]
            nnx.update(layer, jax.tree.unflatten(tree, leaves))
    return x
