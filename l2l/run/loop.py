"""The search: ask, run, reward, tell. No algorithm is in here, and no concrete part is named."""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import math
import random
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax

from l2l import files
from l2l.cohorts import shared
from l2l.errors import InputError, SearchError
from l2l.interrupts import interruptible
from l2l.reward import check_metrics, complete_reward, compute_epoch_rewards, find_best, gate
from l2l.run import front
from l2l.run.early_stopping import Climb, joined, staged
from l2l.run.result import VERSION, common_reason, describe, environment, held_out, title
from l2l.run.trials_csv import write_csv
from l2l.space import SearchSpace
from l2l.store import fingerprint
from l2l.store.log import Store, TrialLog
from l2l.trackers.apart import Apart
from l2l.types import ASK, Executor, Key, Objective, Outcome, Reward, Run, Rungs, Searcher, Status, Task, Tracker, Trial

_PARTS = {
    "space": ("a SearchSpace", "sample"),
    "task": ("a Task, such as l2l.tasks.Digits()", "load"),
    "searcher": ("a Searcher, such as l2l.searchers.Random()", "ask"),
    "reward": ("a Reward, such as l2l.reward.Metric()", "__call__"),
    "executor": ("an Executor, such as l2l.executors.Local()", "run"),
    "store": ("a Store, such as l2l.store.Store()", "attach"),
}
"""What each part is called in a message, and what it must be able to do."""
LEDGER = ("trace", "compile", "train", "evaluate", "controller", "store", "idle")


@dataclass(frozen=True)
class Result:
    """How a search ended."""

    directory: Path
    best: Trial
    """The complete trial of the highest reward."""
    trials: Sequence[Trial] = field(repr=False)
    record: Mapping[str, Any] = field(repr=False)
    """What `result.json` holds."""


@dataclass
class _Search:
    """What one call of `search` holds together."""

    searcher: Searcher[Any]
    objective: Objective
    reward: Reward
    executor: Executor
    log: TrialLog
    trackers: Sequence[Tracker]
    space: SearchSpace[Any]
    key: Key
    started: float
    rungs: Rungs | None = None
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LEDGER, 0.0))

    def ledger(self) -> dict[str, float]:
        """Seconds so far, in total and by what they went to."""
        total = time.perf_counter() - self.started
        known = {**self.seconds, "store": self.log.seconds}
        workers = self.executor.workers or 1
        trained = sum(known[name] for name in ("trace", "compile", "train", "evaluate")) / workers
        known["idle"] = max(0.0, total - trained - known["controller"] - known["store"])
        return {"total": total, **known}

    def tell(self, state: Any, batch: Sequence[Trial]) -> Any:
        """The searcher's state after a whole batch; trackers see its summary."""
        with self.controller():
            state = self.searcher.tell(state, batch)
            summary = self.searcher.summary(state)
        for tracker in self.trackers:
            tracker.learned(batch, summary)
        return state

    def replay(self) -> Any:
        """The searcher's state: a fold over the stored batches."""
        with self.controller():
            state = self.searcher.init(self.space, jax.random.fold_in(self.key, ASK))
        return functools.reduce(self.tell, self.log.batches(), state)

    def todo(self, state: Any, size: int) -> list[Trial]:
        """The trials to run next: those that a crash left open, or a batch that is asked for and opened."""
        if running := self.log.running():
            return running
        first, size = self.log.next(size)
        with self.controller():
            key = jax.random.fold_in(jax.random.fold_in(self.key, ASK), first + 1)
            candidates = self.searcher.ask(state, key, size)
        opened = self.log.open(candidates, shared(candidates, self.space, self.objective, first))
        return [trial for trial in opened if trial.status is Status.RUNNING]

    def run(self, todo: Sequence[Trial]) -> None:
        """Runs trials; each is rewarded, stored and shown as it finishes, or stands at its next rung."""
        for trial in self.executor.run(self.objective, [replace(each, outcome=None, scores={}) for each in todo]):
            ended = gate(trial, self.reward)
            self.charge(ended.outcome)  # what has passed the gate is numbers
            if self.rungs is not None:
                ended = joined(self.log.trials()[trial.number], ended)
            if ended.status is Status.COMPLETE:
                ended = replace(
                    ended, scores={**ended.scores, **compute_epoch_rewards(ended.outcome or Outcome(), self.reward)}
                )
            if ended.status is not Status.COMPLETE or trial.until is None:
                self.close(ended)
            else:
                scores = {**ended.scores, trial.until: ended.reward or ()}
                self.log.reach(replace(ended, status=Status.RUNNING, reward=None, scores=scores))

    def close(self, trial: Trial) -> None:
        """Stores and shows a trial that has ended."""
        closed = self.log.close(trial)
        for tracker in self.trackers:
            tracker.tell(closed, self.ledger())

    def charge(self, outcome: Outcome | None) -> None:
        """Adds what a run took to the ledger."""
        for name, value in (outcome or Outcome()).seconds.items():
            if math.isfinite(value):  # what an objective says is not ours to trust
                self.seconds[name] = self.seconds.get(name, 0.0) + value

    @contextlib.contextmanager
    def controller(self) -> Generator[None]:
        """Runs a searcher on the CPU, so that its bits do not depend on the accelerator, and on the ledger."""
        started = time.perf_counter()
        try:
            with jax.default_device(jax.local_devices(backend="cpu")[0]):
                yield
        finally:
            self.seconds["controller"] += time.perf_counter() - started


