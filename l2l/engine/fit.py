"""One lane of a program: its state, and the pure function that trains it from one epoch to another."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from l2l.engine.bucket import Bucket, make_program_values
from l2l.engine.data import Data, add_preprocessing
from l2l.engine.evaluate import make_score, metric_dtypes
from l2l.errors import InputError
from l2l.nn.moe import collect_measures, collect_penalties
from l2l.nn.number import ProgramInput
from l2l.nn.optimizer import BlockOptimizer
from l2l.space import SearchSpace
from l2l.types import Array, Key, Learner, Spec, Task

WEIGHTS, DROPOUT, OTHER, ORDER = range(4)
"""The random streams of a trial: what its key is folded with for each purpose."""


class Lane(NamedTuple):
    """What each lane of a program is given of its own besides its state; the data are the same for all lanes."""

    traced_values: Mapping[str, Any]
    """The candidate's traced values by name, `[]` each."""
    order: Any
    """The examples of each gradient, `[epochs, gradients of one epoch, B]`."""
    microbatches: Any
    """How many gradients are averaged for one step, `[]`."""


class TrainingState(NamedTuple):
    """A training after some epoch: all that a later call needs to go on."""

    params: Any
    rest: Any
    """Every other variable: batch statistics, dropout state, the statistics of the inputs."""
    opt_state: Any
    """Of the optimizer; without meaning before the first epoch, which initialises it."""
    count: Any
    """Steps so far, `[]`."""
    diverged: Any
    """The first step whose loss was not finite, counted from 1; 0 if all were."""
    curve: Mapping[str, Any]
    """Metrics by epoch, `[epochs]`: sums over the split, but means over the epoch of what training measured."""


class Fit(NamedTuple):
    """The result of a training, in the candidate's true shape."""

    params: Any
    rest: Any
    """Every other variable."""
    curve: Mapping[str, Array]
    """Metrics of the epochs so far, as in `TrainingState`."""
    diverged: Array
    state: TrainingState | None = None
    """The lane's state in the shapes of the program; None if no epochs are left."""


class EpochCarry(NamedTuple):
    """What the loop over the gradients of one epoch passes on."""

    state: TrainingState
    """Without its curve."""
    gradient: Any
    """Sum of the current step's gradients so far; `()` if each gradient makes a step."""
    loss: Any
    """Sum of the current step's losses so far, `[]`."""
    total_loss: Any
    """Sum of the losses of the epoch's steps, `[]`."""
    measure_sums: Mapping[str, Any]
    """Sums over the epoch's gradients of what the model measures in training, `[]` each."""


def make_rngs(key: Key) -> nnx.Rngs:
    """The random streams of a trial's modules."""
    return nnx.Rngs(
        jax.random.fold_in(key, OTHER),
        params=jax.random.fold_in(key, WEIGHTS),
        dropout=jax.random.fold_in(key, DROPOUT),
    )


class Program:
    """The pure function of a bucket: a lane's state after one epoch to its state after another.

    `shard` puts the examples `[B, ...]` of a batch where they are computed.
    """

    def __init__(
        self,
        space: SearchSpace[Learner],
        bucket: Bucket,
        spec: Spec,
        task: Task,
        validation_examples: int,
        shard: Callable[[Any], Any] = lambda examples: examples,
    ) -> None:
        self.space, self.bucket, self.spec, self.task, self.shard = space, bucket, spec, task, shard
        self.score = make_score(task, validation_examples, shard)

    def build_learner(self, traced_values: Mapping[str, Any]) -> Learner:
        """The bucket's learner for a lane's traced values."""
        return self.space.build(make_program_values(self.space, self.bucket, traced_values), self.spec)

    def build_model(self, learner: Learner) -> nnx.Module:
        """The bucket's model in training mode; its weights come from the lane's state."""
        model = add_preprocessing(learner.model(make_rngs(jax.random.key(0))), self.spec)
        model.train()
        return model

    def state_shapes(self, traced_values: Mapping[str, Any], data: Data) -> TrainingState:
        """A lane's state, as shapes only."""

        def initialise(traced_values: Mapping[str, Any], y: Any) -> TrainingState:
            learner = self.build_learner(traced_values)
            model = self.build_model(learner)
            _, params, _, rest = nnx.split(model, nnx.Param, ProgramInput, ...)
            names = (*metric_dtypes(self.task, y), *collect_measures(model), "train_loss")
            curve = {name: jnp.zeros(self.spec.epochs, jnp.float32) for name in names}
            zero = jnp.zeros((), jnp.int32)
            return TrainingState(params, rest, learner.optimizer.init(params), zero, zero, curve)

        return jax.eval_shape(initialise, dict(traced_values), data.validation_y)

    def __call__(self, lane: Lane, state: TrainingState, begin: Any, end: Any, data: Data) -> TrainingState:
        """Trains one lane from epoch `begin` to `end`, counted from 0, and scores it after each epoch.

        The bounds are data: one program serves every rung, and a training in parts gives the bits of one in one go.
        """
        learner = self.build_learner(lane.traced_values)
        model = self.build_model(learner)
        graph, _, inputs, _ = nnx.split(model, nnx.Param, ProgramInput, ...)
        measure_names = tuple(collect_measures(model))
        model.eval()
        training = LaneTraining(self, learner, lane, data, graph, nnx.graphdef(model), inputs, measure_names)
        initial = learner.optimizer.init(state.params)
        opt_state = jax.tree.map(lambda new, old: jnp.where(begin == 0, new, old), initial, state.opt_state)
        return jax.lax.fori_loop(begin, end, training.run_epoch, state._replace(opt_state=opt_state))


