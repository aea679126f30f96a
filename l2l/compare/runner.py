"""Compares searchers: equal budgets, paired seeds, intervals, and always random search among them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from l2l import files
from l2l.api import search
from l2l.compare import report
from l2l.compare.analysis import Searches, analyse, compute_curves
from l2l.compare.comparison import ComparedSpace, Comparison, Setting
from l2l.compare.on_benchmark import SeedRuns, search_benchmark
from l2l.errors import InputError, SearchError, check_integer
from l2l.executors.local import Local
from l2l.objectives.benchmark_table import BenchmarkTable, HasBenchmark
from l2l.reward import Metric
from l2l.run.result import Result, describe_environment
from l2l.run.setup import rehearse
from l2l.searchers.random_search import Random
from l2l.space import SearchSpace
from l2l.store.fingerprint import collect_settings, describe_builder
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
) -> Comparison:
    """Compares searchers, each with the seeds from `seed` on and `trials` trials a seed, and writes the comparison.

    `out` gets `compare.json`, `compare.md` and `compare.svg`. Candidates of a tabular benchmark, which is an
    objective with a `benchmark`, are looked up in `workers` processes (None: one a core, 0: this one). Any other is
    searched by `l2l.search`, whose runs stay in `out/runs` and are continued by the same call; `say` gets a line for
    each search that has ended.

    Raises: InputError for bad input, such as one seed, a searcher that does not support the space, or a folder with
    another comparison. SearchError if no trial of a search succeeds.
    """
    start = time.perf_counter()
    _check(searcher, trials, batch, seeds, seed, workers)
    searchers = dict(searcher) if "random" in searcher else {"random": Random(), **searcher}
    example = objective(space=space, task=task, seed=seed)
    example.check()
    reward, executor = reward or Metric(), executor or Local()
    benchmark = example.benchmark if isinstance(example, HasBenchmark) else None
    _check_reward(reward, benchmark)
    arguments = collect_settings(
        searcher=searchers, objective=example, task=task, reward=reward, trials=trials, batch=batch, seeds=seeds,
        seed=seed, skip=("space",), space=space.describe(),
    ) | describe_builder(space)  # fmt: skip
    _check_searchers(searchers, space, min(batch, trials))
    folder = _begin(Path(out), arguments)
    seed_range = range(seed, seed + seeds)
    if benchmark is not None:
        runs = search_benchmark(searchers, benchmark, seed_range, trials, batch, workers)
        searches = {name: _look_up(seed_runs, benchmark) for name, seed_runs in runs.items()}
    else:
        runner = _Runner(
            folder / "runs", space, task, objective, reward, executor, trials, batch, say or (lambda _: None)
        )
        searches = runner.run(searchers, seed_range)
    analysis = analyse(searches, None if benchmark is None else benchmark.best_reward)
    setting = Setting(
        batch=batch, seed=seed, settings=arguments, command=command,
        space=_measure_space(space),
        objective=type(example).__name__.lower(), report=example.report if isinstance(example, HasBenchmark) else None,
        seconds=time.perf_counter() - start, environment=describe_environment(executor),
    )  # fmt: skip
    comparison = Comparison(**vars(analysis), setting=setting)
    _write(folder, comparison, searches)
    return comparison


def _measure_space(space: SearchSpace[Any]) -> ComparedSpace:
    count = space.count()
    return ComparedSpace(space.name, len(space.choices), int(count) if count < 2**53 else None)


def _write(folder: Path, comparison: Comparison, searches: Mapping[str, Searches]) -> None:
    files.write_atomically(folder / "compare.json", json.dumps(comparison.to_json(), indent=2, allow_nan=False) + "\n")
    files.write_atomically(folder / "compare.md", report.write_markdown(comparison))
    files.write_atomically(folder / "compare.svg", report.draw_figure(compute_curves(searches), comparison))


def _look_up(runs: SeedRuns, benchmark: BenchmarkTable) -> Searches:
    """The rewards of the rows that the searches of one searcher tried."""
    distinct = np.array([len(set(rows.tolist())) for rows in runs.rows], np.float64)
    reports = None if benchmark.report is None else benchmark.report[runs.rows]
    return Searches(benchmark.rewards[runs.rows], reports, distinct, {"searcher": runs.seconds})


@dataclass(frozen=True)
class _Runner:
    """Runs searches that train, each in its own folder."""

    folder: Path
    space: SearchSpace[Any]
    task: Task
    objective: Callable[..., Objective]
    reward: Reward
    executor: Executor
    trials: int
    batch: int
    say: Callable[[str], object]

    def run(self, searchers: Mapping[str, Searcher[Any]], seeds: range) -> dict[str, Searches]:
        """The searches by searcher; run seed by seed, so that an interrupted comparison has whole pairs."""
        results: dict[str, list[Result]] = {name: [] for name in searchers}
        self.say(f"{len(searchers) * len(seeds)} searches of {self.trials} trials; a line for each that has ended")
        for seed in seeds:
            for name, searcher in searchers.items():
                results[name].append(self._search(name, searcher, seed))
        return {name: self._collect(runs) for name, runs in results.items()}

    def _search(self, name: str, searcher: Searcher[Any], seed: int) -> Result:
        """One search. Raises: SearchError if none of its trials succeeds, InputError if their number is wrong."""
        try:
            result = search(
                self.space, self.task, searcher, objective=self.objective, reward=self.reward, executor=self.executor,
                tracker={}, final=None, trials=self.trials, batch=self.batch, seed=seed,
                out=self.folder / f"{_folder_name(name)}-{seed}",
            )  # fmt: skip
        except SearchError as error:
            raise SearchError(f"{name}, seed {seed}: {error}") from error
        if len(result.trials) != self.trials:
            raise InputError(
                f"{result.directory} has {len(result.trials)} trials and not {self.trials}: only equal budgets are "
                "compared; choose another out=."
            )
        best = result.best.reward
        self.say(f"{name}, seed {seed}: best {best[0] if best else float('nan'):.4f}")
        return result

    def _collect(self, runs: Sequence[Result]) -> Searches:
        """The searches of one searcher, one with each seed."""
        rewards = np.array([[_read_reward(trial) for trial in run.trials] for run in runs])
        distinct = np.array([len({trial.candidate.key for trial in run.trials}) for run in runs], np.float64)
        seconds = np.array([[_sum_training_seconds(trial) for trial in run.trials] for run in runs])
        ledgers = [run.record.seconds for run in runs]
        ledger = {part: float(sum(ledger.get(part, 0.0) for ledger in ledgers)) for part in ledgers[0]}
        return Searches(rewards, None, distinct, ledger, seconds.cumsum(1))


def _read_reward(trial: Trial) -> float:
    """The trial's reward; nan if it failed."""
    return float("nan") if trial.reward is None else trial.reward[0]


