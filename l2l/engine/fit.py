"""One lane: a candidate's weights on the host, and the pure function that trains them for a whole rung."""

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
    """All that tells the lanes of a program apart."""

    params: Any
    rest: Any
    """Every other variable: batch statistics, dropout state, the input's statistics."""
    traced: Mapping[str, Any]
    """The bucket's data by name, each `[]`."""
    order: Any
    """Examples of each gradient, `[epochs, gradients of one epoch, M]`."""
    accumulated: Any
    """Gradients that make one step, `[]`."""


class Fitted(NamedTuple):
    """What a rung leaves behind."""

    params: Any
    rest: Any
    curve: Mapping[str, Array]
    """Metrics by epoch, `[epochs]`, as sums over the split; `train_loss` is the mean over the epoch's steps."""
    diverged: Array
    """The first step whose loss was not finite, counted from 1; 0 if there was none."""


def streams(key: Key) -> nnx.Rngs:
    """The random streams of a trial's modules."""
    return nnx.Rngs(
        jax.random.fold_in(key, OTHER),
        params=jax.random.fold_in(key, WEIGHTS),
        dropout=jax.random.fold_in(key, DROPOUT),
    )


class Program:
    """The pure function of a bucket: `[lane, data]` to what training leaves behind."""

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

    def shapes(self, numbers: Mapping[str, Any]) -> tuple[Any, Any]:
        """Weights and every other variable of a lane, as shapes alone."""

        def split(data: Mapping[str, Any]) -> tuple[Any, Any]:
            _, params, _, rest = nnx.split(self.model(self.learner(data)), nnx.Param, Bound, ...)
            return params, rest

        return jax.eval_shape(split, dict(numbers))

    def __call__(self, lane: Lane, data: Data) -> Fitted:
        """Trains one lane over all its epochs and scores it after each of them."""
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

        def epoch(carry: Any, indices: Array) -> tuple[Any, dict[str, Array]]:
            steps = len(indices) if learner.microbatch is None else len(indices) // lane.accumulated

            def body(at: Any, carry: Any) -> Any:
                inner, value = step(carry[0], (indices, at))
                return inner, carry[1] + value

            carry, total = jax.lax.fori_loop(0, steps, body, (carry, jnp.zeros(())))
            final = nnx.merge(frozen, carry[0], held, carry[1], copy=True)
            scores = self.score(final, data.validation_x, data.validation_y)
            return carry, {**scores, "train_loss": total / steps}

        zero = jnp.zeros((), jnp.int32)
        start = (lane.params, lane.rest, learner.optimizer.init(lane.params), zero, zero)
        (params, rest, _, _, diverged), curve = jax.lax.scan(epoch, start, lane.order)
        return Fitted(params, rest, curve, diverged)

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