@dataclass(frozen=True)
class LaneTraining:
    """The epochs, gradients and steps of one lane, as its program is traced."""

    program: Program
    learner: Learner
    lane: Lane
    data: Data
    graph: Any
    """The model without its variables, in training mode."""
    eval_graph: Any
    """The same in evaluation mode."""
    inputs: Any
    """Variables of the model that are traced values of the candidate."""
    measure_names: tuple[str, ...]
    """Names of what the model measures in training."""

    def run_epoch(self, epoch: Any, state: TrainingState) -> TrainingState:
        """The state after one epoch, with its scores in the curve."""
        indices = self.lane.order[epoch]
        gradients = len(indices)
        microbatches = self.lane.microbatches if self.accumulates else 1
        steps = gradients // microbatches
        zero = jnp.zeros(())
        gradient = jax.tree.map(jnp.zeros_like, state.params) if self.accumulates else ()
        carry = EpochCarry(state._replace(curve={}), gradient, zero, zero, dict.fromkeys(self.measure_names, zero))
        run_gradient = functools.partial(self.run_gradient, indices, microbatches, steps)
        carry = jax.lax.fori_loop(0, gradients, run_gradient, carry)
        scores = self.score(carry.state) | {"train_loss": carry.total_loss / steps}
        scores |= {name: total / gradients for name, total in carry.measure_sums.items()}
        curve = {name: values.at[epoch].set(scores[name]) for name, values in state.curve.items()}
        return carry.state._replace(curve=curve)

    @property
    def accumulates(self) -> bool:
        """Whether a step averages several gradients."""
        return self.learner.microbatch is not None

    def run_gradient(self, indices: Array, microbatches: Any, steps: Any, at: Any, carry: EpochCarry) -> EpochCarry:
        """Computes the epoch's gradient number `at`, and takes a step if it is the last gradient of one.

        `indices` are the examples of the epoch's gradients, `[gradients, B]`.
        """
        state = carry.state
        compute = jax.value_and_grad(self.loss, has_aux=True)
        (loss, (rest, measures)), gradient = compute(state.params, state.rest, indices[at], 1.0 / microbatches)
        carry = carry._replace(measure_sums=jax.tree.map(jnp.add, carry.measure_sums, measures))
        if self.accumulates:
            return self.accumulate(carry, at, microbatches, steps, loss, gradient, rest)
        state = self.step(state._replace(rest=rest), loss, gradient)
        return carry._replace(state=state, total_loss=carry.total_loss + loss)

    def accumulate(
        self, carry: EpochCarry, at: Any, microbatches: Any, steps: Any, loss: Any, gradient: Any, rest: Any
    ) -> EpochCarry:
        """Adds a gradient to the sum of its step, and takes the step after the last of its gradients.

        The gradients of all steps are one loop: with an inner loop for each step, lanes would wait for each other.
        """
        is_first, is_last = at % microbatches == 0, at % microbatches == microbatches - 1
        in_step = at < steps * microbatches  # gradients after the last full step change nothing
        loss = loss + jnp.where(is_first, 0.0, carry.loss)
        gradient = jax.tree.map(lambda new, old: jnp.where(is_first, new, new + old), gradient, carry.gradient)
        rest = jax.tree.map(lambda new, old: jnp.where(in_step, new, old), rest, carry.state.rest)
        state = carry.state._replace(rest=rest)
        state = jax.lax.cond(is_last, self.step, lambda state, *_: state, state, loss, gradient)
        total_loss = carry.total_loss + jnp.where(is_last, loss, 0.0)
        return EpochCarry(state, gradient, loss, total_loss, carry.measure_sums)

    def step(self, state: TrainingState, loss: Any, gradient: Any) -> TrainingState:
        """The state after one step of the optimizer; keeps the number of the first step whose loss is not finite."""
        optimizer = self.learner.optimizer
        if isinstance(optimizer, BlockOptimizer):
            params, opt_state = optimizer.apply(gradient, state.opt_state, state.params)
        else:
            updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        diverged = jnp.where((state.diverged == 0) & ~jnp.isfinite(loss), state.count + 1, state.diverged)
        return state._replace(params=params, opt_state=opt_state, count=state.count + 1, diverged=diverged)

    def loss(self, params: Any, rest: Any, indices: Array, share: Any) -> tuple[Array, Any]:
        """The mean loss of the examples `indices` `[B]` times its share in a step.

        Beside it, the other variables after it and what the model measured.
        """
        model: Any = nnx.merge(self.graph, params, self.inputs, rest, copy=True)
        spec, task = self.program.spec, self.program.task
        logits = model(self.program.shard(self.data.x[indices]))
        if logits.shape != (expected := (len(indices), *spec.targets, spec.outputs)):
            raise InputError(f"the model gives logits of shape {list(logits.shape)}, expected {list(expected)}.")
        losses = task.loss(logits, self.data.y[indices], self.learner.label_smoothing)
        total = sum(collect_penalties(model), jnp.mean(losses))
        return total * share, (nnx.state(model, nnx.Not(nnx.Any(nnx.Param, ProgramInput))), collect_measures(model))

    def score(self, state: TrainingState) -> dict[str, Array]:
        """The sums of the task's metrics over the validation split, `[]` each."""
        model: Any = nnx.merge(self.eval_graph, state.params, self.inputs, state.rest, copy=True)
        return self.program.score(model, self.data.validation_x, self.data.validation_y)
