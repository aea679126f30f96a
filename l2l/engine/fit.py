"""One lane: a candidate's weights on the host, and the pure function that trains them for a whole rung."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from l2l.engine.data import Data, order
from l2l.engine.evaluate import make_score
from l2l.errors import InputError
from l2l.nn.blocks import Standardised
from l2l.space import Value
from l2l.types import Array, Key, Learner, Spec, Task

WEIGHTS, DROPOUT, OTHER, ORDER = range(4)
"""What a trial's key is folded with: one stream for each purpose."""


class Graphs(NamedTuple):
    """The static half of a module, for training and for evaluation."""

    train: Any
    evaluate: Any


class Lane(NamedTuple):
    """All that tells the lanes of a program apart."""

    params: Any
    rest: Any
    """Every other variable: batch statistics, dropout state, the input's statistics."""
    traced: Mapping[str, Any]
    """Traced values by name, each `[]`."""
    order: Any
    """Examples of each step, `[epochs, steps, B]`."""


class Fitted(NamedTuple):
    """What a rung leaves behind."""

    params: Any
    rest: Any
    curve: Mapping[str, Array]
    """Metrics by epoch, `[epochs]`, as sums over the split; `train_loss` is the mean over the epoch's steps."""
    diverged: Array
    """The first step whose loss was not finite, counted from 1; 0 if there was none."""


Build = Callable[[Mapping[str, Any], Spec], Learner]


def prepare(
    build: Build,
    static: Mapping[str, Value],
    traced: Mapping[str, Value],
    spec: Spec,
    statistics: tuple[np.ndarray, np.ndarray],
    key: Key,
) -> tuple[Graphs, Lane]:
    """A lane's graphs and its state before the first step, drawn from the trial's key on the host."""
    numbers = {name: np.asarray(value, np.float32) for name, value in traced.items()}
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        learner = build({**static, **{name: jnp.asarray(value) for name, value in numbers.items()}}, spec)
        model = Standardised(learner.model(streams(key)), *statistics)
        model.train()
        train, params, rest = nnx.split(model, nnx.Param, ...)
        model.eval()
        steps = order(jax.random.fold_in(key, ORDER), spec, learner.batch_size)
        return Graphs(train, nnx.graphdef(model)), Lane(params, rest, numbers, steps)


def shareable(
    build: Build, static: Mapping[str, Value], traced: Mapping[str, Value], spec: Spec, graphs: Graphs
) -> bool:
    """Whether the model is the same program whatever its traced values, as far as building it shows.

    It is built once more with abstract values: a model that needs one as a plain number cannot be built then, and
    one that keeps it in a closure differs from the real one.
    """

    def make(numbers: Mapping[str, Array], key: Key) -> nnx.Module:
        channels = np.zeros(spec.inputs[-1], np.float32)
        model = Standardised(build({**static, **numbers}, spec).model(streams(key)), channels, channels)
        model.train()
        return model

    numbers = {name: jnp.zeros((), jnp.float32) for name in traced}
    try:
        return nnx.graphdef(nnx.eval_shape(make, numbers, jax.random.key(0))) == graphs.train
    except Exception:  # what a model raises that was promised a number is its own affair
        return False


def streams(key: Key) -> nnx.Rngs:
    """The random streams of a trial's modules."""
    return nnx.Rngs(
        jax.random.fold_in(key, OTHER),
        params=jax.random.fold_in(key, WEIGHTS),
        dropout=jax.random.fold_in(key, DROPOUT),
    )


def make_train(
    build: Build, static: Mapping[str, Value], spec: Spec, task: Task, graphs: Graphs, validation: int
) -> Callable[[Lane, Data], Fitted]:
    """The pure function that trains one lane over all its epochs and scores it after each of them.

    `build` is called inside the trace with the traced values as arrays; the program is fixed by `static`.
    `validation` is the number of validation examples.
    """
    score = make_score(task, validation)

    def train(lane: Lane, data: Data) -> Fitted:
        learner = build({**static, **lane.traced}, spec)

        def loss(params: Any, rest: Any, index: Array) -> tuple[Array, Any]:
            model = nnx.merge(graphs.train, params, rest, copy=True)
            logits = model(data.x[index])
            if logits.shape != (len(index), spec.outputs):
                raise InputError(
                    f"the model gives logits of shape {list(logits.shape)}, expected {[len(index), spec.outputs]}."
                )
            losses = task.loss(logits, data.y[index], learner.label_smoothing)
            return jnp.mean(losses), nnx.state(model, nnx.Not(nnx.Param))

        def step(carry: Any, index: Array) -> tuple[Any, Array]:
            params, rest, optimizer, count, diverged = carry
            (value, rest), gradient = jax.value_and_grad(loss, has_aux=True)(params, rest, index)
            updates, optimizer = learner.optimizer.update(gradient, optimizer, params)
            params = optax.apply_updates(params, updates)
            diverged = jnp.where((diverged == 0) & ~jnp.isfinite(value), count + 1, diverged)
            return (params, rest, optimizer, count + 1, diverged), value

        def epoch(carry: Any, indices: Array) -> tuple[Any, dict[str, Array]]:
            carry, losses = jax.lax.scan(step, carry, indices)
            model = nnx.merge(graphs.evaluate, carry[0], carry[1], copy=True)
            scores = score(model, data.validation_x, data.validation_y)
            return carry, {**scores, "train_loss": jnp.mean(losses)}

        zero = jnp.zeros((), jnp.int32)
        start = (lane.params, lane.rest, learner.optimizer.init(lane.params), zero, zero)
        (params, rest, _, _, diverged), curve = jax.lax.scan(epoch, start, lane.order)
        return Fitted(params, rest, curve, diverged)

    return train
