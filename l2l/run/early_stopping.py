"""Early stopping: a batch trains from rung to rung, and the trials that a rung stops are closed as pruned."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from l2l.errors import InputError, check_part
from l2l.types import Objective, Outcome, Rungs, Staged, Status, Trial, TrialLog


@dataclass(frozen=True)
class EarlyStopping:
    """Rungs, and the objective that can stop at them."""

    rungs: Rungs
    objective: Staged

    def check(self, objectives: int, batch: int) -> None:
        """Rejects rungs that the training or the batch does not reach. Raises: InputError."""
        check_part("rungs", self.rungs, "Rungs, such as l2l.rungs.Asha(), or none", Rungs)
        self.rungs.check(self.objective.total_epochs, objectives, batch)

    def run_batch(
        self,
        opened: Sequence[Trial],
        log: TrialLog,
        run: Callable[[Sequence[Trial]], None],
        close: Callable[[Trial], None],
    ) -> None:
        """Runs the batch of these running trials, each from its last rung on.

        The decisions at a rung follow from stored scores alone, so they are repeated alike after a crash.

        Raises: SearchError if the store fails, and whatever `run` and `close` raise.
        """
        first, size = opened[0].batch
        batch = range(first, first + size)
        list_rungs = functools.cache(lambda number: tuple(self.rungs.list_rungs(number, self.objective.total_epochs)))
        for turn in itertools.count():
            running = [trial for trial in log.trials()[first:] if trial.status is Status.RUNNING]
            # A trial that has passed no rung has no checkpoint; one of its number may be another study's.
            self.objective.retain([trial.number for trial in running if trial.scores])
            if not running:
                return
            goals = {
                number: rungs[turn] for number in range(batch.stop) if turn < len(rungs := list_rungs(number))
            }  # the rung that each trial so far reaches in this turn
            staged = [replace(trial, stop_epoch=goals.get(trial.number)) for trial in running]
            run([trial for trial in staged if trial.stop_epoch is None or trial.stop_epoch not in trial.scores])
            trials = log.trials()
            for rung in sorted({goals[number] for number in batch if number in goals}):
                scored = [trials[number] for number in goals if goals[number] == rung and rung in trials[number].scores]
                current = [trial for trial in scored if trial.number in batch]
                if not current:
                    continue  # they have all failed
                survivors = self.rungs.keep(rung, current, [trial for trial in scored if trial.number < first])
                for trial in current:
                    if trial.status is Status.RUNNING and trial.number not in survivors:
                        close(replace(trial, status=Status.PRUNED, reward=trial.scores[rung]))


def require_staged(objective: Objective) -> Staged:
    """The objective as one that can stop at a rung. Raises: InputError if it cannot."""
    if not isinstance(objective, Staged):
        name = type(objective).__name__
        raise InputError(f"rungs need an objective that can stop after an epoch, {name} cannot; choose rungs=none.")
    return objective


def merge_parts(before: Trial, ended: Trial) -> Trial:
    """A trial that continued from a rung, with the seconds of all its parts and, if it failed, its earlier curve."""
    if before.outcome is None or ended.outcome is None:
        return ended
    past, last = before.outcome.seconds, ended.outcome.seconds
    seconds = {name: past.get(name, 0.0) + last.get(name, 0.0) for name in {**past, **last}}
    outcome: Outcome = replace(ended.outcome, seconds=seconds, curve=ended.outcome.curve or before.outcome.curve)
    return replace(ended, outcome=outcome, scores=before.scores)
