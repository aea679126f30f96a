"""Layers and functions that run only where data ask for them, forwards and backwards."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


def switch_and_recompute(
    index: Any, branches: Sequence[Callable[[Any, Any], tuple[Any, Any]]], inputs: Any, constants: Any = ()
) -> tuple[Any, Any]:
    """`branches[index](inputs, constants)`, a pair (outputs, extras), for the time of that one branch.

    Forwards, one `switch` runs the chosen branch. Only index, inputs and constants are saved.
    Backwards, a second `switch` runs the same branch again and leads the gradient of its outputs to its inputs;
    constants and extras (integers, say) have no gradient.
    JAX itself would save the residuals of every branch, zeros for those that did not run. Laying these out takes
    longer than computing the branch again.
    Where `vmap` makes lanes differ in the index, every branch runs and each lane selects its own.
    """

    @jax.custom_vjp
    def run(index: Any, inputs: Any, constants: Any) -> tuple[Any, Any]:
        return jax.lax.switch(index, branches, inputs, constants)

    def forward(index: Any, inputs: Any, constants: Any) -> Any:
        return run(index, inputs, constants), (index, inputs, constants)

    def backward(saved: Any, gradients: Any) -> Any:
        index, inputs, constants = saved
        pulls = [functools.partial(_pull_back, branch) for branch in branches]
        return None, jax.lax.switch(index, pulls, inputs, constants, gradients[0]), None

    run.defvjp(forward, backward)
    return run(index, inputs, constants)


def _pull_back(branch: Callable[[Any, Any], tuple[Any, Any]], inputs: Any, constants: Any, gradient: Any) -> Any:
    """The gradient by the inputs of a branch from that by its outputs."""
    _, pull = jax.vjp(lambda inputs: branch(inputs, constants)[0], inputs)
    return pull(gradient)[0]


def call_if(flag: Any, modules: Iterable[Any], x: jax.Array, *extra: Any, recompute: bool = False) -> jax.Array:
    """`x` through the modules one by one if `flag` (a bool, or `[]`), else `x`, for the time of what is done.

    The modules keep the shape of `x`. Their variables (batch statistics, counters) change only where they are called.
    No gradient flows to the `extra` arguments of each call. With `recompute`, the backward pass computes the modules
    again (see `switch_and_recompute`); without it, their residuals are saved.
    """
    modules = tuple(modules)
    if isinstance(flag, bool):
        return functools.reduce(lambda x, module: module(x, *extra), modules, x) if flag else x
    graph, state = nnx.split(modules)
    leaves, tree = jax.tree.flatten(state)
    differentiable = {
        index: leaf for index, leaf in enumerate(leaves) if jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.inexact)
    }
    constant = {index: leaf for index, leaf in enumerate(leaves) if index not in differentiable}

    @jax.jit  # traced once, for its shapes and for the program
    def use(inputs: Any, constants: Any) -> tuple[Any, Any]:
        (differentiable, x), (constant, extra) = inputs, constants
        before = [leaf for _, leaf in sorted((differentiable | constant).items())]
        merged: Any = nnx.merge(graph, jax.tree.unflatten(tree, before), copy=True)
        y = functools.reduce(lambda x, module: module(x, *extra), merged, x)
        after = enumerate(jax.tree.leaves(nnx.state(merged)))
        changes = {index: leaf for index, leaf in after if leaf is not before[index]}
        return (_restrict(changes, differentiable), y), _restrict(changes, constant)

    inputs, constants = (differentiable, x), (constant, extra)
    (changed, _), counted = jax.eval_shape(use, inputs, constants)

    def skip(inputs: Any, constants: Any) -> tuple[Any, Any]:
        return (_restrict(inputs[0], changed), inputs[1]), _restrict(constants[0], counted)

    if recompute:
        result = switch_and_recompute(flag.astype(jnp.int32), [skip, use], inputs, constants)
    else:
        result = jax.lax.cond(flag, use, skip, inputs, constants)
    (changes, y), counts = result
    if updates := changes | counts:
        nnx.update(modules, jax.tree.unflatten(tree, [updates.get(index, leaf) for index, leaf in enumerate(leaves)]))
    return y


def _restrict(leaves: dict[int, Any], names: Iterable[int]) -> dict[int, Any]:
    """The leaves of these names, where there are any."""
    return {name: leaves[name] for name in names if name in leaves}
