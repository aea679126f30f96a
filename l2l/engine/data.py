"""A task's data in the form that the engine needs: whole arrays, orders sampled from a key, chunks to score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from l2l.errors import InputError, check_integer
from l2l.nn.blocks import Standardised
from l2l.nn.initial import make_generator
from l2l.nn.text import TextModel
from l2l.types import Key, Spec, Task


class Data(NamedTuple):
    """The two splits that a search may use, as raw arrays; they are copied to the device once."""

    x: Any
    """Training inputs `[N, *inputs]`."""
    y: Any
    """Training targets `[N, *targets]`."""
    validation_x: Any
    validation_y: Any


def load_data(task: Task) -> Data:
    """The training and validation splits of the task; the test split is not read."""
    return Data(*task.load("train"), *task.load("validation"))


def make_spec(task: Task, data: Data, epochs: int | None) -> Spec:
    """What the task asks of a model. Raises: InputError if `epochs` is not an integer of at least 1."""
    epochs = task.epochs if epochs is None else epochs
    check_integer("epochs", epochs, 1)
    inputs, targets = tuple(data.x.shape[1:]), tuple(data.y.shape[1:])
    return Spec(inputs, task.outputs, len(data.x), epochs, len(task.vocabulary), targets)


def compute_statistics(task: Task, data: Data) -> tuple[np.ndarray, ...]:
    """What a model must know of raw inputs: of texts the vocabulary, ascending, `[tokens]`; else mean and scale.

    Mean and scale are those of the training inputs, `[channels]` each; 0 and 1 if the task is not normalised.
    """
    if task.vocabulary:
        return (np.asarray(task.vocabulary, np.int32),)
    channels = data.x.shape[-1]
    if not task.normalise:
        return np.zeros(channels, np.float32), np.ones(channels, np.float32)
    axes = tuple(range(data.x.ndim - 1))
    scale = data.x.std(axes, dtype=np.float64)
    return data.x.mean(axes, dtype=np.float64).astype(np.float32), np.where(scale > 0, scale, 1.0).astype(np.float32)


def add_preprocessing(model: nnx.Module, spec: Spec, statistics: Sequence[Any] | None = None) -> nnx.Module:
    """The model with the layer before it that makes its inputs from raw ones.

    `statistics` are those of `compute_statistics`; None: zeros in their shapes.
    """
    if spec.tokens:
        vocabulary = jnp.zeros(spec.tokens, jnp.int32) if statistics is None else statistics[0]
        return TextModel(model, vocabulary, spec.inputs[0])
    channels = jnp.zeros(spec.inputs[-1:], jnp.float32)
    return Standardised(model, *((channels, channels) if statistics is None else statistics))


def sample_order(key: Key, spec: Spec, batch_size: int) -> np.ndarray:
    """The examples of each gradient, `[epochs, gradients of one epoch, B]`; every epoch is a fresh permutation.

    Raises: InputError if a batch is larger than the training split.
    """
    if not 1 <= batch_size <= spec.examples:
        raise InputError(f"batch_size {batch_size} must be from 1 to {spec.examples}, the size of the training split.")
    rng = make_generator(key)
    batches = spec.examples // batch_size
    epochs = [rng.permutation(spec.examples)[: batches * batch_size] for _ in range(spec.epochs)]
    return np.stack(epochs).reshape(spec.epochs, batches, batch_size).astype(np.int32)


def split_chunks(examples: int, size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Indices `[chunks, at most size]` that visit every example once, and weights of that shape: 0 for the padding."""
    count = -(-examples // size)
    size = -(-examples // count)
    indices = np.arange(count * size)
    weights = (indices < examples).astype(np.float32)
    return np.minimum(indices, examples - 1).reshape(count, size).astype(np.int32), weights.reshape(count, size)
