"""The lanes of a cohort as one compiled program: prepared in the background, kept while they are of use."""

from __future__ import annotations

import collections
import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from l2l.engine import data as data_
from l2l.engine.fit import Build, Fitted, Graphs, Lane, make_train, prepare, shareable
from l2l.space import Candidate, SearchSpace
from l2l.types import Key, Learner, Task

KEPT = 32
"""Programs kept in memory; a distinct one holds about 25 MiB of the host until JAX's caches are cleared."""


SHORT = 10_000_000
"""Input numbers seen by a training that counts as short."""


class NotShareable(TypeError):
    """A model has its traced values built in, so that no other candidate can use its program."""


class Program(NamedTuple):
    """A compiled program of P lanes."""

    run: Any
    graphs: Graphs
    lanes: int


class Prepared(NamedTuple):
    """A cohort that is ready to train."""

    program: Program
    stacked: Lane
    filled: int
    """Lanes that belong to a trial; the others are copies."""
    seconds: Mapping[str, float]


class Population:
    """Trains candidates of one space on one task, the data on the device and programs kept by their shape."""

    def __init__(self, space: SearchSpace[Learner], task: Task, epochs: int | None) -> None:
        host = data_.load(task)
        self.task, self.space = task, space
        self.build: Build = space.build
        self.spec = data_.specify(task, host, epochs)
        self.statistics = data_.statistics(task, host)
        self.validation = len(host.validation_x)
        self.data = jax.device_put(host)
        self._programs: collections.OrderedDict[str, Program] = collections.OrderedDict()
        self._compiled = 0

    def prepare(self, members: Sequence[tuple[Candidate, Key]], lanes: int, exact: bool = False) -> Prepared:
        """The compiled program and the stacked lanes of these (candidate, trial key) pairs.

        All candidates agree in their static values. With `exact` the traced values are compiled in as plain
        numbers, for models that cannot take an array: then there is one lane.
        """
        started = time.perf_counter()
        candidates = [candidate for candidate, _ in members]
        static = dict(candidates[0].values) if exact else self.space.static(candidates[0])
        traced = [{} if exact else self.space.traced(candidate) for candidate in candidates]
        prepared = [
            prepare(self.build, static, numbers, self.spec, self.statistics, key)
            for numbers, (_, key) in zip(traced, members, strict=True)
        ]
        graphs = prepared[0][0]
        rows = [lane for _, lane in prepared]
        stacked = stack(rows + rows[:1] * (lanes - len(rows)))
        name = json.dumps([static, lanes, exact])
        program = self._programs.get(name)
        built = time.perf_counter() - started
        seconds = {"trace": built, "compile": 0.0}
        if program is None or program.graphs != graphs:
            if not exact and not shareable(self.build, static, traced[0], self.spec, graphs):
                raise NotShareable("a traced value was built into the model")
            program, seconds = self._compile(make_train(
                self.build, static, self.spec, self.task, graphs, self.validation
            ), graphs, stacked, lanes)  # fmt: skip
            seconds["trace"] += built
            self._keep(name, program)
        self._programs.move_to_end(name)
        return Prepared(program, stacked, len(rows), seconds)

    def _compile(self, train: Any, graphs: Graphs, stacked: Lane, lanes: int) -> tuple[Program, dict[str, float]]:
        begun = time.perf_counter()
        lowered = jax.jit(jax.vmap(train, in_axes=(0, None))).trace(stacked, self.data).lower()
        traced = time.perf_counter()
        run = lowered.compile(compiler_options=self._options())
        return Program(run, graphs, lanes), {"trace": traced - begun, "compile": time.perf_counter() - traced}

    def _options(self) -> dict[str, Any]:
        """How to compile: on a CPU, quickly, and more so where a training is short."""
        if jax.default_backend() != "cpu":
            return {}
        # Level 1 compiles a third faster and runs as fast. Without fusion emitters a program compiles in 0.6 of
        # the time and runs 10 to 25 % longer, which pays below a few seconds of training.
        work = self.spec.examples * self.spec.epochs * math.prod(self.spec.inputs)
        return {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": work > SHORT}

    def _keep(self, name: str, program: Program) -> None:
        self._programs[name] = program
        self._compiled += 1
        while len(self._programs) > KEPT:
            self._programs.popitem(last=False)
        if self._compiled % KEPT == 0:
            jax.clear_caches()

    def train(self, prepared: Prepared) -> tuple[list[Fitted], float]:
        """What each candidate's lane leaves behind, on the host, and the seconds it took."""
        started = time.perf_counter()
        fitted = jax.tree.map(to_host, jax.block_until_ready(prepared.program.run(prepared.stacked, self.data)))
        lanes = [jax.tree.map(lambda leaf, at=at: leaf[at], fitted) for at in range(prepared.filled)]
        return lanes, time.perf_counter() - started


def to_host(leaf: Any) -> Any:
    """A NumPy array of the leaf; a typed key stays as it is."""
    return leaf if is_key(leaf) else np.asarray(leaf)


def is_key(leaf: Any) -> bool:
    """Whether the leaf is an array of typed JAX keys."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def stack(lanes: Sequence[Lane]) -> Lane:
    """Lanes with a leading axis P, stacked on the host so that a new shape costs no compilation."""

    def join(*leaves: Any) -> Any:
        if is_key(leaves[0]):
            words: Any = np.stack([np.asarray(jax.random.key_data(leaf)) for leaf in leaves])
            return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaves[0]))
        return np.stack([np.asarray(leaf) for leaf in leaves])

    return jax.tree.map(join, *lanes)
