"""The lanes of a cohort as one compiled program: compiled once for each bucket, kept while it is of use."""

from __future__ import annotations

import collections
import contextlib
import json
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from l2l.engine import data as data_
from l2l.engine import jax_caches
from l2l.engine.bucket import Bucket, Ladders, alone, bucket, exact, numbers, plain
from l2l.engine.checkpoint import Damaged
from l2l.engine.devices import Place
from l2l.engine.evaluate import metrics
from l2l.engine.fit import ORDER, Fitted, Lane, Program, State, streams
from l2l.engine.limits import Limits, Sizes, memory
from l2l.engine.size_levels import ladders
from l2l.nn.padded import Bound
from l2l.nn.stack import ALONE, STACKED
from l2l.space import Candidate, SearchSpace
from l2l.types import Key, Learner, Task

KEPT = 32
"""Programs kept in memory, each about 6 MiB of the host; twice as many scatter the heap so that it keeps growing."""
CLEARED = 10
"""Programs between two clearings of JAX's caches: what tracing a distinct one leaves there is about 25 MiB."""
OUTLINES = 1024
"""Candidates whose shapes are remembered, so that they need not be drawn again to go on from a rung."""


class Compiled(NamedTuple):
    """A compiled program of P lanes."""

    run: Any
    place: Place
    state: State
    """Shapes of a lane's state."""
    seconds: Mapping[str, float]


class Own(NamedTuple):
    """A candidate in its true shape: its variables as first drawn, or their shapes alone."""

    params: Any
    rest: Any
    learner: Learner


class Stage(NamedTuple):
    """A part of a training: its epochs, and the states that it goes on from."""

    begin: int = 0
    end: int | None = None
    """The last epoch, counted from 1; None: that of a full training."""
    states: Sequence[Sequence[Any]] = ()
    """For each candidate the leaves of its `State` after epoch `begin`; empty at the beginning."""

    def only(self, place: int) -> Stage:
        """The same for one candidate alone."""
        return self._replace(states=self.states[place : place + 1])


WHOLE = Stage()
"""A full training."""


