"""How long until a new user has the first answer: l2l against Optuna with PyTorch eager.

    python benchmarks/first_answer.py mlp cnn3 --torch-python PYTHON --json FILE
    python benchmarks/first_answer.py mixed --rows "l2l cold" "optuna + torch" --torch-python PYTHON

A job is a search on the digits; the peer searches the same space (`peers/optuna_torch.py` reads its choices from a file
that is written from l2l's) for as many trials and epochs, and retrains and tests its winner where l2l does. Every run
is fresh processes, timed from their start to the end of the last one, imports included. Each repeat has a seed of its
own and begins with another row:

    l2l cold                    with an empty compilation cache
    l2l warm                    the same search again, with the cache that the cold run left
    l2l other seed              a search with another seed, with that cache
    l2l rungs=asha              with early stopping and an empty cache (mlp only)
    optuna + torch              multivariate TPE in groups (mixed: random, as l2l's), a one-thread process for each core
    optuna + torch, hyperband   the same with Optuna's HyperbandPruner

`--json` is written after each run.
"""

from __future__ import annotations

import argparse
import collections
import csv
import json
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from about import CORES, announce
from answer_table import PEER, Run, describe_run, format_table, make_curve, summarise_runs
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from processes import prepare_cache, rotate_names, time_commands

from l2l.engine.data import load_data, make_spec
from l2l.objectives import Final
from l2l.space import SearchSpace
from l2l.tasks import Digits
from l2l.types import Split
from search_spaces import cnn, mixed, mlp, moe, transformer

SPACES = {"mlp": mlp, "cnn": cnn, "mixed": mixed, "transformer": transformer, "moe": moe}
UNITS = (("l2l cold", "l2l warm", "l2l other seed"), ("l2l rungs=asha",), (PEER,), (f"{PEER}, hyperband",))
"""All rows; those of a unit follow each other, because the first one leaves the cache that the others find."""
OTHER_SEED = 1000
"""Added to a repeat's seed for its search with another seed."""


@dataclass(frozen=True)
class Job:
    """A search on the digits."""

    space: str
    epochs: int
    trials: int
    words: tuple[str, ...] = ()
    """What else follows `l2l search`."""
    sampler: str = "tpe"
    """The peer's: tpe or random."""
    rows: tuple[str, ...] = (*UNITS[0], *UNITS[2], *UNITS[3])

    @property
    def has_final(self) -> bool:
        """Whether the winner is retrained and tested."""
        return "final=null" not in self.words

    def make_space(self) -> SearchSpace[Any]:
        """The job's space."""
        return SPACES[self.space].space()

    def list_words(self, seed: int, *more: str) -> list[str]:
        """What follows `l2l` to run it."""
        words = (f"space={self.space}", "task=digits", f"trials={self.trials}", f"objective.epochs={self.epochs}")
        return ["search", *words, *self.words, *more, f"seed={seed}", "tracker=console", "out=run"]


JOBS = {
    "mlp": Job("mlp", 30, 64, rows=tuple(row for unit in UNITS for row in unit)),
    "cnn3": Job("cnn", 3, 60),
    "cnn30": Job("cnn", 30, 60),
    "mixed": Job("mixed", 5, 200, ("searcher=random", "batch=200", "final=null"), "random"),
    "transformer": Job("transformer", 5, 24),
    "moe": Job("moe", 5, 24),
}


