"""The scores of a model on a split, computed the same way inside the training program and after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from l2l.engine.data import split_chunks
from l2l.errors import InputError
from l2l.nn.text import TextModel
from l2l.types import Array, Split, Task


def metric_dtypes(task: Task, y: Any) -> dict[str, Any]:
    """The dtype of each metric's sum, by the metric's name; found without a model."""
    logits = jax.ShapeDtypeStruct((1, *y.shape[1:], task.outputs), jnp.float32)
    weighted = jax.eval_shape(
        lambda logits, y: jax.tree.map(lambda score: score * 1.0, task.score(logits, y)), logits, y[:1]
    )
    return {name: score.dtype for name, score in weighted.items()}


def make_score(
    task: Task, examples: int, shard: Callable[[Array], Array] = lambda examples: examples
) -> Callable[[Callable[[Array], Array], Array, Array], dict[str, Array]]:
    """A function `(model, x [N, *inputs], y [N])` to the sum of each metric over the examples, chunk by chunk.

    `shard` puts the examples of a chunk where they are computed.
    """
    chunks: Any = split_chunks(examples)

    def score(model: Callable[[Array], Array], x: Array, y: Array) -> dict[str, Array]:
        def score_chunk(chunk: tuple[Array, Array]) -> dict[str, Array]:
            index, weight = chunk
            scores = task.score(model(shard(x[index])), y[index])
            return {name: jnp.sum(score * weight) for name, score in scores.items()}

        if len(chunks[0]) == 1:
            return score_chunk(jax.tree.map(lambda array: array[0], chunks))
        # The loop starts from zeros: starting from the first chunk would put the model into the program twice.
        zeros = {name: jnp.zeros((), dtype) for name, dtype in metric_dtypes(task, y).items()}
        return jax.lax.scan(lambda sums, chunk: (jax.tree.map(jnp.add, sums, score_chunk(chunk)), None), zeros, chunks)[
            0
        ]

    return score


def evaluate(model: nnx.Module, task: Task, split: Split = "validation") -> dict[str, float]:
    """The task's metrics of a model that takes raw inputs, on one split; the model stays as it is.

    Raises: InputError if the model takes texts, and its vocabulary, its context or its number of classes is not the
        task's.
    """
    x, y = task.load(split)
    if isinstance(model, TextModel):
        _check_text_model(model, task, x, y)
    graph, state = nnx.split(model)
    score = make_score(task, len(x))

    @jax.jit
    def run(state: Any, x: Array, y: Array) -> dict[str, Array]:
        frozen = nnx.merge(graph, state, copy=True)
        frozen.eval()
        return score(frozen, x, y)

    return {name: float(total) / len(x) for name, total in run(state, x, y).items()}


def _check_text_model(model: TextModel, task: Task, x: Any, y: Any) -> None:
    """Compares a model of texts with the task. Raises: InputError if it was made for another one."""
    reason = None
    if y.ndim > 1:
        if not np.array_equal(model.symbols[...], np.asarray(task.vocabulary)):
            reason = (
                f"has a vocabulary of {model.symbols.shape[0]} tokens, but task {task.name!r} has another one, of "
                f"{len(task.vocabulary)} tokens; evaluate it on the text that it was trained on"
            )
    elif x.shape[1] != model.context:
        reason = (
            f"takes texts of {model.context} tokens, but task {task.name!r} cuts them to {x.shape[1]}; give the task "
            f"context={model.context}"
        )
    elif (classes := jax.eval_shape(model, x[:1]).shape[-1]) != task.outputs:
        reason = (
            f"has {classes} output classes, but task {task.name!r} has {task.outputs}; evaluate it on texts with the "
            "labels that it was trained on"
        )
    if reason is not None:
        raise InputError(f"the model {reason}.")
