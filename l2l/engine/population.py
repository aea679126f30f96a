"""Trains candidates as the lanes of compiled programs: assembles the lanes, calls the program, takes the results."""

from __future__ import annotations

import collections
import contextlib
import json
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from l2l.engine.bucket import (
    Bucket,
    make_exact_bucket,
    make_lane_data,
    make_own_values,
    make_shared_bucket,
    make_unpadded_bucket,
)
from l2l.engine.checkpoint import unflatten_state
from l2l.engine.data import add_preprocessing, compute_statistics, load_data, make_spec, sample_order
from l2l.engine.embedding import crop, embed, make_zeros, move_to_host, stack_lanes
from l2l.engine.evaluate import metric_dtypes
from l2l.engine.fit import ORDER, Fit, Lane, TrainingState, make_rngs
from l2l.engine.limits import Capacity, Limits
from l2l.engine.program_cache import CompiledProgram, ProgramCache
from l2l.engine.size_levels import ProgramPlan, plan_programs
from l2l.engine.trace_files import TraceFiles
from l2l.nn.number import ProgramInput
from l2l.space import Candidate, SearchSpace
from l2l.types import Key, Learner, Task

SHAPES = 1024
"""Candidates whose shapes are remembered, so that their weights need not be sampled again to go on from a rung."""


class InitialModel(NamedTuple):
    """A candidate's model in its true shape: its initial variables, or only their shapes."""

    params: Any
    rest: Any
    """Every other variable."""
    learner: Learner


class TrainingPart(NamedTuple):
    """A part of a training, which is cut at rungs: its epochs, and the states that it goes on from."""

    begin: int = 0
    end: int | None = None
    """The last epoch, counted from 1; None: the last one of a full training."""
    states: Sequence[Sequence[Any]] = ()
    """For each candidate the leaves of its `TrainingState` after epoch `begin`; empty at the beginning."""

    def select(self, index: int) -> TrainingPart:
        """The same part for one of the candidates."""
        return self._replace(states=self.states[index : index + 1])


FULL_TRAINING = TrainingPart()