def _sum_training_seconds(trial: Trial) -> float:
    """Seconds of training and evaluating; not of compiling, which only the first searcher of a process pays for."""
    seconds = {} if trial.outcome is None else trial.outcome.seconds
    return sum(seconds.get(part, 0.0) for part in ("train", "evaluate"))


def _folder_name(name: str) -> str:
    """A searcher's name as the name of a folder."""
    return "".join(character if character.isalnum() or character in "_-." else "-" for character in name)


def _check(
    searchers: Mapping[str, Searcher[Any]], trials: int, batch: int, seeds: int, seed: int, workers: int | None
) -> None:
    """Rejects invalid counts, and a searcher "random" that is not random search. Raises: InputError."""
    if not searchers:
        raise InputError("there is nothing to compare: give searcher=[NAME,NAME].")
    if "random" in searchers and type(searchers["random"]) is not Random:
        raise InputError(
            f"the searcher named random must be random search, got {searchers['random']!r:.80}; give it another name."
        )
    check_integer("trials", trials, 1)
    check_integer("batch", batch, 1)
    check_integer("seeds", seeds, 2, reason="one seed says nothing about chance")
    check_integer("seed", seed, 0)
    check_integer("workers", workers, 0, optional=True)
    if seed + seeds > 2**32:
        raise InputError(f"seed + seeds must be at most {2**32}, got {seed} + {seeds}.")


def _check_reward(reward: Reward, benchmark: BenchmarkTable | None) -> None:
    """Rejects a reward that cannot rank searchers. Raises: InputError."""
    if benchmark is not None and not (type(reward) is Metric and reward.name is None and reward.maximise is not False):
        raise InputError(
            "a tabular benchmark has its own reward, the column of objective.reward, where more is better; leave out "
            "reward=."
        )
    if isinstance(reward, Reward) and (length := reward.length) != 1:
        raise InputError(f"searchers are compared by one number, and this reward has {length}; choose one of them.")


def _begin(folder: Path, arguments: Mapping[str, Any]) -> Path:
    """Writes the settings into the folder before anything is run. Raises: InputError if it holds another comparison."""
    path = folder / "compare.json"
    if (folder / "study.db").exists():
        raise InputError(f"{folder} is the run folder of a search; choose another out=.")
    arguments = json.loads(json.dumps(arguments))
    try:
        stored: dict[str, Any] | None = json.loads(path.read_text())["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        stored = None
    before = arguments if stored is None else stored
    for name in (*arguments, *before):
        if before.get(name) != arguments.get(name):
            difference = f"{name} {before.get(name)!r} and not {arguments.get(name)!r}"
            if name.startswith("searcher.") and None in (before.get(name), arguments.get(name)):
                difference = f"other searchers, or other arguments of one ({name})"
            raise InputError(
                f"{folder} holds a comparison with {difference}: only equal budgets and settings are compared; choose "
                "another out=."
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if stored is None:
            files.write_atomically(path, json.dumps({"settings": arguments}, indent=2) + "\n")
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror}); choose another out=FOLDER.") from None
    return folder


def _check_searchers(searchers: Mapping[str, Searcher[Any]], space: SearchSpace[Any], batch: int) -> None:
    """Rejects a searcher that does not support the space. Raises: InputError."""
    for name, searcher in searchers.items():
        try:
            rehearse(searcher, space, batch, 1)
        except InputError as error:
            raise InputError(f"the searcher {name}: {error}") from None
