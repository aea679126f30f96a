"""Searchers compared: equal budgets, paired seeds, intervals, and always a row of random search."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l2l import files
from l2l.compare import report
from l2l.compare.analysis import Row, curves, judged
from l2l.compare.on_benchmark import searches
from l2l.errors import InputError, SearchError
from l2l.executors.local import Local
from l2l.objectives.benchmark_table import Table
from l2l.reward import Metric
from l2l.run.loop import Result, rehearse, search
from l2l.run.result import environment
from l2l.searchers.random import Random
from l2l.space import SearchSpace
from l2l.store.fingerprint import builder, settings
from l2l.store.log import Store
from l2l.types import Executor, Objective, Reward, Searcher, Task, Trial


def compare(
    searcher: Mapping[str, Searcher[Any]],
    objective: Callable[..., Objective],
    space: SearchSpace[Any],
    task: Task,
    reward: Reward | None = None,
    executor: Executor | None = None,
    *,
    trials: int = 200,
    batch: int = 1,
    seeds: int = 20,
    seed: int = 0,
    workers: int | None = None,
    out: str | Path = "comparison",
    command: str | None = None,
    say: Callable[[str], object] | None = None,
) -> dict[str, Any]:
    """Compares searchers, each with the seeds from `seed` on and `trials` trials a seed, and writes what came of it.

    `out` gets `compare.json`, `compare.md` and `compare.svg`. An objective that has a `table` is looked up, in
    `workers` processes (None: one a core, 0: this one); any other is searched by `l2l.search`, whose runs stay
    in `out/runs` and are continued by the same call; `say` hears of each that has ended.

    Raises: InputError for bad input, such as one seed, a searcher that cannot take the space, or a folder that holds
    a comparison with other settings.
    """
    started = time.perf_counter()
    _check(searcher, trials, batch, seeds, seed, workers)
    rows = dict(searcher) if "random" in searcher else {"random": Random(), **searcher}
    made = objective(space=space, task=task, seed=seed)
    made.check()
    reward, executor = reward or Metric(), executor or Local()
    table: Table | None = getattr(made, "table", None)
    _check_reward(reward, table)
    said = settings(
        searcher=rows, objective=made, task=task, reward=reward, trials=trials, batch=batch, seeds=seeds, seed=seed,
        skip=("space",), space=space.describe(),
    ) | builder(space)  # fmt: skip
    folder = Path(out)
    _check_rows(rows, space, min(batch, trials))
    _begin(folder, said)
    if table is not None:
        found = searches(rows, table, range(seed, seed + seeds), trials, batch, workers)
        kept = {name: _looked_up(each.rows, table, each.seconds) for name, each in found.items()}
    else:
        run = _Runs(folder / "runs", space, task, objective, reward, executor, trials, batch, say or (lambda _: None))
        kept = run.rows(rows, range(seed, seed + seeds))
    record = judged(kept, None if table is None else table.best)
    count = space.count()
    record |= {
        "batch": batch, "seed": seed, "settings": said, "command": command,
        "space": {"name": space.name, "decisions": len(space.choices), "candidates": count if count < 2**53 else None},
        "objective": type(made).__name__.lower(), "report": getattr(made, "report", None),
        "seconds": time.perf_counter() - started, "environment": environment(executor),
    }  # fmt: skip
    files.replace(folder / "compare.json", json.dumps(record, indent=2, allow_nan=False) + "\n")
    files.replace(folder / "compare.md", report.markdown(record))
    files.replace(folder / "compare.svg", report.figure(curves(kept), record))
    return record


def _looked_up(rows: npt.NDArray[np.int32], table: Table, seconds: float) -> Row:
    distinct = np.array([len(set(each.tolist())) for each in rows], np.float64)
    other = None if table.report is None else table.report[rows]
    return Row(table.rewards[rows], other, distinct, {"searcher": seconds})


@dataclass(frozen=True)
class _Runs:
    """Searches that train, each in a folder of its own."""

    folder: Path
    space: SearchSpace[Any]
    task: Task
    objective: Callable[..., Objective]
    reward: Reward
    executor: Executor
    trials: int
    batch: int
    say: Callable[[str], object]

    def rows(self, searchers: Mapping[str, Searcher[Any]], seeds: range) -> dict[str, Row]:
        """Every searcher's row; seed by seed, so that what is interrupted has whole pairs."""
        found: dict[str, list[Result]] = {name: [] for name in searchers}
        self.say(f"{len(searchers) * len(seeds)} searches of {self.trials} trials; a line for each that has ended")
        for seed in seeds:
            for name, searcher in searchers.items():
                found[name].append(self._searched(name, searcher, seed))
        return {name: self._row(some) for name, some in found.items()}

    def _searched(self, name: str, searcher: Searcher[Any], seed: int) -> Result:
        """One search. Raises: SearchError if none of its trials succeeds, InputError if their number is wrong."""
        try:
            result = search(
                self.space, self.task, searcher, self.objective, self.reward, self.executor, Store(), {},
                trials=self.trials, batch=self.batch, seed=seed, out=self.folder / f"{_file(name)}-{seed}",
            )  # fmt: skip
        except SearchError as error:
            raise SearchError(f"{name}, seed {seed}: {error}") from error
        except KeyboardInterrupt as stop:
            stop.__notes__ = []  # of the run's folder: the comparison goes on with the same command, not with that
            raise
        if len(result.trials) != self.trials:
            raise InputError(
                f"{result.directory} has {len(result.trials)} trials and not {self.trials}: rows of unequal budgets "
                "are not compared; choose another out=."
            )
        best = result.best.reward
        self.say(f"{name}, seed {seed}: best {best[0] if best else float('nan'):.4f}")
        return result

    def _row(self, runs: Sequence[Result]) -> Row:
        rewards = np.array([[_first(trial) for trial in run.trials] for run in runs])
        distinct = np.array([len({trial.candidate.key for trial in run.trials}) for run in runs], np.float64)
        used = np.array([[_seconds(trial) for trial in run.trials] for run in runs])
        ledgers = [run.record["seconds"] for run in runs]
        seconds = {name: float(sum(each.get(name, 0.0) for each in ledgers)) for name in ledgers[0]}
        return Row(rewards, None, distinct, seconds, used.cumsum(1))


