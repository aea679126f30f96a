"""Runs trials in this process, for debugging: breakpoints work, and a crash of the process ends the search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from l2l.types import Objective, Trial


@dataclass(frozen=True)
class Inline:
    """Calls the objective here."""

    workers = 1
    in_process = True

    def check(self, objective: Objective) -> None:
        """Anything can be called here."""

    def start(self, directory: Path) -> None:
        """Nothing to start: what trials print is seen here."""

    def run(self, objective: Objective, trials: Sequence[Trial]) -> Iterator[Trial]:
        """Every trial with its outcome, in the objective's order, then those that it left out, without an outcome."""
        unfinished = {trial.number: trial for trial in trials}
        for trial in objective(trials):
            unfinished.pop(trial.number, None)
            yield trial
        yield from unfinished.values()

    def close(self) -> None:
        """Nothing was started."""
