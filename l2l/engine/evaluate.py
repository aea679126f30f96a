"""Scores of a model on a split: the one way, inside the training program and after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from l2l.engine.data import chunks
from l2l.errors import InputError
from l2l.nn.text import Spelled
from l2l.types import Array, Split, Task


def metrics(task: Task, y: Any) -> dict[str, Any]:
    """The dtype of each metric's sum, without a model."""
    logits = jax.ShapeDtypeStruct((1, *y.shape[1:], task.outputs), jnp.float32)
    weighted = jax.eval_shape(
        lambda logits, y: jax.tree.map(lambda each: each * 1.0, task.score(logits, y)), logits, y[:1]
    )
    return {name: each.dtype for name, each in weighted.items()}


def make_score(
    task: Task, examples: int, deal: Callable[[Array], Array] = lambda examples: examples
) -> Callable[[Callable[[Array], Array], Array, Array], dict[str, Array]]:
    """A function `(model, x [N, *inputs], y [N])` to the sum of each metric over the examples, chunk by chunk.

    `deal` says where the examples of a chunk are.
    """
    parts: Any = chunks(examples)

    def score(model: Callable[[Array], Array], x: Array, y: Array) -> dict[str, Array]:
        def sums(part: tuple[Array, Array]) -> dict[str, Array]:
            index, weight = part
            return {name: jnp.sum(each * weight) for name, each in task.score(model(deal(x[index])), y[index]).items()}

        if len(parts[0]) == 1:
            return sums(jax.tree.map(lambda part: part[0], parts))
        # Starting from zeros keeps the model in the program once, not once more for the first chunk.
        start = {name: jnp.zeros((), kind) for name, kind in metrics(task, y).items()}
        return jax.lax.scan(lambda totals, part: (jax.tree.map(jnp.add, totals, sums(part)), None), start, parts)[0]

    return score


def evaluate(model: nnx.Module, task: Task, split: Split = "validation") -> dict[str, float]:
    """The task's metrics of a model that takes raw inputs, on one split, without changing the model.

    Raises: InputError if it is a model of the next symbol whose alphabet is not the task's, or tells other numbers of
        classes apart, or shorter or longer texts.
    """
    x, y = task.load(split)
    if isinstance(model, Spelled):
        _check(model, task, x, y)
    graph, state = nnx.split(model)
    score = make_score(task, len(x))

    @jax.jit
    def run(state: Any, x: Array, y: Array) -> dict[str, Array]:
        frozen = nnx.merge(graph, state, copy=True)
        frozen.eval()
        return score(frozen, x, y)

    return {name: float(total) / len(x) for name, total in run(state, x, y).items()}


def _check(model: Spelled, task: Task, x: Any, y: Any) -> None:
    """Refuses a task that a model of text was not made for. Raises: InputError."""
    why = None
    if y.ndim > 1:
        if not np.array_equal(model.symbols[...], np.asarray(task.symbols)):
            why = (
                f"has an alphabet of {model.symbols.shape[0]} symbols and {task.name!r} another one, of "
                f"{len(task.symbols)}; evaluate it on the text that it was trained on"
            )
    elif x.shape[1] != model.context:
        why = (
            f"takes texts of {model.context} symbols and {task.name!r} cuts them to {x.shape[1]}; give the task "
            f"context={model.context}"
        )
    elif (logits := jax.eval_shape(model, x[:1]).shape[-1]) != task.outputs:
        why = (
            f"tells {logits} classes apart and {task.name!r} has {task.outputs}; evaluate it on texts with the labels "
            "that it was trained on"
        )
    if why is not None:
        raise InputError(f"the model {why}.")