def _first(trial: Trial) -> float:
    """The trial's reward; nan if it failed."""
    return float("nan") if trial.reward is None else trial.reward[0]


def _seconds(trial: Trial) -> float:
    """What training and evaluating it took; compiling is left out, which only the first row of a process pays."""
    spent = {} if trial.outcome is None else trial.outcome.seconds
    return sum(spent.get(name, 0.0) for name in ("train", "evaluate"))


def _file(name: str) -> str:
    """A row's name as a folder's."""
    return "".join(each if each.isalnum() or each in "_-." else "-" for each in name)


def _check(
    rows: Mapping[str, Searcher[Any]], trials: int, batch: int, seeds: int, seed: int, workers: int | None
) -> None:
    """Refuses numbers that are none, and a row called random that is not. Raises: InputError."""
    if not rows:
        raise InputError("there is nothing to compare: give searcher=[NAME,NAME].")
    if "random" in rows and type(rows["random"]) is not Random:
        raise InputError(
            f"the row called random must be a random search, got {rows['random']!r:.80}; call it another name."
        )
    given = {"trials": (trials, 1), "batch": (batch, 1), "seeds": (seeds, 2), "seed": (seed, 0)}
    given |= {} if workers is None else {"workers": (workers, 0)}
    for name, (value, low) in given.items():
        if type(value) is not int or value < low:
            why = "; one seed says nothing of chance" if name == "seeds" else ""
            raise InputError(f"{name} must be a whole number of at least {low}, got {value!r}{why}.")
    if seed + seeds > 2**32:
        raise InputError(f"seed + seeds must be at most {2**32}, got {seed} + {seeds}.")


def _check_reward(reward: Reward, table: Table | None) -> None:
    """Refuses a reward that rows cannot be ranked by. Raises: InputError."""
    if table is not None and not (type(reward) is Metric and reward.name is None and reward.maximise is not False):
        raise InputError(
            "a table has its own reward, the column of objective.reward, where more is better; leave out reward=."
        )
    if (length := getattr(reward, "length", 1)) != 1:
        raise InputError(f"rows are compared by one number, and this reward has {length}; choose one of them.")


def _begin(folder: Path, said: Mapping[str, Any]) -> None:
    """Keeps the settings before anything is run. Raises: InputError if the folder holds another comparison."""
    place = folder / "compare.json"
    if (folder / "study.db").exists():
        raise InputError(f"{folder} is the run folder of a search; choose another out=.")
    said = json.loads(json.dumps(said))
    try:
        kept: dict[str, Any] | None = json.loads(place.read_text())["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        kept = None
    before = said if kept is None else kept
    for name in (*said, *before):
        if before.get(name) != said.get(name):
            differ = f"{name} {before.get(name)!r} and not {said.get(name)!r}"
            if name.startswith("searcher.") and None in (before.get(name), said.get(name)):
                differ = f"other rows, or other arguments of one ({name})"
            raise InputError(
                f"{folder} holds a comparison with {differ}: rows of unequal budgets or settings are not compared; "
                "choose another out=."
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if kept is None:
            files.replace(place, json.dumps({"settings": said}, indent=2) + "\n")
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror}); choose a place with out=FOLDER.") from None


def _check_rows(rows: Mapping[str, Searcher[Any]], space: SearchSpace[Any], size: int) -> None:
    """Refuses a searcher that cannot take the space. Raises: InputError."""
    for name, searcher in rows.items():
        try:
            rehearse(searcher, space, size, 1)
        except InputError as error:
            raise InputError(f"the row {name}: {error}") from None