@dataclass(frozen=True)
class Bench:
    """One job's files, and the interpreter that runs the peer on it."""

    job: Job
    folder: Path
    torch_python: str

    def write_inputs(self) -> None:
        """Writes what the peer reads in every run: the choices and the split."""
        (self.folder / "space.json").write_text(json.dumps(self.job.make_space().describe()))
        np.savez(self.folder / "split.npz", allow_pickle=False, **find_split(Digits()))

    def run(self, row: str, seed: int) -> Run:
        """A run of one row."""
        if row.startswith(PEER):
            return self.run_peer("hyperband" if row.endswith("hyperband") else None, seed)
        if row == "l2l rungs=asha":
            return self.run_l2l(self.job.list_words(seed, "rungs=asha"), "asha", cold=True)
        seed += OTHER_SEED if row == "l2l other seed" else 0
        return self.run_l2l(self.job.list_words(seed), "l2l", cold=row == "l2l cold")

    def run_l2l(self, words: Sequence[str], cache: str, cold: bool) -> Run:
        """A run of `l2l` with these words; `cache` names the folder of its compiled programs."""
        run, environment = self.folder / "run", prepare_cache(self.folder / f"cache-{cache}", cold)
        shutil.rmtree(run, ignore_errors=True)
        before = list_training_programs(self.folder / f"cache-{cache}")
        command = [sys.executable, "-c", "from l2l.cli import main; main()", *words]
        started = time.time()
        seconds, memory = time_commands([command], self.folder, **environment)
        compiled = list_training_programs(self.folder / f"cache-{cache}") - before
        record = json.loads((run / "result.json").read_text())
        with (run / "trials.csv").open() as file:
            traced = [float(row["seconds_trace"] or 0) for row in csv.DictReader(file)]
        study = optuna.load_study(study_name=None, storage=f"sqlite:///{run / 'study.db'}")
        test = record["test"] or {}
        return replace(
            read_study(study, started, seconds, memory), test=test.get("trial"), test_seeds=test.get("mean"),
            programs=sum(value > 0 for value in traced), compiled=len(compiled), ledger=record["seconds"],
        )  # fmt: skip

    def run_peer(self, pruner: str | None, seed: int) -> Run:
        """A run of Optuna and PyTorch."""
        for name in ("trials", "finals"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir()
        for old in (*self.folder.glob("journal.log*"), *self.folder.glob("weights-*"), *self.folder.glob("test-*")):
            old.unlink()
        (self.folder / "job.json").write_text(json.dumps(describe_job(self.job, pruner, seed)))
        script = str(Path(__file__).parent / "peers" / "optuna_torch.py")
        commands = [[self.torch_python, script, str(self.folder), str(part)] for part in range(CORES)]
        started = time.time()
        seconds, memory = time_commands(commands, self.folder)
        storage = JournalStorage(JournalFileBackend(str(self.folder / "journal.log")))
        study = optuna.load_study(study_name=None, storage=storage)
        tests = [json.loads(path.read_text()) for path in sorted(self.folder.glob("test-*.json"))]
        others = [accuracy for accuracy in tests[1:] if accuracy is not None]
        return replace(
            read_study(study, started, seconds, memory), test=tests[0] if tests else None,
            test_seeds=statistics.fmean(others) if others else None,
        )  # fmt: skip


def describe_job(job: Job, pruner: str | None, seed: int) -> dict[str, Any]:
    """What the peer must know of a job, as JSON values."""
    task = Digits()
    spec = make_spec(task, load_data(task), job.epochs)
    return {
        "space": job.space, "epochs": job.epochs, "trials": job.trials, "sampler": job.sampler, "pruner": pruner,
        "seed": seed, "test": job.has_final, "seeds": Final.seeds, "inputs": spec.inputs, "outputs": spec.outputs,
        "defaults": dict(transformer.DEFAULTS) if job.space in ("transformer", "moe") else {},
    }  # fmt: skip


def find_split(task: Digits) -> dict[str, np.ndarray]:
    """Which examples of scikit-learn's digits each split of the task has, in its order."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    images = bunch.images.astype(np.float32)
    index = {image.tobytes(): number for number, image in enumerate(images)}
    splits: tuple[Split, ...] = ("train", "validation", "test")
    return {split: np.array([index[image.tobytes()] for image in task.load(split)[0]]) for split in splits}


def list_training_programs(cache: Path) -> set[str]:
    """The files of the compiled programs that train trials."""
    return {path.name for path in cache.glob("jit_run_single_lane-*-cache")}


def read_study(study: optuna.Study, started: float, seconds: float, memory: float) -> Run:
    """When and how the trials of a run ended, which began at `started` (seconds of the clock).

    Raises: RuntimeError if none is complete, or one was so outside of the run: the clock was set, say.
    """
    trials = study.get_trials(deepcopy=False)
    states = collections.Counter(trial.state.name.lower() for trial in trials)
    ends: list[tuple[float, float]] = []
    for trial in trials:
        if trial.state is optuna.trial.TrialState.COMPLETE and trial.datetime_complete is not None:
            ends.append((trial.datetime_complete.timestamp(), float(trial.values[0])))
    curve = make_curve(ends, started)
    if not curve or not 0 < curve[0][0] <= curve[-1][0] <= seconds + 1:
        raise RuntimeError(f"a run of {seconds:.1f} s has trials that were complete at {curve}.")
    return Run(seconds, memory, curve, dict(states))


def list_units(job: Job, rows: Sequence[str]) -> dict[str, list[str]]:
    """The rows that take part, by the first one of those that follow each other."""
    units = [[row for row in unit if row in rows and row in job.rows] for unit in UNITS]
    return {unit[0]: unit for unit in units if unit}


def run_job(bench: Bench, rows: Sequence[str], repeats: int, save: Callable[[Mapping[str, Any]], None]) -> None:
    """All runs of a job; after each one its record goes to `save`."""
    units = list_units(bench.job, rows)
    runs: dict[str, list[Run]] = {row: [] for unit in units.values() for row in unit}
    for repeat in range(repeats):
        for first in rotate_names(list(units), repeat):
            for row in units[first]:
                run = bench.run(row, seed=repeat)
                runs[row].append(run)
                print(f"{row}: {describe_run(run)}", flush=True)
                figures = summarise_runs({row: row_runs for row, row_runs in runs.items() if row_runs})
                all_runs = {row: [run.write() for run in row_runs] for row, row_runs in runs.items()}
                save({"figures": figures, "runs": all_runs})


def main() -> None:
    """Runs the benchmark and prints its tables."""
    options = parse_arguments()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    needs_torch = any(row.startswith(PEER) for row in options.rows)
    jobs: dict[str, Any] = {}
    record = {"about": announce({"torch": options.torch_python} if needs_torch else {}), "jobs": jobs}
    for name in options.jobs:
        job = JOBS[name]
        job = replace(job, trials=options.trials or job.trials, epochs=options.epochs or job.epochs)
        about = {"command": shlex.join(["l2l", *job.list_words(0)]), "sampler": job.sampler}

        def save(figures: Mapping[str, Any], name: str = name, about: Mapping[str, Any] = about) -> None:
            jobs[name] = {**about, **figures}
            if options.json:
                options.json.write_text(json.dumps(record, indent=2) + "\n")

        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(job, Path(folder).resolve(), options.torch_python)
            bench.write_inputs()
            print(f"\n{name}: {about['command']}", flush=True)
            run_job(bench, options.rows, options.repeats, save)
        print(f"\n{name}, {options.repeats} repeats: median (smallest to largest)\n")
        print(format_table(jobs[name]["figures"]), flush=True)


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    all_rows = [row for unit in UNITS for row in unit]
    parser.add_argument("jobs", nargs="+", choices=sorted(JOBS), metavar="JOB", help=", ".join(JOBS))
    parser.add_argument("--rows", nargs="+", choices=all_rows, default=all_rows, metavar="ROW", help="default: all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--trials", type=int, help="instead of the job's, for a short try")
    parser.add_argument("--epochs", type=int, help="instead of the job's, for a short try")
    parser.add_argument("--torch-python", default=sys.executable, help="an interpreter that has torch and optuna")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(words)
    for name in ("repeats", "trials", "epochs"):
        if (number := getattr(options, name)) is not None and number < 1:
            parser.error(f"--{name} {number}: expected at least 1.")
    first, *others = UNITS[0]
    if any(row in options.rows for row in others) and first not in options.rows:
        parser.error(f"--rows: {' and '.join(others)} need the cache that {first} leaves: add it.")
    for name in options.jobs:
        if not list_units(JOBS[name], options.rows):
            parser.error(f"--rows: {name} has none of {', '.join(options.rows)}.")
    return options


if __name__ == "__main__":
    main()