def search(
    space: SearchSpace[Any],
    task: Task,
    searcher: Searcher[Any],
    objective: Callable[..., Objective],
    reward: Reward,
    executor: Executor,
    store: Store,
    tracker: Mapping[str, Tracker],
    final: Callable[..., Objective] | None = None,
    rungs: Rungs | None = None,
    *,
    trials: int = 64,
    batch: int = 8,
    seed: int = 0,
    out: str | Path | None = None,
    group: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> Result:
    """Searches `space` for the candidate with the highest reward on `task`, or continues the search in `out`.

    `objective(space=, task=, seed=)` makes what runs a trial, `final(objective=, directory=)` what hands the winner
    over (and a front, by its `beside(directory)`), again if its `done(test)` or `whole(folder)` says no. `trials` run
    in batches of `batch`, of which `rungs`, if given, stops some early; `config` is kept in the run folder `out`.

    Raises: InputError for bad input, before anything is written. SearchError if no trial succeeds.
    """
    started = time.perf_counter()
    _check_parts(space=space, task=task, searcher=searcher, reward=reward, executor=executor, store=store)
    reward = complete_reward(reward, task.metric, task.maximise)
    made, settings = _checked(space, task, searcher, objective, reward, executor, rungs, trials, batch, seed)
    if final is not None:
        final(objective=made, directory=Path())  # refuses its arguments before there is a folder
    directory = files.folder(out, f"{space.name}-{task.name}-{title(searcher)}")
    made = made if rungs is None else staged(made).within(directory.resolve() / "rungs")
    ending = final(objective=made, directory=directory.resolve() / "best") if final else None
    begin = functools.partial(_begin, directory, config)
    with store.attach(directory, space, settings, objectives=reward.length, name=directory.name, begin=begin) as log:
        count = max(trials, len(log.trials()))
        run = Run(directory.name, group or directory.name, directory.resolve(), settings, space, count, task.metric)
        watchers = [Apart(each) for each in tracker.values()]
        held = _Search(searcher, made, reward, executor, log, watchers, space, jax.random.key(seed), started, rungs)
        record: dict[str, Any] | None = None
        try:
            if config is not None and (trials > log.count() or _concluded(directory, log.trials(), ending) is None):
                _write_config(directory, config)
            executor.start(directory)
            for watcher in watchers:
                watcher.start(run, [trial for trial in log.trials() if trial.status is not Status.RUNNING])
            with interruptible():
                _drive(held, trials, batch)
                record = ended = _conclude(held, run, task, ending, seed)
        except KeyboardInterrupt as stop:
            stop.add_note(str(directory))
            raise
        finally:
            executor.close()
            for watcher in watchers:
                watcher.finish(record)
        return Result(directory, _winner(log.trials(), reward.length), log.trials(), ended)


def _winner(trials: Sequence[Trial], objectives: int) -> Trial:
    """The best trial, of several objectives by the first. Raises: SearchError if all have failed."""
    several = front.members(trials) if objectives > 1 else []
    if (winner := several[0] if several else find_best(trials)) is None:
        failed = [trial for trial in trials if trial.status is Status.FAILED]
        why = common_reason((trial.outcome or Outcome()).error for trial in failed or trials)
        if len(failed) == len(trials) == 1:
            raise SearchError(f"the only trial failed: {why}")
        what = f"none of {len(trials)} trials was completed, {len(failed)} failed and the others were pruned"
        what = f"all {len(trials)} trials failed" if len(failed) == len(trials) else what
        raise SearchError(f"{what}, most often because: {why}")
    return winner


def _check_parts(**parts: object) -> None:
    """Refuses a part that is no such part, before it is called."""
    for name, part in parts.items():
        kind, method = _PARTS[name]
        if isinstance(part, type) or not callable(getattr(part, method, None)):
            raise InputError(f"{name} must be {kind}, got {part!r:.80}.")


def _checked(
    space: SearchSpace[Any],
    task: Task,
    searcher: Searcher[Any],
    objective: Callable[..., Objective],
    reward: Reward,
    executor: Executor,
    rungs: Rungs | None,
    trials: int,
    batch: int,
    seed: int,
) -> tuple[Objective, dict[str, Any]]:
    """The objective and the search's settings, once every part has said that it can take the others."""
    whole = {"trials": (trials, 1, None), "batch": (batch, 1, None), "seed": (seed, 0, 2**32 - 1)}
    for name, (value, low, high) in whole.items():
        if type(value) is not int or value < low or (high is not None and value > high):
            span = f"of at least {low}" if high is None else f"from {low} to {high}"
            raise InputError(f"{name} must be a whole number {span}, got {value!r}.")
    task.check()
    made = objective(space=space, task=task, seed=seed)
    if names := made.check():
        check_metrics(reward, names)
    executor.check(made)
    if rungs is not None:
        Climb(rungs, staged(made)).check(reward.length, min(batch, trials))
    rehearse(searcher, space, min(batch, trials), reward.length)
    parts = fingerprint.settings(searcher=searcher, reward=reward, batch=batch, seed=seed, task=task)
    if reward.length > 1:  # whose order stored rewards and the winner hang on
        parts["reward.objectives"] = [name for name, _ in front.axes(reward, reward.length)]
    parts |= fingerprint.settings(objective=made, skip=("space", "task", "seed"))
    parts |= fingerprint.settings(rungs=rungs) if rungs is not None else {}
    if callable(digest := getattr(searcher, "digest", None)) and (known := digest(space)) is not None:
        parts["searcher.known"] = known  # of earlier searches, which must tell the same when this one is resumed
    return made, {**parts, "task.data": fingerprint.data(task), **fingerprint.builder(space)}


def rehearse(searcher: Searcher[Any], space: SearchSpace[Any], size: int, length: int) -> None:
    """Tells a searcher of a made-up batch of `size`. Raises: InputError if it cannot take the space, or the rewards."""
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        draw = random.Random(0)
        candidates = [space.sample(draw) for _ in range(size)]
        ended = [
            Trial(n, each, (0, size), (n,), Status.COMPLETE, Outcome(), (0.0,) * length)
            for n, each in enumerate(candidates)
        ]
        searcher.tell(searcher.init(space, jax.random.key(0)), ended)


def _drive(held: _Search, trials: int, batch: int) -> None:
    """Runs batches until there are enough trials, from wherever the store says that the search stands."""
    state = held.replay()
    climb = Climb(held.rungs, staged(held.objective)) if held.rungs is not None else None
    while held.log.count() < max(trials, len(held.log.trials())):
        todo = held.todo(state, min(batch, trials - held.log.count()))
        if climb is None:
            held.run(todo)
        else:
            climb.batch(todo, held.log, held.run, held.close)
        state = held.tell(state, held.log.batches()[-1])
    if climb is not None:
        climb.objective.retain(())


def _conclude(held: _Search, run: Run, task: Task, final: Objective | None, seed: int) -> dict[str, Any]:
    """Hands the winner over and writes `trials.csv` and `result.json`, in that order and the latter last."""
    done = held.log.trials()
    if (record := _concluded(run.directory, done, final)) is not None:
        return record
    files.replace(run.directory / "trials.csv", write_csv(done, held.space))
    several = front.members(done) if held.reward.length > 1 else []
    winner = several[0] if several else find_best(done)
    test = None
    if winner is not None and final is not None:
        test = _finished(held, *_together(held, final, [winner])[0], task.metric)
    fronts = _fronted(held, run, final, done, several) if several else {}
    counts = collections.Counter(trial.status.value for trial in done)
    record = {
        "version": VERSION,
        "space": held.space.name,
        "task": task.name,
        "searcher": title(held.searcher),
        "seed": seed,
        "trials": {name: counts[name] for name in ("complete", "failed", "pruned")},
        "best": winner and describe(winner),
        "test": test,
        **fronts,
        "seconds": held.ledger(),
        "environment": environment(held.executor),
    }
    files.replace(run.directory / "result.json", json.dumps(record, indent=2, allow_nan=False) + "\n")
    return record


def _concluded(directory: Path, done: Sequence[Trial], final: Objective | None) -> dict[str, Any] | None:
    """The record of an earlier session that ended with the same trials; None if there is none, or it is not whole."""
    counts = collections.Counter(trial.status.value for trial in done)
    try:
        found = json.loads((directory / "result.json").read_text())
        same = found["trials"] == {name: counts[name] for name in ("complete", "failed", "pruned")}
        whole = final is None or (found["test"] is not None and getattr(final, "done", lambda _: True)(found["test"]))
        members, sound = found.get("front", {}).get("members", []), getattr(final, "whole", Path.is_dir)
        there = all("folder" not in each or sound(directory / each["folder"]) for each in members)
        there &= not members or (directory / front.FIGURE).is_file()
        return found if same and whole and there and (directory / "trials.csv").is_file() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _finished(held: _Search, trial: Trial, ended: Trial, metric: str) -> dict[str, Any]:
    """The test scores of a final run. Raises: SearchError if it failed."""
    held.charge(ended.outcome)
    if ended.outcome is None or ended.outcome.error is not None:
        reason = "it gave no outcome" if ended.outcome is None else ended.outcome.error
        raise SearchError(f"trial {trial.number} could not be handed over: {reason}; the trials are kept.")
    return held_out(metric, trial, ended.outcome.metrics)


def _fronted(
    held: _Search, run: Run, final: Objective | None, done: Sequence[Trial], several: Sequence[Trial]
) -> dict[str, Any]:
    """The front, its figure drawn and, if `final` can, each member handed over. Raises: SearchError if one fails."""
    files.replace(run.directory / front.FIGURE, front.figure(done, several, held.reward))
    beside, folder = getattr(final, "beside", None), (run.directory / front.FOLDER).resolve()
    files.keep(folder, {Path(front.folder(trial)).name for trial in several})  # nothing of an earlier front
    pairs = _together(held, beside(folder), several) if beside else []
    return {"front": front.record(done, several, [_finished(held, *pair, run.metric) for pair in pairs])}


def _together(held: _Search, final: Objective, several: Sequence[Trial]) -> list[tuple[Trial, Trial]]:
    """Trials before and after their final run, in their order."""
    ended = {trial.number: trial for trial in held.executor.run(final, several)}
    return [(trial, ended[trial.number]) for trial in several]


def _begin(directory: Path, config: Mapping[str, Any] | None) -> None:
    """Before there is a study: writes the configuration, so that a folder with a study can be resumed.

    Raises: InputError if the folder has results whose trials are lost, or cannot be written.
    """
    if (directory / "result.json").exists():
        raise InputError(
            f"{directory} holds the results of a search whose trials are gone (study.db is missing or empty, or they "
            "were kept in memory); restore it from a copy or choose another out=."
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if config is not None:
            _write_config(directory, config)
    except OSError as error:
        raise InputError(
            f"{directory} cannot be written to ({error.strerror}); choose a place with out=FOLDER."
        ) from None


def _write_config(directory: Path, config: Mapping[str, Any]) -> None:
    import yaml

    text = "# The search's configuration, resolved: `l2l resume` continues from it.\n"
    files.replace(directory / "config.yaml", text + yaml.safe_dump(dict(config), sort_keys=False))
