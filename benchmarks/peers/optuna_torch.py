"""The usual search with Optuna and PyTorch eager, on one thread: `optuna_torch.py FOLDER PART`.

Any number of these processes share one study, a journal file in FOLDER, until it has the trials that `job.json` asks
for. The choices are those of `space.json`, so that they are l2l's. As an expert would, each process keeps the weights
of its best model so far; after the last trial the winner's are scored on the test split, and the winner is trained
again with other seeds. PART, from 0, tells apart the processes' seeds and files. A model is scored after its last
epoch, or after each one where a pruner wants to know.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import math
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from claims import claim_candidates
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from torch import nn
from torch.nn import functional
from torch_models import make_model
from torch_recipe import Optimizer, rate_of, score

Data = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""Images `[N, C, H, W]` and labels of each split."""
PATIENCE = 600
"""Seconds that a process waits for the others' last trials."""


def load_data(folder: Path) -> Data:
    """scikit-learn's digits, normalised; from its file, because importing it would take two seconds more."""
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    with gzip.open(Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.float32)
    images, labels = rows[:, :-1].reshape(-1, 1, 8, 8), rows[:, -1].astype(np.int64)
    split = np.load(folder / "split.npz")
    train = images[split["train"]]
    images = (images - train.mean(dtype=np.float64).astype(np.float32)) / train.std(dtype=np.float64).astype(np.float32)
    return {name: (torch.from_numpy(images[split[name]]), torch.from_numpy(labels[split[name]])) for name in split}


def suggest_values(trial: optuna.Trial, space: dict[str, Any]) -> dict[str, Any]:
    """The values of the active choices, by name."""
    values: dict[str, Any] = {}
    for name, choice in space.items():
        if not all(values.get(parent) in allowed for parent, allowed in choice["when"].items()):
            continue
        if choice["kind"] == "categorical":
            values[name] = trial.suggest_categorical(name, choice["options"])
        elif choice["kind"] == "integer":
            step = {} if choice["log"] else {"step": choice["step"]}
            values[name] = trial.suggest_int(name, choice["low"], choice["high"], log=choice["log"], **step)
        else:
            values[name] = trial.suggest_float(name, choice["low"], choice["high"], log=choice["log"])
    return values


def train(
    values: dict[str, Any], job: dict[str, Any], data: Data, seed: int, after_epoch: Callable[[nn.Module, int], None]
) -> nn.Module | None:
    """The trained model, None if its training diverged; `after_epoch` gets the model and the epoch, from 1."""
    torch.manual_seed(seed)
    x, y = data["train"]
    model = make_model(job["space"], values, job)
    penalised: list[Any] = [part for part in model.modules() if hasattr(part, "penalty")]
    optimizer, size = Optimizer(values, model), values["batch_size"]
    per_epoch = len(x) // size
    steps = per_epoch * job["epochs"]
    rates = iter([rate_of(values, step, steps) for step in range(steps)])
    for epoch in range(1, job["epochs"] + 1):
        model.train()
        order = torch.randperm(len(x))[: per_epoch * size]
        loss = torch.zeros(())
        for inputs, labels in zip(x[order].split(size), y[order].split(size), strict=True):
            loss = functional.cross_entropy(model(inputs), labels, label_smoothing=values["label_smoothing"])
            for part in penalised:
                loss = loss + part.penalty
            optimizer.clear()
            loss.backward()
            optimizer.step(next(rates))
        if not math.isfinite(loss.item()):
            return None
        after_epoch(model, epoch)
    return model


def make_study(folder: Path, job: dict[str, Any], part: int) -> optuna.Study:
    """The study that all processes share, as this one samples for it."""
    seed = 1000 * job["seed"] + part
    sampler: Any = optuna.samplers.RandomSampler(seed=seed)
    if job["sampler"] == "tpe":
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
    pruner: Any = optuna.pruners.NopPruner()
    if job["pruner"] == "hyperband":
        pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=job["epochs"], reduction_factor=3)
    storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    return optuna.create_study(
        study_name="study", storage=storage, sampler=sampler, pruner=pruner, direction="maximize", load_if_exists=True
    )


class Search:
    """One process's part of the search."""

    def __init__(self, folder: Path, part: int) -> None:
        self.folder, self.part = folder, part
        self.job = json.loads((folder / "job.json").read_text())
        self.space = json.loads((folder / "space.json").read_text())
        self.data = load_data(folder)
        self.study = make_study(folder, self.job, part)
        self.best, self.weights = -math.inf, folder / "none"

    def objective(self, trial: optuna.Trial) -> float:
        """The validation accuracy; NaN, which Optuna takes for a failure, if the training diverged."""

        def report(model: nn.Module, epoch: int) -> None:
            if self.job["pruner"]:
                trial.report(score(model, *self.data["validation"]), epoch)
                if epoch < self.job["epochs"] and trial.should_prune():
                    raise optuna.TrialPruned

        values = suggest_values(trial, self.space)
        model = train(values, self.job, self.data, 100_000 * self.job["seed"] + trial.number, report)
        if model is None:
            return math.nan
        accuracy = score(model, *self.data["validation"])
        if accuracy > self.best:
            self.weights.unlink(missing_ok=True)
            self.best, self.weights = accuracy, self.folder / f"weights-{trial.number}.pt"
            torch.save(model.state_dict(), self.weights)
        return accuracy

    def run(self) -> None:
        """Runs trials until all are taken, and a share of the trainings of the winner."""
        for _ in claim_candidates(self.folder / "trials", self.job["trials"]):
            self.study.optimize(self.objective, n_trials=1)
        if not self.job["test"]:
            return
        self.wait()
        winner = self.study.best_trial
        for seed in claim_candidates(self.folder / "finals", 1 + self.job["seeds"]):
            if seed:
                number = 100_000 * self.job["seed"] + 50_000 + seed
                model = train(winner.params, self.job, self.data, number, lambda model, epoch: None)
            else:
                model = make_model(self.job["space"], winner.params, self.job)
                model.load_state_dict(torch.load(self.folder / f"weights-{winner.number}.pt"))
            accuracy = None if model is None else score(model, *self.data["test"])
            (self.folder / f"test-{seed}.json").write_text(json.dumps(accuracy))

    def wait(self) -> None:
        """Waits for the other processes' last trials. Raises: TimeoutError if one takes longer than `PATIENCE`."""
        end = time.monotonic() + PATIENCE
        while sum(trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False)) < self.job["trials"]:
            if time.monotonic() > end:
                raise TimeoutError("another process has not finished its last trial")
            time.sleep(0.02)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # Optuna's, of options that it calls experimental
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    Search(Path(sys.argv[1]), int(sys.argv[2])).run()
