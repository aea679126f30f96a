"""One lane: a candidate's state on the host, and the pure function that trains it from one epoch to another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from l2l.engine.bucket import Bucket, assemble
from l2l.engine.data import Data
from l2l.engine.evaluate import make_score
from l2l.errors import InputError
from l2l.nn.blocks import Standardised
from l2l.nn.padded import Bound
from l2l.space import SearchSpace
from l2l.types import Array, Key, Learner, Spec, Task

WEIGHTS, DROPOUT, OTHER, ORDER = range(4)
"""What a trial's key is folded with: one stream for each purpose."""


class Lane(NamedTuple):
    """All that tells the lanes of a program apart, but for their state."""

    traced: Mapping[str, Any]
    """The bucket's data by name, each `[]`."""
    order: Any
    """Examples of each gradient, `[epochs, gradients of one epoch, M]`."""
    accumulated: Any
    """Gradients that make one step, `[]`."""


class State(NamedTuple):
    """A training that stands after some epoch: all that a later call goes on from."""

    params: Any
    rest: Any
    """Every other variable: batch statistics, dropout state, the input's statistics."""
    optimizer: Any
    """Means nothing before the first epoch, which begins with a new one."""
    count: Any
    """Steps so far, `[]`."""
    diverged: Any
    """The first step whose loss was not finite, counted from 1; 0 if there was none."""
    curve: Mapping[str, Any]
    """Metrics by epoch, `[epochs]`, as sums over the split; `train_loss` is the mean over the epoch's steps."""


class Fitted(NamedTuple):
    """What a training leaves behind, in the candidate's true shape."""

    params: Any
    rest: Any
    curve: Mapping[str, Array]
    """Metrics of the epochs so far, as in `State`."""
    diverged: Array
    state: State | None = None
    """The lane as the program has it, if there are epochs left."""


def streams(key: Key) -> nnx.Rngs:
    """The random streams of a trial's modules."""
    return nnx.Rngs(
        jax.random.fold_in(key, OTHER),
        params=jax.random.fold_in(key, WEIGHTS),
        dropout=jax.random.fold_in(key, DROPOUT),
    )


class Program:
    """The pure function of a bucket: a lane's state after one epoch to its state after another."""

    def __init__(
        self,
        space: SearchSpace[Learner],
        held: Bucket,
        spec: Spec,
        task: Task,
        validation: int,
    ) -> None:
        self.space, self.held, self.spec, self.task = space, held, spec, task
        self.score = make_score(task, validation)

    def learner(self, numbers: Mapping[str, Any]) -> Learner:
        """The bucket's learner for a lane's data."""
        return self.space.build(assemble(self.space, self.held, numbers), self.spec)

    def model(self, learner: Learner) -> nnx.Module:
        """The bucket's model in training mode; its weights come from the lane."""
        channels = jnp.zeros(self.spec.inputs[-1], jnp.float32)
        model = Standardised(learner.model(streams(jax.random.key(0))), channels, channels)
        model.train()
        return model

    def shapes(self, numbers: Mapping[str, Any], data: Data) -> State:
        """A lane's state, as shapes alone."""

        def begin(numbers: Mapping[str, Any], x: Any, y: Any) -> State:
            learner = self.learner(numbers)
            model = self.model(learner)
            _, params, _, rest = nnx.split(model, nnx.Param, Bound, ...)
            model.eval()
            names = (*self.score(model, x, y), "train_loss")
            curve = {name: jnp.zeros(self.spec.epochs, jnp.float32) for name in names}
            zero = jnp.zeros((), jnp.int32)
            return State(params, rest, learner.optimizer.init(params), zero, zero, curve)

        return jax.eval_shape(begin, dict(numbers), data.validation_x, data.validation_y)

    def __call__(self, lane: Lane, state: State, begin: Any, end: Any, data: Data) -> State:
        """Trains one lane from epoch `begin` to `end`, counted from 0, and scores it after each of them.

        The bounds are data: one program serves every rung, and going on gives the bits of going through.
        """
        learner = self.learner(lane.traced)
        model = self.model(learner)
        graph, _, held, _ = nnx.split(model, nnx.Param, Bound, ...)
        model.eval()
        frozen = nnx.graphdef(model)
        gradient = self._gradient(learner, graph, held, data)

        def step(carry: Any, at: tuple[Any, Array]) -> tuple[Any, Array]:
            params, rest, optimizer, count, diverged = carry
            value, rest, slope = gradient(params, rest, *at, lane.accumulated)
            updates, optimizer = learner.optimizer.update(slope, optimizer, params)
            params = optax.apply_updates(params, updates)
            diverged = jnp.where((diverged == 0) & ~jnp.isfinite(value), count + 1, diverged)
            return (params, rest, optimizer, count + 1, diverged), value

        def epoch(number: Any, state: State) -> State:
            indices = lane.order[number]
            steps = len(indices) if learner.microbatch is None else len(indices) // lane.accumulated

            def body(at: Any, carry: Any) -> Any:
                inner, value = step(carry[0], (indices, at))
                return inner, carry[1] + value

            carry, total = jax.lax.fori_loop(0, steps, body, (tuple(state[:-1]), jnp.zeros(())))
            final = nnx.merge(frozen, carry[0], held, carry[1], copy=True)
            scores = {**self.score(final, data.validation_x, data.validation_y), "train_loss": total / steps}
            curve = {name: values.at[number].set(scores[name]) for name, values in state.curve.items()}
            return State(carry[0], carry[1], carry[2], carry[3], carry[4], curve)

        new = learner.optimizer.init(state.params)
        optimizer = jax.tree.map(lambda one, other: jnp.where(begin == 0, one, other), new, state.optimizer)
        return jax.lax.fori_loop(begin, end, epoch, state._replace(optimizer=optimizer))

    def _gradient(self, learner: Learner, graph: Any, held: Any, data: Data) -> Callable[..., Any]:
        """A function to loss, other variables and gradient of one step; `accumulated` gradients are averaged."""

        def loss(params: Any, rest: Any, index: Array, share: Any) -> tuple[Array, Any]:
            model: Any = nnx.merge(graph, params, held, rest, copy=True)
            logits = model(data.x[index])
            if logits.shape != (len(index), self.spec.outputs):
                wanted = [len(index), self.spec.outputs]
                raise InputError(f"the model gives logits of shape {list(logits.shape)}, expected {wanted}.")
            losses = self.task.loss(logits, data.y[index], learner.label_smoothing)
            return jnp.mean(losses) * share, nnx.state(model, nnx.Not(nnx.Any(nnx.Param, Bound)))

        slope = jax.value_and_grad(loss, has_aux=True)

        def one(params: Any, rest: Any, indices: Array, at: Any, _: Any) -> Any:
            (value, rest), gradient = slope(params, rest, indices[at], 1.0)
            return value, rest, gradient

        def several(params: Any, rest: Any, indices: Array, at: Any, count: Any) -> Any:
            def add(part: Any, carry: Any) -> Any:
                total, rest, sums = carry
                (value, rest), gradient = slope(params, rest, indices[at * count + part], 1.0 / count)
                return total + value, rest, jax.tree.map(jnp.add, sums, gradient)

            # One gradient in the program, also where a step is one: a second one would double what is compiled.
            return jax.lax.fori_loop(0, count, add, (jnp.zeros(()), rest, jax.tree.map(jnp.zeros_like, params)))

        return one if learner.microbatch is None else several
