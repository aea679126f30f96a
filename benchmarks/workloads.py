"""The workloads of `candidates.py`: a space, a task, and the candidates that a random search of it proposes."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from l2l.engine import data as data_
from l2l.engine.fit import ORDER
from l2l.executors.inline import Inline
from l2l.loop import search
from l2l.reward import Metric
from l2l.searchers.random import Random
from l2l.space import SearchSpace
from l2l.store import Store
from l2l.tasks.digits import Digits
from l2l.tasks.idx_images import FashionMnist
from l2l.types import Outcome, Task, Trial
from search_spaces import mixed

BATCH = 50
"""Candidates that l2l's search asks for at once."""


@dataclass(frozen=True)
class Workload:
    """What every peer does: candidates of this space on this task, for so many epochs."""

    task: str
    epochs: int
    count: int
    """How many candidates, unless the command says otherwise."""
    space: dict[str, Any] = field(default_factory=dict[str, Any])
    """Arguments of the space `mixed`."""

    def words(self, count: int, seed: int) -> list[str]:
        """What follows `l2l search` to run it."""
        space = [f"space.{name}={json.dumps(value).replace(' ', '')}" for name, value in self.space.items()]
        return [
            "space=mixed", *space, f"task={self.task}", f"objective.epochs={self.epochs}", "searcher=random",
            f"seed={seed}", f"trials={count}", f"batch={min(count, BATCH)}",
        ]  # fmt: skip


WORKLOADS = {
    "A": Workload("digits", 5, 200),
    "B": Workload("fashion_mnist", 1, 12, {"families": ["cnn"], "depth": [2, 4], "filters": [8, 16, 32]}),
    "C": Workload(
        "digits", 5, 256,
        {"families": ["mlp"], "depth": [2, 2], "widths": [64], "activations": ["relu"], "optimizers": ["adamw"],
         "batch_sizes": [64]},
    ),
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


def write(workload: Workload, count: int, seed: int, folder: Path) -> None:
    """Writes to `folder` what the peers read: candidates, normalised data and every candidate's order of examples."""
    task: Task = {"digits": Digits, "fashion_mnist": FashionMnist}[workload.task]()
    space, noted = mixed.space(**workload.space), list[Trial]()
    search(
        space, task, Random(), functools.partial(Noted, noted=noted), Metric(), Inline(), Store("memory"), {}, None,
        trials=count, batch=min(count, BATCH), seed=seed, out=folder / "noted",
    )  # fmt: skip
    host = data_.load(task)
    spec = data_.specify(task, host, workload.epochs)
    mean, scale = data_.statistics(task, host)
    x, vx = ((each.astype(np.float32) - mean) / scale for each in (host.x, host.validation_x))
    np.savez(folder / "data.npz", x=x, y=host.y, vx=vx, vy=host.validation_y)
    orders = np.empty((count, workload.epochs, len(x)), np.int32)
    for trial in noted:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), trial.number), ORDER)
        orders[trial.number] = data_.order(key, spec, 1).reshape(workload.epochs, -1)
    np.save(folder / "orders.npy", orders)
    by_number = sorted(noted, key=lambda trial: trial.number)
    (folder / "candidates.json").write_text(json.dumps([dict(trial.candidate.values) for trial in by_number]))
    (folder / "about.json").write_text(json.dumps({"outputs": spec.outputs}))
