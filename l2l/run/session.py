"""One call of `l2l.search` while it runs: its parts, the trial log and the ledger of seconds."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax

from l2l.cohorts import group_by_program
from l2l.reward import compute_epoch_rewards, gate
from l2l.run.early_stopping import EarlyStopping, merge_parts
from l2l.space import SearchSpace
from l2l.types import ASK, Executor, Key, Objective, Outcome, Reward, Searcher, Status, Tracker, Trial, TrialLog

LEDGER = ("trace", "compile", "train", "evaluate", "controller", "store", "idle")
"""What the seconds of a search went to; `controller` is the searcher."""


@dataclass
class Session:
    """The parts of a running search."""

    space: SearchSpace[Any]
    searcher: Searcher[Any]
    objective: Objective
    reward: Reward
    executor: Executor
    trackers: Sequence[Tracker]
    log: TrialLog
    key: Key
    started: float
    """`time.perf_counter()` when the call began."""
    early_stopping: EarlyStopping | None = None
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LEDGER, 0.0))

    def read_ledger(self) -> dict[str, float]:
        """Seconds so far, in total and by purpose."""
        total = time.perf_counter() - self.started
        seconds = {**self.seconds, "store": self.log.seconds}
        workers = self.executor.workers or 1
        busy = sum(seconds[name] for name in ("trace", "compile", "train", "evaluate")) / workers
        seconds["idle"] = max(0.0, total - busy - seconds["controller"] - seconds["store"])
        return {"total": total, **seconds}

    def tell(self, state: Any, batch: Sequence[Trial]) -> Any:
        """The searcher's state after a whole batch; trackers see its summary."""
        with self.time_searcher():
            state = self.searcher.tell(state, batch)
            summary = self.searcher.summary(state)
        for tracker in self.trackers:
            tracker.tell_batch(batch, summary)
        return state

    def replay(self) -> Any:
        """The searcher's state: a fold over the stored batches."""
        with self.time_searcher():
            state = self.searcher.init(self.space, jax.random.fold_in(self.key, ASK))
        return functools.reduce(self.tell, self.log.batches(), state)

    def open_batch(self, state: Any, size: int) -> list[Trial]:
        """The trials to run next: those that a crash left running, or a new batch of the searcher's."""
        if running := self.log.list_running():
            return running
        first, size = self.log.next_batch(size)
        with self.time_searcher():
            key = jax.random.fold_in(jax.random.fold_in(self.key, ASK), first + 1)
            candidates = self.searcher.ask(state, key, size)
        opened = self.log.open(candidates, group_by_program(candidates, self.space, self.objective, first))
        return [trial for trial in opened if trial.status is Status.RUNNING]

    def run_batch(self, opened: Sequence[Trial]) -> None:
        """Runs the running trials of a batch to their ends, with early stopping if there is any."""
        if self.early_stopping is None:
            self.run(opened)
        else:
            self.early_stopping.run_batch(opened, self.log, self.run, self.close)

    def run(self, opened: Sequence[Trial]) -> None:
        """Runs trials to their ends or to their next rung; stores and shows each as it finishes."""
        fresh = [replace(trial, outcome=None, scores={}) for trial in opened]
        for trial in self.executor.run(self.objective, fresh):
            ended = gate(trial, self.reward)
            self.charge(ended.outcome)  # the gate lets numbers through and nothing else
            if self.early_stopping is not None:
                ended = merge_parts(self.log.trials()[trial.number], ended)
            if ended.status is Status.COMPLETE:
                epochs = compute_epoch_rewards(ended.outcome or Outcome(), self.reward)
                ended = replace(ended, scores={**ended.scores, **epochs})
            if ended.status is not Status.COMPLETE or trial.stop_epoch is None:
                self.close(ended)
            else:
                scores = {**ended.scores, trial.stop_epoch: ended.reward or ()}
                self.log.reach(replace(ended, status=Status.RUNNING, reward=None, scores=scores))

    def close(self, trial: Trial) -> None:
        """Stores and shows a trial that has ended."""
        closed = self.log.close(trial)
        for tracker in self.trackers:
            tracker.tell(closed, self.read_ledger())

    def charge(self, outcome: Outcome | None) -> None:
        """Adds the seconds of a run to the ledger."""
        for name, value in (outcome or Outcome()).seconds.items():
            if math.isfinite(value):  # a custom objective may report anything
                self.seconds[name] = self.seconds.get(name, 0.0) + value

    @contextlib.contextmanager
    def time_searcher(self) -> Generator[None]:
        """Charges the body to the searcher, and runs it on the CPU: its bits must not depend on an accelerator."""
        started = time.perf_counter()
        try:
            with jax.default_device(jax.local_devices(backend="cpu")[0]):
                yield
        finally:
            self.seconds["controller"] += time.perf_counter() - started
