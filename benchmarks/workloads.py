"""The workloads of `candidates.py`: a space, a task, and the candidates that a random search of it proposes."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from l2l.api import search
from l2l.engine import data as engine_data
from l2l.engine.fit import ORDER
from l2l.executors.inline import Inline
from l2l.searchers.random_search import Random
from l2l.space import SearchSpace
from l2l.store.optuna_store import OptunaStore
from l2l.tasks.digits import Digits
from l2l.tasks.idx_images import FashionMnist
from l2l.types import Outcome, Spec, Task, Trial
from search_spaces import mixed, transformer

BATCH = 200
"""Candidates that l2l's search asks for at once, unless the command says otherwise."""


@dataclass(frozen=True)
class Workload:
    """What every peer does: candidates of this space on this task, for so many epochs."""

    task: str
    epochs: int
    count: int
    """How many candidates, unless the command says otherwise."""
    space: dict[str, Any] = field(default_factory=dict[str, Any])
    """Arguments of the space."""
    name: str = "mixed"
    """The space's; of others than `mixed` the Flax loop is the one peer."""

    def words(self, count: int, seed: int, batch: int) -> list[str]:
        """What follows `l2l search` to run it."""
        space = [f"space.{name}={json.dumps(value).replace(' ', '')}" for name, value in self.space.items()]
        return [
            f"space={self.name}", *space, f"task={self.task}", f"objective.epochs={self.epochs}", "searcher=random",
            f"seed={seed}", f"trials={count}", f"batch={batch}",
        ]  # fmt: skip


WORKLOADS = {
    "A": Workload("digits", 5, 200),
    "B": Workload("fashion_mnist", 1, 12, {"families": ["cnn"], "depth": [2, 4], "filters": [8, 16, 32]}),
    "C": Workload(
        "digits", 5, 256,
        {"families": ["mlp"], "depth": [2, 2], "widths": [64], "activations": ["relu"], "optimizers": ["adamw"],
         "batch_sizes": [64]},
    ),
    "D": Workload("digits", 5, 100, name="transformer"),
}  # fmt: skip


@dataclass
class Noted:
    """An objective that trains nothing and notes what was proposed."""

    space: SearchSpace[Any]
    task: Task
    seed: int
    noted: list[Trial]

    def check(self) -> None:
        """Anything goes."""

    def __call__(self, trials: Sequence[Trial]) -> Iterator[Trial]:
        """Each trial with a made-up accuracy."""
        for trial in trials:
            self.noted.append(trial)
            yield replace(trial, outcome=Outcome(metrics={"accuracy": 0.5}))


def make_task(workload: Workload) -> Task:
    """The workload's task."""
    return {"digits": Digits, "fashion_mnist": FashionMnist}[workload.task]()


def make_space(workload: Workload) -> SearchSpace[Any]:
    """The workload's space."""
    return {"mixed": mixed, "transformer": transformer}[workload.name].space(**workload.space)


def propose_trials(workload: Workload, count: int, seed: int, batch: int) -> list[Trial]:
    """The trials that l2l's search opens, by number."""
    trials = list[Trial]()
    objective = functools.partial(Noted, trials=trials)
    with tempfile.TemporaryDirectory() as folder:
        search(
            make_space(workload), make_task(workload), Random(), objective=objective, executor=Inline(),
            store=OptunaStore("memory"), tracker={}, final=None,
            trials=count, batch=batch, seed=seed, out=Path(folder) / "run",
        )  # fmt: skip
    return sorted(trials, key=lambda trial: trial.number)


def write_inputs(workload: Workload, count: int, seed: int, batch: int, folder: Path) -> list[Trial]:
    """The trials; writes to `folder` what the peers read: candidates, normalised data and orders of examples."""
    task, trials = make_task(workload), propose_trials(workload, count, seed, batch)
    host = engine_data.load_data(task)
    mean, scale = engine_data.compute_statistics(task, host)
    x, vx = ((images.astype(np.float32) - mean) / scale for images in (host.x, host.validation_x))
    np.savez(folder / "data.npz", x=x, y=host.y, vx=vx, vy=host.validation_y)
    write_orders(workload, trials, seed, folder)
    (folder / "candidates.json").write_text(json.dumps([dict(trial.candidate.values) for trial in trials]))
    spec = make_spec(workload)
    about = {"outputs": spec.outputs, "space": workload.name, "spec": spec._asdict()}
    (folder / "about.json").write_text(json.dumps(about))
    return trials


def make_spec(workload: Workload) -> Spec:
    """What the workload's task asks of a model."""
    task = make_task(workload)
    return engine_data.make_spec(task, engine_data.load_data(task), workload.epochs)


def write_orders(workload: Workload, trials: Sequence[Trial], seed: int, folder: Path) -> None:
    """Writes the order in which l2l shows each trial its examples under this seed, `[trials, epochs, examples]`."""
    spec = make_spec(workload)
    orders = np.empty((len(trials), spec.epochs, spec.examples), np.int32)
    for index, trial in enumerate(trials):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), trial.number), ORDER)
        orders[index] = engine_data.sample_order(key, spec, 1).reshape(spec.epochs, -1)
    np.save(folder / "orders.npy", orders)
