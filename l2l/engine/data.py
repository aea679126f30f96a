"""A task's data as the engine wants them: whole arrays, an order computed from a key, chunks to score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from l2l.errors import InputError
from l2l.nn.blocks import Standardised
from l2l.nn.initial import generator
from l2l.nn.text import Spelled
from l2l.types import Key, Spec, Task


class Data(NamedTuple):
    """The two splits that a search may see, raw; they are put on the device once."""

    x: Any
    """Training inputs `[N, *inputs]`."""
    y: Any
    """Training targets `[N, *targets]`."""
    validation_x: Any
    validation_y: Any


def load(task: Task) -> Data:
    """Training and validation split of the task; the test split stays closed."""
    return Data(*task.load("train"), *task.load("validation"))


def specify(task: Task, data: Data, epochs: int | None) -> Spec:
    """What the task asks of a model. Raises: InputError if `epochs` is not at least 1."""
    epochs = task.epochs if epochs is None else epochs
    if type(epochs) is not int or epochs < 1:
        raise InputError(f"epochs must be a whole number of at least 1, got {epochs!r}.")
    inputs, targets = tuple(data.x.shape[1:]), tuple(data.y.shape[1:])
    return Spec(inputs, task.outputs, len(data.x), epochs, len(task.symbols), targets)


def statistics(task: Task, data: Data) -> tuple[np.ndarray, ...]:
    """What a model must know of raw inputs: the symbols of a text, ascending, `[symbols]`, else mean and scale.

    These are of the training inputs, `[channels]` each; 0 and 1 where the task is not normalised.
    """
    if task.symbols:
        return (np.asarray(task.symbols, np.int32),)
    channels = data.x.shape[-1]
    if not task.normalise:
        return np.zeros(channels, np.float32), np.ones(channels, np.float32)
    axes = tuple(range(data.x.ndim - 1))
    scale = data.x.std(axes, dtype=np.float64)
    return data.x.mean(axes, dtype=np.float64).astype(np.float32), np.where(scale > 0, scale, 1.0).astype(np.float32)


def raw(model: nnx.Module, spec: Spec, learnt: Sequence[Any] | None = None) -> nnx.Module:
    """The model as one that takes raw inputs, by what `statistics` says; None: by zeros in its place."""
    if spec.tokens:
        return Spelled(model, jnp.zeros(spec.tokens, jnp.int32) if learnt is None else learnt[0], spec.inputs[0])
    channels = jnp.zeros(spec.inputs[-1:], jnp.float32)
    return Standardised(model, *((channels, channels) if learnt is None else learnt))


def order(key: Key, spec: Spec, batch_size: int) -> np.ndarray:
    """Which examples each gradient sees, `[epochs, gradients of one epoch, B]`; every epoch is a fresh permutation.

    Raises: InputError if a batch is larger than the training split.
    """
    if not 1 <= batch_size <= spec.examples:
        raise InputError(f"batch_size {batch_size} must be from 1 to {spec.examples}, the size of the training split.")
    draw = generator(key)
    steps = spec.examples // batch_size
    epochs = [draw.permutation(spec.examples)[: steps * batch_size] for _ in range(spec.epochs)]
    return np.stack(epochs).reshape(spec.epochs, steps, batch_size).astype(np.int32)


def chunks(examples: int, size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Indices `[M, at most size]` that visit every example once, and weights `[M, ...]`: 0 for the filling."""
    count = -(-examples // size)
    size = -(-examples // count)
    indices = np.arange(count * size)
    weights = (indices < examples).astype(np.float32)
    return np.minimum(indices, examples - 1).reshape(count, size).astype(np.int32), weights.reshape(count, size)
