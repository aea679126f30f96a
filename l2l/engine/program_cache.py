"""The compiled programs of a space and a task, and the data on the devices that they read."""

from __future__ import annotations

import collections
import json
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

import jax
import numpy as np

from l2l.engine import jax_caches
from l2l.engine.bucket import Bucket
from l2l.engine.data import Data
from l2l.engine.devices import DeviceLayout
from l2l.engine.fit import Lane, Program, TrainingState
from l2l.engine.limits import Capacity, device_memory
from l2l.engine.trace_files import NO_FILES, TraceFiles, count_cache_hits
from l2l.space import SearchSpace
from l2l.types import Learner, Spec, Task

CACHED_PROGRAMS = 32
"""Programs in memory, each about 6 MiB of the host. Twice as many scatter the heap so much that it keeps growing."""
PROGRAMS_PER_CLEARING = 10
"""Programs compiled between two clearings of JAX's caches: tracing a distinct program leaves about 25 MiB there."""
OPTIMISATION_LEVEL = "xla_backend_optimization_level"
"""The name of the compiler option that says how much XLA optimises, from 0 to 3."""

FUSION_EMITTERS = "xla_cpu_use_fusion_emitters"
"""The name of the compiler option for the newer way to compile loops: faster ones, compiled for longer."""


class CompiledProgram(NamedTuple):
    """A compiled program of P lanes."""

    run: Any
    """The XLA executable: `(lanes, states, begin, end, data)` to states, both with a leading axis P."""
    layout: DeviceLayout
    state_shapes: TrainingState
    """Shapes of one lane's state."""
    seconds: Mapping[str, float]
    """Seconds to trace and to compile it."""


class ProgramCache:
    """Compiles each program once, in the thread that asks for it first; other threads wait for it.

    A program whose file an earlier process has left is read from there. The least recently used programs are
    dropped, and made again if they are needed again.
    """

    def __init__(
        self,
        space: SearchSpace[Learner],
        task: Task,
        spec: Spec,
        data: Data,
        capacity: Capacity,
        compiles_quickly: bool = False,
        files: TraceFiles = NO_FILES,
    ) -> None:
        self.space, self.task, self.spec, self.capacity = space, task, spec, capacity
        self._options, self._files = _make_compiler_options(compiles_quickly), files
        self._validation_examples = len(data.validation_x)
        self._data: dict[DeviceLayout, Data] = {DeviceLayout(): jax.device_put(data)}
        self._programs: collections.OrderedDict[str, Future[CompiledProgram]] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._compiled_count = 0

    def get(self, bucket: Bucket, traced_values: Mapping[str, Any], lanes: int) -> tuple[CompiledProgram, bool]:
        """The compiled program of a bucket, and whether this call compiled it.

        Raises: MemoryError if the machine has no room for it. Whatever tracing or compiling raises.
        """
        name = name_program(bucket, lanes)
        with self._lock:
            future = self._programs.get(name)
            is_new = future is None
            if future is None:
                future = self._programs[name] = Future()
            self._programs.move_to_end(name)
        if is_new:
            try:
                future.set_result(self._compile(bucket, traced_values, lanes))
                self._drop_unused()
            except BaseException as error:
                with self._lock:
                    self._programs.pop(name, None)
                future.set_exception(error)
        return future.result(), is_new

    def has(self, name: str) -> bool:
        """Whether the program of this name has been compiled."""
        future = self._programs.get(name)
        return future is not None and future.done()

    def choose_layout(self, bucket: Bucket, lanes: int) -> DeviceLayout:
        """The devices for so many lanes of a bucket. Raises: MemoryError if they have not the memory."""
        layout = self.capacity.choose_layout(bucket, lanes)
        if layout is None:
            raise MemoryError(f"{lanes} lanes need more than the {device_memory():.6g} bytes of a device")
        return layout

    def copy_data(self, layout: DeviceLayout) -> Data:
        """The whole data on each device of the layout; copied there once."""
        if layout not in self._data:
            self._data[layout] = jax.device_put(self._data[DeviceLayout()], layout.replicated_sharding)
        return self._data[layout]

    def _compile(self, bucket: Bucket, traced_values: Mapping[str, Any], lanes: int) -> CompiledProgram:
        started = time.perf_counter()
        layout = self.choose_layout(bucket, lanes)
        data = self.copy_data(layout)
        shapes = [f"{leaf.dtype}{leaf.shape}" for leaf in jax.tree.leaves(data)]
        file = self._files.name("program", bucket, lanes, self.spec, shapes, layout.devices, layout.axis, self._options)
        if (saved := self._files.load_program(file)) is not None:
            executable, state = saved
            _check_memory(executable.memory_analysis())
            return CompiledProgram(executable, layout, state, {"compile": time.perf_counter() - started})
        program = Program(self.space, bucket, self.spec, self.task, self._validation_examples, layout.shard_batch)
        state = program.state_shapes(traced_values, data)
        learner = program.build_learner(traced_values)
        batch_size = learner.microbatch or learner.batch_size
        batches = self.spec.examples // batch_size
        order = jax.ShapeDtypeStruct((self.spec.epochs, batches, batch_size), np.int32)
        lane = Lane(dict(traced_values), order, np.int32(1))
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((layout.pad_lanes(lanes), *leaf.shape), leaf.dtype), (lane, state)
        )
        # The name tells JAX's own cache programs of another source apart, which may be equal to the last operation.
        lowered = layout.lower(f"train_{file}", program, lanes, shapes, (np.int32(0), np.int32(0), data))
        traced, hits = time.perf_counter(), count_cache_hits()
        hits_before = hits.count
        executable = lowered.compile(compiler_options=self._options)
        _check_memory(executable.memory_analysis())
        if hits.count == hits_before:
            self._files.save_program(file, executable, layout.devices, state)
        seconds = {"trace": traced - started, "compile": time.perf_counter() - traced}
        return CompiledProgram(executable, layout, state, seconds)

    def _drop_unused(self) -> None:
        with self._lock:
            self._compiled_count += 1
            while len(self._programs) > CACHED_PROGRAMS:
                self._programs.popitem(last=False)
            if self._compiled_count % PROGRAMS_PER_CLEARING == 0:
                jax_caches.clear()


def name_program(bucket: Bucket, lanes: int) -> str:
    """The name of a bucket's program of so many lanes."""
    return json.dumps([bucket.name, lanes])


def _make_compiler_options(compiles_quickly: bool) -> dict[str, Any]:
    """XLA's options: on a CPU, compile sooner, and for the one thread that calls the program."""
    if jax.default_backend() != "cpu":
        return {}
    options: dict[str, Any] = {"xla_cpu_multi_thread_eigen": False}
    if OPTIMISATION_LEVEL not in os.environ.get("XLA_FLAGS", ""):  # what the user has set would be overridden
        options[OPTIMISATION_LEVEL] = 1
    if compiles_quickly and FUSION_EMITTERS not in os.environ.get("XLA_FLAGS", ""):
        options[FUSION_EMITTERS] = False
    return options


def _check_memory(plan: Any) -> None:
    """Compares XLA's memory plan with the machine. Raises: MemoryError if the program needs more than there is."""
    names = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
    # XLA counts donated arrays both as arguments and as outputs.
    required = sum(getattr(plan, name, 0) for name in names) - getattr(plan, "alias_size_in_bytes", 0)
    if required > device_memory():
        raise MemoryError(f"the program needs {required:.6g} bytes, the machine has {device_memory():.6g}")
