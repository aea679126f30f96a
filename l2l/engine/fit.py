"""One lane: a candidate's state on the host, and the pure function that trains it from one epoch to another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from l2l.engine.bucket import Bucket, assemble
from l2l.engine.data import Data, raw
from l2l.engine.evaluate import make_score, metrics
from l2l.errors import InputError
from l2l.nn.moe import measures, penalties
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
    """Metrics by epoch, `[epochs]`, as sums over the split; what training measured is the mean over the epoch."""


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
        deal: Callable[[Any], Any] = lambda examples: examples,
    ) -> None:
        self.space, self.held, self.spec, self.task, self.deal = space, held, spec, task, deal
        self.score = make_score(task, validation, deal)

    def learner(self, numbers: Mapping[str, Any]) -> Learner:
        """The bucket's learner for a lane's data."""
        return self.space.build(assemble(self.space, self.held, numbers), self.spec)

    def model(self, learner: Learner) -> nnx.Module:
        """The bucket's model in training mode; its weights come from the lane."""
        model = raw(learner.model(streams(jax.random.key(0))), self.spec)
        model.train()
        return model

    def shapes(self, numbers: Mapping[str, Any], data: Data) -> State:
        """A lane's state, as shapes alone."""

        def begin(numbers: Mapping[str, Any], y: Any) -> State:
            learner = self.learner(numbers)
            model = self.model(learner)
            _, params, _, rest = nnx.split(model, nnx.Param, Bound, ...)
            names = (*metrics(self.task, y), *measures(model), "train_loss")
            curve = {name: jnp.zeros(self.spec.epochs, jnp.float32) for name in names}
            zero = jnp.zeros((), jnp.int32)
            return State(params, rest, learner.optimizer.init(params), zero, zero, curve)

        return jax.eval_shape(begin, dict(numbers), data.validation_y)

    def __call__(self, lane: Lane, state: State, begin: Any, end: Any, data: Data) -> State:
        """Trains one lane from epoch `begin` to `end`, counted from 0, and scores it after each of them.

        The bounds are data: one program serves every rung, and going on gives the bits of going through.
        """
        learner = self.learner(lane.traced)
        model = self.model(learner)
        graph, _, held, _ = nnx.split(model, nnx.Param, Bound, ...)
        model.eval()
        frozen = nnx.graphdef(model)
        slope = jax.value_and_grad(self._loss(learner, graph, held, data), has_aux=True)
        several = learner.microbatch is not None

        def step(state: State, value: Any, gradient: Any) -> State:
            updates, optimizer = learner.optimizer.update(gradient, state.optimizer, state.params)
            diverged = jnp.where((state.diverged == 0) & ~jnp.isfinite(value), state.count + 1, state.diverged)
            params = optax.apply_updates(state.params, updates)
            return state._replace(params=params, optimizer=optimizer, count=state.count + 1, diverged=diverged)

        def epoch(number: Any, state: State) -> State:
            indices = lane.order[number]
            parts = lane.accumulated if several else 1
            steps = len(indices) // parts

            def body(at: Any, carry: Any) -> Any:
                # One gradient in the program, and as many for each lane: an inner loop would keep lanes waiting.
                state, sums, value, total, seen = carry
                (loss, (rest, found)), gradient = slope(state.params, state.rest, indices[at], 1.0 / parts)
                seen = jax.tree.map(jnp.add, seen, found)
                if not several:
                    state = state._replace(rest=rest)
                    return step(state, loss, gradient), sums, value, total + loss, seen
                first, last, whole = at % parts == 0, at % parts == parts - 1, at < steps * parts
                value = loss + jnp.where(first, 0.0, value)
                sums = jax.tree.map(lambda new, old: jnp.where(first, new, new + old), gradient, sums)
                kept = jax.tree.map(lambda new, old: jnp.where(whole, new, old), rest, state.rest)
                state = state._replace(rest=kept)
                state = jax.lax.cond(last, step, lambda state, *_: state, state, value, sums)
                return state, sums, value, total + jnp.where(last, value, 0.0), seen

            zero = jnp.zeros(())
            sums = jax.tree.map(jnp.zeros_like, state.params) if several else ()
            curve, state = state.curve, state._replace(curve={})
            start = (state, sums, zero, zero, dict.fromkeys(measures(model), zero))
            state, _, _, total, seen = jax.lax.fori_loop(0, len(indices), body, start)
            final = nnx.merge(frozen, state.params, held, state.rest, copy=True)
            scores = {**self.score(final, data.validation_x, data.validation_y), "train_loss": total / steps}
            scores |= {name: value / len(indices) for name, value in seen.items()}
            return state._replace(curve={name: values.at[number].set(scores[name]) for name, values in curve.items()})

        new = learner.optimizer.init(state.params)
        optimizer = jax.tree.map(lambda one, other: jnp.where(begin == 0, one, other), new, state.optimizer)
        return jax.lax.fori_loop(begin, end, epoch, state._replace(optimizer=optimizer))

    def _loss(self, learner: Learner, graph: Any, held: Any, data: Data) -> Callable[..., Any]:
        """A function to the loss of one gradient, times its share in a step, the variables after it and measures."""

        def loss(params: Any, rest: Any, index: Array, share: Any) -> tuple[Array, Any]:
            model: Any = nnx.merge(graph, params, held, rest, copy=True)
            logits = model(self.deal(data.x[index]))
            if logits.shape != (wanted := (len(index), *self.spec.targets, self.spec.outputs)):
                raise InputError(f"the model gives logits of shape {list(logits.shape)}, expected {list(wanted)}.")
            losses = self.task.loss(logits, data.y[index], learner.label_smoothing)
            total = sum(penalties(model), jnp.mean(losses))
            return total * share, (nnx.state(model, nnx.Not(nnx.Any(nnx.Param, Bound))), measures(model))

        return loss
