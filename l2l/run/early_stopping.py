"""A batch that climbs from rung to rung: whoever is stopped is closed, whoever is left is trained to the end."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from l2l.errors import InputError
from l2l.store.log import TrialLog
from l2l.types import Objective, Outcome, Rungs, Staged, Status, Trial


@dataclass(frozen=True)
class Climb:
    """Rungs, and the objective that can stop at them."""

    rungs: Rungs
    objective: Staged

    def check(self, objectives: int, batch: int) -> None:
        """Refuses what cannot be stopped. Raises: InputError."""
        if isinstance(self.rungs, type) or not callable(getattr(self.rungs, "keep", None)):
            raise InputError(f"rungs must be Rungs, such as l2l.rungs.Asha(), or none, got {self.rungs!r:.80}.")
        self.rungs.check(self.objective.total, objectives, batch)

    def batch(
        self,
        todo: Sequence[Trial],
        log: TrialLog,
        run: Callable[[Sequence[Trial]], None],
        close: Callable[[Trial], None],
    ) -> None:
        """Runs the batch of these open trials, from wherever each of them stands.

        What is decided at a rung follows from what is stored, so after a crash it is decided again, and alike.

        Raises: SearchError if the store fails, and whatever `run` and `close` raise.
        """
        first, size = todo[0].batch
        batch = range(first, first + size)
        borders = functools.cache(lambda number: tuple(self.rungs.borders(number, self.objective.total)))
        for turn in itertools.count():
            trials = log.trials()
            alive = [trial for trial in trials[first:] if trial.status is Status.RUNNING]
            # One that has passed no rung has no state of its own: what lies there may be another study's.
            self.objective.retain([trial.number for trial in alive if trial.scores])
            if not alive:
                return
            goals = {number: own[turn] for number in range(batch.stop) if turn < len(own := borders(number))}
            wanted = [replace(trial, until=goals.get(trial.number)) for trial in alive]
            run([trial for trial in wanted if trial.until is None or trial.until not in trial.scores])
            trials = log.trials()
            for rung in sorted({goals[number] for number in batch if number in goals}):
                there = [trials[number] for number in goals if goals[number] == rung and rung in trials[number].scores]
                if not (ours := [trial for trial in there if trial.number in batch]):
                    continue  # they have all failed
                kept = self.rungs.keep(rung, ours, [trial for trial in there if trial.number < first])
                for trial in ours:
                    if trial.status is Status.RUNNING and trial.number not in kept:
                        close(replace(trial, status=Status.PRUNED, reward=trial.scores[rung]))


def staged(objective: Objective) -> Staged:
    """The objective as one that can stop at a rung. Raises: InputError if it cannot."""
    if not callable(getattr(objective, "within", None)):
        name = type(objective).__name__
        raise InputError(f"rungs need an objective that can stop after an epoch, {name} cannot; choose rungs=none.")
    return cast("Staged", objective)


def joined(before: Trial, ended: Trial) -> Trial:
    """A trial that went on from a rung: the seconds of all its parts and, if it failed, what it had reached."""
    if before.outcome is None or ended.outcome is None:
        return ended
    past, last = before.outcome.seconds, ended.outcome.seconds
    seconds = {name: past.get(name, 0.0) + last.get(name, 0.0) for name in {**past, **last}}
    outcome: Outcome = replace(ended.outcome, seconds=seconds, curve=ended.outcome.curve or before.outcome.curve)
    return replace(ended, outcome=outcome, scores=before.scores)
