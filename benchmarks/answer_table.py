"""What the runs of `first_answer.py` come to: what one run found and when, the medians, and the table of them."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from table import format_range

PEER = "optuna + torch"
"""The row that the others are compared with."""


@dataclass(frozen=True)
class Run:
    """One run of a row, from the start of its processes to the end of the last one."""

    seconds: float
    memory: float
    """MiB of all its processes."""
    curve: Sequence[tuple[float, float]]
    """Seconds from the start, and the best validation accuracy of a complete trial so far; one entry for each rise."""
    trials: Mapping[str, int]
    """How many are complete, pruned and failed (fail)."""
    test: float | None = None
    """Accuracy of the winner on the test split; None without a final run."""
    test_seeds: float | None = None
    """The mean over trainings of the winner with other seeds."""
    programs: int | None = None
    """Programs that trained trials, each counted once in every worker that has it; of l2l alone."""
    compiled: int | None = None
    """Of the programs that train, those that were not in the cache."""
    ledger: Mapping[str, float] = field(default_factory=dict[str, float])
    """Seconds by purpose, of l2l alone."""

    @property
    def first(self) -> float:
        """Seconds until the first trial was complete."""
        return self.curve[0][0]

    @property
    def best(self) -> float:
        """The best validation accuracy."""
        return self.curve[-1][1]

    def write(self) -> dict[str, Any]:
        """The run as JSON values."""
        return {**dataclasses.asdict(self), "first": self.first, "best": self.best}


def make_curve(ends: Iterable[tuple[float, float]], started: float) -> list[tuple[float, float]]:
    """The best accuracy over seconds, from the times at which trials ended, in seconds of the clock, and their scores.

    The first entry is the first trial, whatever its score.
    """
    curve: list[tuple[float, float]] = []
    for end, accuracy in sorted(ends):
        if not curve or accuracy > curve[-1][1]:
            curve.append((round(end - started, 3), accuracy))
    return curve


def describe_run(run: Run) -> str:
    """A run in one line."""
    parts = [f"{run.seconds:.1f} s", f"first trial {run.first:.1f} s", f"best {run.best:.4f}"]
    if run.test is not None:
        parts.append(f"test {run.test:.4f}")
    parts += [f"{number} {state}" for state, number in run.trials.items() if number]
    if run.programs is not None:
        parts.append(f"{run.programs} programs, {run.compiled} compiled")
    parts.append(f"{run.memory:.0f} MiB")
    ledger = {name: round(seconds, 1) for name, seconds in run.ledger.items()}
    return ", ".join(parts) + (f" {ledger}" if ledger else "")


def summarise_runs(runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Medians by row; `ratio` is how many times as fast a row is as `PEER`, in pairs of the same repeat."""
    figures: dict[str, Any] = {}
    for row, row_runs in runs.items():
        columns: dict[str, list[float]] = {
            "seconds": [run.seconds for run in row_runs],
            "first": [run.first for run in row_runs],
            "best": [run.best for run in row_runs],
            "memory": [run.memory for run in row_runs],
            "test": [run.test for run in row_runs if run.test is not None],
            "test_seeds": [run.test_seeds for run in row_runs if run.test_seeds is not None],
            "programs": [run.programs for run in row_runs if run.programs is not None],
            "compiled": [run.compiled for run in row_runs if run.compiled is not None],
        }
        if row != PEER and PEER in runs:
            pairs = list(zip(runs[PEER], row_runs, strict=False))
            columns["ratio"] = [peer.seconds / run.seconds for peer, run in pairs]
            columns["first_ratio"] = [peer.first / run.first for peer, run in pairs]
        figures[row] = {
            name: {"median": statistics.median(values), "all": values} for name, values in columns.items() if values
        }
        figures[row]["ledger"] = {
            name: statistics.median(run.ledger[name] for run in row_runs) for name in row_runs[0].ledger
        }
    return figures


COLUMNS = {
    "seconds": ("seconds", 1), "first": ("first trial, s", 1), "best": ("best validation accuracy", 4),
    "test": ("test accuracy", 4), "test_seeds": ("test, other seeds", 4), "programs": ("programs", 0),
    "compiled": ("compiled", 0), "memory": ("peak memory, MiB", 0), "ratio": ("times as fast", 2),
    "first_ratio": ("first trial, times as fast", 2),
}  # fmt: skip
"""The table's columns: what a reader calls them, and the digits behind the point."""


def format_table(figures: Mapping[str, Any]) -> str:
    """The medians (smallest to largest) as a table, and below it l2l's seconds by purpose."""
    titles = [title for title, _ in COLUMNS.values()]
    lines = [f"| | runs | {' | '.join(titles)} |", "|---" * (len(titles) + 2) + "|"]
    for row, columns in figures.items():
        cells = [
            format_range(columns[name], digits) if name in columns else "-" for name, (_, digits) in COLUMNS.items()
        ]
        lines.append(f"| {row} | {len(columns['seconds']['all'])} | {' | '.join(cells)} |")
    if any("ratio" in columns for columns in figures.values()):
        lines += ["", f"Times as fast: as `{PEER}`, in pairs of the same repeat."]
    ledgers = {row: columns["ledger"] for row, columns in figures.items() if columns["ledger"]}
    if ledgers:
        purposes = list(next(iter(ledgers.values())))
        lines += ["", f"| seconds of l2l | {' | '.join(purposes)} |", "|---" * (len(purposes) + 1) + "|"]
        for row, ledger in ledgers.items():
            lines.append(f"| {row} | {' | '.join(f'{ledger[name]:.1f}' for name in purposes)} |")
        lines += ["", "Trace, compile and train are summed over the workers."]
    return "\n".join(lines)