class Population:
    """Trains candidates of one space on one task, the data on the device and programs kept by their shape."""

    def __init__(
        self,
        space: SearchSpace[Learner],
        task: Task,
        epochs: int | None,
        limits: Limits | None = None,
        padded: Ladders | None = None,
    ) -> None:
        host = data_.load(task)
        self.task, self.space = task, space
        self.spec = data_.specify(task, host, epochs)
        self.statistics = data_.statistics(task, host)
        self.validation = len(host.validation_x)
        self.scores = frozenset(metrics(task, host.validation_y))
        self._data: dict[Place, data_.Data] = {Place(): jax.device_put(host)}
        self.ladders: Ladders = ladders(space, self.spec) if padded is None else padded
        self.sizes = Sizes(space, self.spec, limits or Limits())
        self._programs: collections.OrderedDict[str, Future[Compiled]] = collections.OrderedDict()
        self._outlines: collections.OrderedDict[str, tuple[Any, Any]] = collections.OrderedDict()
        self._lock = threading.Lock()
        # An accelerator's memory is counted for one cohort: two at a time would need room by chance.
        self._device = threading.Lock() if jax.default_backend() != "cpu" else contextlib.nullcontext()
        self._made = 0

    def bucket(self, candidate: Candidate) -> Bucket:
        """The bucket of a candidate: that of its true shape alone where the machine has no room for the padding."""
        held = bucket(self.space, candidate, self.ladders)
        return held if not held.sizes or self.sizes.place(held) else plain(self.space, candidate)

    def refusal(self, candidate: Candidate) -> str | None:
        """Why the candidate must not begin, None if it may."""
        return self.sizes.refusal(candidate, self.bucket(candidate))

    def module(self, candidate: Candidate, held: Bucket, key: Key) -> tuple[Any, Any]:
        """The candidate's own module in its true shape, as first drawn from its key on the host, and its learner."""
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            learner = self.space.build(alone(self.space, candidate, held), self.spec)
            model = data_.raw(learner.model(streams(key)), self.spec, self.statistics)
            model.train()
        return model, learner

    def trained(self, candidate: Candidate, fitted: Fitted) -> nnx.Module:
        """The candidate's own module with what a training left behind, in evaluation mode."""
        model, _ = self.module(candidate, exact(candidate), jax.random.key(0))
        state = dict(nnx.to_flat_state(fitted.params)) | dict(nnx.to_flat_state(fitted.rest))
        own = [path for path, _ in nnx.to_flat_state(nnx.state(model))]
        nnx.update(model, nnx.from_flat_state([(path, state[path]) for path in own if path in state]))
        model.eval()
        return model

    def program(self, held: Bucket, data: Mapping[str, Any], lanes: int) -> tuple[Compiled, bool]:
        """The compiled program of a bucket, and whether it was compiled for this call; others wait for it.

        Raises: MemoryError if the machine has no room for it. Whatever tracing or compiling raises.
        """
        name = title(held, lanes)
        with self._lock:
            found = self._programs.get(name)
            ours = found is None
            if found is None:
                found = self._programs[name] = Future()
            self._programs.move_to_end(name)
        if ours:
            try:
                found.set_result(self._compile(held, data, lanes))
                self._forget()
            except BaseException as error:
                with self._lock:
                    self._programs.pop(name, None)
                found.set_exception(error)
        return found.result(), ours

    def ready(self, name: str) -> bool:
        """Whether a program of this name has been compiled."""
        found = self._programs.get(name)
        return found is not None and found.done()

    def _compile(self, held: Bucket, data: Mapping[str, Any], lanes: int) -> Compiled:
        begun = time.perf_counter()
        place = self._place(held, lanes)
        program = Program(self.space, held, self.spec, self.task, self.validation, place.batch)
        state = program.shapes(data, self._held(place))
        size = program.learner(data)
        micro = size.microbatch or size.batch_size
        steps = self.spec.examples // micro
        lane = Lane(dict(data), jax.ShapeDtypeStruct((self.spec.epochs, steps, micro), np.int32), np.int32(1))
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((place.filled(lanes), *leaf.shape), leaf.dtype), (lane, state)
        )
        lowered = place.lowered(program, lanes, shapes, (np.int32(0), np.int32(0), self._held(place)))
        traced = time.perf_counter()
        run = lowered.compile(compiler_options=self._options())
        _check_memory(run.memory_analysis())
        seconds = {"trace": traced - begun, "compile": time.perf_counter() - traced}
        return Compiled(run, place, state, seconds)

    def _place(self, held: Bucket, lanes: int) -> Place:
        place = self.sizes.place(held, lanes)
        if place is None:
            raise MemoryError(f"{lanes} lanes need more than the {memory():.6g} bytes of a device")
        return place

    def _held(self, place: Place) -> data_.Data:
        """The data, whole on each of these devices."""
        if place not in self._data:
            self._data[place] = jax.device_put(self._data[Place()], place.shared())
        return self._data[place]

    def _options(self) -> dict[str, Any]:
        """How to compile: on a CPU, quickly, and for the one thread that calls."""
        if jax.default_backend() != "cpu":
            return {}
        return {"xla_backend_optimization_level": 1, "xla_cpu_multi_thread_eigen": False}

    def _forget(self) -> None:
        with self._lock:
            self._made += 1
            while len(self._programs) > KEPT:
                self._programs.popitem(last=False)
            if self._made % CLEARED == 0:
                jax_caches.clear()

    def train(
        self, members: Sequence[tuple[Candidate, Key]], held: Bucket, lanes: int, stage: Stage = WHOLE
    ) -> tuple[list[Fitted], dict[str, float]]:
        """What each candidate's lane leaves behind, in its true shape, and the seconds it took.

        Raises: Damaged if a state to go on from is not one of this program. MemoryError if the machine has no room
            for so many lanes; nothing has been allocated then.
        """
        started = time.perf_counter()
        self._place(held, lanes)
        drawn = [self._drawn(candidate, held, key, bool(stage.states)) for candidate, key in members]
        data = [numbers(self.space, candidate, held) for candidate, _ in members]
        begun = time.perf_counter()
        compiled, ours = self.program(held, data[0], lanes)
        waited = time.perf_counter()
        rows = [
            (self._lane(own.learner, each, key), self._state(compiled, own, stage.states[at : at + 1]))
            for at, (own, each, (_, key)) in enumerate(zip(drawn, data, members, strict=True))
        ]
        place = compiled.place
        stacked = stack(rows + rows[:1] * (place.filled(lanes) - len(rows)))
        end = self.spec.epochs if stage.end is None else min(stage.end, self.spec.epochs)
        bounds = (np.int32(stage.begin), np.int32(end))
        ready = time.perf_counter()
        with self._device:
            entered = time.perf_counter()
            if place.devices > 1:
                stacked = jax.device_put(stacked, place.lanes())
            state = jax.block_until_ready(compiled.run(*stacked, *bounds, self._held(place)))
            if end == self.spec.epochs:
                state = state._replace(optimizer=None)  # stays where it is: nobody asks for it
            state = jax.tree.map(to_host, state)
        ended = time.perf_counter()
        fits = [self._cut(jax.tree.map(lambda leaf, at=at: leaf[at], state), own, end) for at, own in enumerate(drawn)]
        # What every candidate costs, drawn weights included, without what it waited for other threads.
        train = begun - started + ready - waited + ended - entered
        return fits, {"trace": 0.0, "compile": 0.0, **(compiled.seconds if ours else {}), "train": train}

    def _lane(self, learner: Learner, data: Mapping[str, Any], key: Key) -> Lane:
        """What a candidate's lane sees of the data, and its numbers."""
        micro = learner.microbatch or learner.batch_size
        order = data_.order(jax.random.fold_in(key, ORDER), self.spec, micro)
        return Lane(data, order, np.int32(int(learner.batch_size) // micro))

    def _drawn(self, candidate: Candidate, held: Bucket, key: Key, goes_on: bool) -> Own:
        """The candidate in its true shape; of one that goes on, shapes are enough where they are known."""
        name = json.dumps([held.name, candidate.key])
        if goes_on and (outline := self._outlines.get(name)) is not None:
            with jax.default_device(jax.local_devices(backend="cpu")[0]):
                return Own(*outline, self.space.build(alone(self.space, candidate, held), self.spec))
        model, learner = self.module(candidate, held, key)
        _, params, _, rest = nnx.split(model, nnx.Param, Bound, ...)
        with self._lock:
            self._outlines[name] = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (params, rest)
            )
            while len(self._outlines) > OUTLINES:
                self._outlines.popitem(last=False)
        return Own(params, rest, learner)

    def _state(self, compiled: Compiled, own: Own, kept: Sequence[Sequence[Any]]) -> State:
        """The state that was kept, or that before the first step: the model's, embedded in the program's shapes."""
        if kept:
            return restored(compiled.state, kept[0])
        zeros = jax.tree.map(empty, compiled.state._replace(params=None, rest=None))
        shapes = compiled.state
        return zeros._replace(params=embed(own.params, shapes.params), rest=embed(own.rest, shapes.rest))

    def _cut(self, state: State, own: Own, end: int) -> Fitted:
        curve = {name: values[:end] for name, values in state.curve.items()}
        left = state if end < self.spec.epochs else None
        return Fitted(crop(state.params, own.params), crop(state.rest, own.rest), curve, state.diverged, left)


def _check_memory(found: Any) -> None:
    """Raises: MemoryError if XLA plans with more memory than there is."""
    names = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
    # What is donated is counted on both sides.
    needed = sum(getattr(found, name, 0) for name in names) - getattr(found, "alias_size_in_bytes", 0)
    if needed > memory():
        raise MemoryError(f"the program needs {needed:.6g} bytes, the machine has {memory():.6g}")


def title(held: Bucket, lanes: int) -> str:
    """The name of a bucket's program."""
    return json.dumps([held.name, lanes])


def embed(small: Any, large: Any) -> Any:
    """The state `small` at the beginning of zeros of the shapes of `large`; layers that it has one by one are stacked.

    Raises: ValueError if `large` lacks a variable of it, or has less room for one.
    """
    own = dict(nnx.to_flat_state(small))

    def padded(path: Any, shape: Any) -> Any:
        found = own.pop(path, None)
        value = empty(shape) if found is None else to_host(value_of(found))
        if value.shape != shape.shape:
            value = np.pad(value, [(0, b - a) for a, b in zip(value.shape, shape.shape, strict=True)])
        return value

    made: list[Any] = []
    for path, leaf in nnx.to_flat_state(large):
        shape = value_of(leaf)
        if STACKED in path:
            one = jax.ShapeDtypeStruct(shape.shape[1:], shape.dtype)
            value = np.stack([padded(_of_layer(path, number), one) for number in range(shape.shape[0])])
        else:
            value = padded(path, shape)
        made.append((path, with_value(leaf, value)))
    for path, leaf in own.items():
        if isinstance(leaf, nnx.Variable):  # a mere array is a constant of the program
            raise ValueError(f"the padded model has no {'.'.join(map(str, path))}")
    return nnx.from_flat_state(made)


def crop(large: Any, small: Any) -> Any:
    """The beginning of every array of the state `large`, in the shapes of `small`; stacked layers one by one."""
    whole = dict(nnx.to_flat_state(large))
    for path in [path for path in whole if STACKED in path]:
        leaf = whole.pop(path)
        for number, value in enumerate(value_of(leaf)):
            whole[_of_layer(path, number)] = with_value(leaf, value)
    made: list[Any] = []
    for path, leaf in nnx.to_flat_state(small):
        value = value_of(whole.get(path, leaf))
        part = value if is_key(value) else value[tuple(map(slice, value_of(leaf).shape))]
        made.append((path, with_value(leaf, part)))
    return nnx.from_flat_state(made)


def _of_layer(path: tuple[Any, ...], number: int) -> tuple[Any, ...]:
    """Where a layer by itself has what is stacked at this path."""
    at = path.index(STACKED)
    return (*path[:at], ALONE, number, *path[at + 1 :])


def value_of(leaf: Any) -> Any:
    """The array of a variable, or of an attribute that is a mere array."""
    return leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf


def with_value(leaf: Any, value: Any) -> Any:
    """The same kind of leaf with another array."""
    return leaf.replace(value) if isinstance(leaf, nnx.Variable) else value


def empty(shape: Any) -> Any:
    """Zeros of a shape and dtype; typed keys too."""
    if is_key_type(shape):
        words: Any = np.zeros((*shape.shape, 2), np.uint32)
        return jax.random.wrap_key_data(words)
    return np.zeros(shape.shape, shape.dtype)


def to_host(leaf: Any) -> Any:
    """A NumPy array of the leaf; a typed key stays as it is."""
    return leaf if is_key(leaf) else np.asarray(leaf)


def is_key(leaf: Any) -> bool:
    """Whether the leaf is an array of typed JAX keys."""
    return isinstance(leaf, jax.Array) and is_key_type(leaf)


def is_key_type(leaf: Any) -> bool:
    """Whether the leaf, or what a shape stands for, is an array of typed JAX keys."""
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def restored(shapes: State, leaves: Sequence[Any]) -> State:
    """The state of these leaves, as `bare` gave them. Raises: Damaged if their shapes are others."""
    expected, tree = jax.tree.flatten(shapes)
    words = [jax.eval_shape(jax.random.key_data, each) if is_key_type(each) else each for each in expected]
    if [(each.shape, each.dtype) for each in leaves] != [(each.shape, each.dtype) for each in words]:
        raise Damaged("a checkpoint belongs to another program")
    pairs = zip(leaves, expected, strict=True)
    return jax.tree.unflatten(tree, [jax.random.wrap_key_data(a) if is_key_type(b) else a for a, b in pairs])


def bare(state: State) -> list[np.ndarray]:
    """The leaves of a state on the host, keys as their words."""
    return [np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf) for leaf in jax.tree.leaves(state)]


def stack(lanes: Sequence[Any]) -> Any:
    """Trees with a leading axis P, stacked on the host so that a new shape costs no compilation."""

    def join(*leaves: Any) -> Any:
        if is_key(leaves[0]):
            words: Any = np.stack([np.asarray(jax.random.key_data(leaf)) for leaf in leaves])
            return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaves[0]))
        return np.stack([np.asarray(leaf) for leaf in leaves])

    return jax.tree.map(join, *lanes)