class Population:
    """Trains candidates of one space on one task, with the data on the devices and the programs in a cache."""

    def __init__(
        self,
        space: SearchSpace[Learner],
        task: Task,
        epochs: int | None,
        limits: Limits | None = None,
        plan: ProgramPlan | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        """`identity` says which space and task these are: if it is given, later processes trace nothing anew."""
        data = load_data(task)
        self.task, self.space = task, space
        self.spec = make_spec(task, data, epochs)
        self.statistics = compute_statistics(task, data)
        self.validation_examples = len(data.validation_x)
        self.summed_metrics = frozenset(metric_dtypes(task, data.validation_y))
        self.plan = plan_programs(space, self.spec) if plan is None else plan
        files = TraceFiles.of(identity)
        self.capacity = Capacity(space, self.spec, limits or Limits(), files)
        self.programs = ProgramCache(space, task, self.spec, data, self.capacity, self.plan.compiles_quickly, files)
        self._shapes: collections.OrderedDict[str, tuple[Any, Any]] = collections.OrderedDict()
        self._lock = threading.Lock()
        # An accelerator's memory is counted for one cohort: two at a time would fit only by chance.
        self._device_lock = threading.Lock() if jax.default_backend() != "cpu" else contextlib.nullcontext()

    def bucket(self, candidate: Candidate) -> Bucket:
        """The candidate's bucket; without padding if the machine has no room for the padded sizes."""
        padded = make_shared_bucket(self.space, candidate, self.plan.levels)
        if not padded.sizes or self.capacity.choose_layout(padded):
            return padded
        return make_unpadded_bucket(self.space, candidate)

    def refusal(self, candidate: Candidate) -> str | None:
        """Why the candidate must not begin; None if it may."""
        return self.capacity.refusal(candidate, self.bucket(candidate))

    def build_module(self, candidate: Candidate, bucket: Bucket, key: Key) -> tuple[Any, Learner]:
        """The candidate's module in its true shape, initialised from its key on the host, and its learner."""
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            learner = self.space.build(make_own_values(self.space, candidate, bucket), self.spec)
            model = add_preprocessing(learner.model(make_rngs(key)), self.spec, self.statistics)
            model.train()
        return model, learner

    def restore_module(self, candidate: Candidate, fit: Fit) -> nnx.Module:
        """The candidate's module with the variables of a fit, in evaluation mode."""
        model, _ = self.build_module(candidate, make_exact_bucket(candidate), jax.random.key(0))
        variables = dict(nnx.to_flat_state(fit.params)) | dict(nnx.to_flat_state(fit.rest))
        paths = [path for path, _ in nnx.to_flat_state(nnx.state(model))]
        nnx.update(model, nnx.from_flat_state([(path, variables[path]) for path in paths if path in variables]))
        model.eval()
        return model

    def train(
        self, members: Sequence[tuple[Candidate, Key]], bucket: Bucket, lanes: int, part: TrainingPart = FULL_TRAINING
    ) -> tuple[list[Fit], dict[str, float]]:
        """The fit of each candidate of a bucket, in its true shape, and the seconds that they took together.

        Raises: DamagedCheckpoint if a state to go on from does not fit the program. MemoryError if the machine has no
            room for so many lanes; nothing has been allocated then.
        """
        started = time.perf_counter()
        self.programs.choose_layout(bucket, lanes)
        models = [self._initialise(candidate, bucket, key, bool(part.states)) for candidate, key in members]
        values = [make_lane_data(self.space, candidate, bucket) for candidate, _ in members]
        initialised = time.perf_counter()
        program, is_new = self.programs.get(bucket, values[0], lanes)
        compiled = time.perf_counter()
        inputs = [
            (self._make_lane(model.learner, traced_values, key), self._make_state(program, model, part.select(index)))
            for index, (model, traced_values, (_, key)) in enumerate(zip(models, values, members, strict=True))
        ]
        layout = program.layout
        stacked = stack_lanes(inputs + inputs[:1] * (layout.pad_lanes(lanes) - len(inputs)))
        end = self.spec.epochs if part.end is None else min(part.end, self.spec.epochs)
        bounds = (np.int32(part.begin), np.int32(end))
        assembled = time.perf_counter()
        with self._device_lock:
            entered = time.perf_counter()
            if layout.devices > 1:
                stacked = jax.device_put(stacked, layout.lane_sharding)
            state = jax.block_until_ready(program.run(*stacked, *bounds, self.programs.copy_data(layout)))
            if end == self.spec.epochs:
                state = state._replace(opt_state=None)  # not needed any more: it is not copied to the host
            state = jax.tree.map(move_to_host, state)
        ended = time.perf_counter()
        states = [jax.tree.map(lambda leaf, index=index: leaf[index], state) for index in range(len(models))]
        fits = [self._make_fit(state, model, end) for state, model in zip(states, models, strict=True)]
        # What each candidate costs, initial weights included, without the time it waited for other threads.
        train = initialised - started + assembled - compiled + ended - entered
        return fits, {"trace": 0.0, "compile": 0.0, **(program.seconds if is_new else {}), "train": train}

    def _initialise(self, candidate: Candidate, bucket: Bucket, key: Key, has_state: bool) -> InitialModel:
        """The candidate's initial model; if it goes on from a state, remembered shapes are enough."""
        name = json.dumps([bucket.name, candidate.key])
        if has_state and (shapes := self._shapes.get(name)) is not None:
            with jax.default_device(jax.local_devices(backend="cpu")[0]):
                return InitialModel(
                    *shapes, self.space.build(make_own_values(self.space, candidate, bucket), self.spec)
                )
        model, learner = self.build_module(candidate, bucket, key)
        _, params, _, rest = nnx.split(model, nnx.Param, ProgramInput, ...)
        with self._lock:
            self._shapes[name] = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (params, rest))
            while len(self._shapes) > SHAPES:
                self._shapes.popitem(last=False)
        return InitialModel(params, rest, learner)

    def _make_lane(self, learner: Learner, traced_values: Mapping[str, Any], key: Key) -> Lane:
        """The candidate's traced values and the order in which it sees the examples."""
        microbatch = learner.microbatch or learner.batch_size
        order = sample_order(jax.random.fold_in(key, ORDER), self.spec, microbatch)
        return Lane(traced_values, order, np.int32(int(learner.batch_size) // microbatch))

    def _make_state(self, program: CompiledProgram, model: InitialModel, part: TrainingPart) -> TrainingState:
        """The state that the candidate goes on from, or its initial variables in the shapes of the program."""
        shapes = program.state_shapes
        if part.states:
            return unflatten_state(shapes, part.states[0])
        zeros = jax.tree.map(make_zeros, shapes._replace(params=None, rest=None))
        return zeros._replace(params=embed(model.params, shapes.params), rest=embed(model.rest, shapes.rest))

    def _make_fit(self, state: TrainingState, model: InitialModel, end: int) -> Fit:
        curve = {name: values[:end] for name, values in state.curve.items()}
        params, rest = crop(state.params, model.params), crop(state.rest, model.rest)
        return Fit(params, rest, curve, state.diverged, state if end < self.spec.epochs else None)
