"""`trials.csv`: all trials of a search as one file for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from l2l.space import SearchSpace
from l2l.types import Outcome, Trial

_NOTHING = Outcome()
ReadCell = Callable[[Trial], Any]
"""Reads what a column has of a trial."""


def write_csv(trials: Sequence[Trial], space: SearchSpace[Any]) -> str:
    """The trials as CSV text: number, status, reward, choices, epochs, metrics, `seconds_*` and error, in that order.

    Choices stand in space order, metrics and seconds by name; numbers are written so that reading them back
    gives the same bits. A cell is empty where a choice is not active or nothing was measured.
    """
    columns: dict[str, ReadCell] = {"number": lambda trial: trial.number, "status": lambda trial: trial.status.value}
    rewards = max((len(trial.reward) for trial in trials if trial.reward is not None), default=1)
    for i in range(rewards):
        columns["reward" if rewards == 1 else f"reward_{i}"] = _reward(i)
    columns["error"] = lambda trial: _outcome(trial).error  # taken before the choices, written last
    for name in space.choices:
        columns[_free(name, "choice", columns)] = _choice(name)
    if any(map(_epochs, trials)):
        columns[_free("epochs", "trained", columns)] = _epochs
    for name in _names(_outcome(trial).metrics for trial in trials):
        columns[_free(name, "metric", columns)] = _metric(name)
    for name in _names(_outcome(trial).seconds for trial in trials):
        columns[_free(f"seconds_{name}", "ledger", columns)] = _seconds(name)
    columns["error"] = columns.pop("error")

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for trial in trials:
        writer.writerow([_cell(read_cell(trial)) for read_cell in columns.values()])
    return text.getvalue()


def _outcome(trial: Trial) -> Outcome:
    return trial.outcome or _NOTHING


def _names(groups: Iterable[Iterable[str]]) -> list[str]:
    return sorted({name for group in groups for name in group})


def _free(name: str, prefix: str, taken: Iterable[str]) -> str:
    """`name`, prefixed until no earlier column has it."""
    while name in taken:
        name = f"{prefix}_{name}"
    return name


# `None` is an option that a choice can have, so "nothing here" is the empty string.
def _reward(i: int) -> ReadCell:
    return lambda trial: "" if trial.reward is None else trial.reward[i]


def _choice(name: str) -> ReadCell:
    return lambda trial: str(trial.candidate.values[name]) if name in trial.candidate.values else ""


def _epochs(trial: Trial) -> int | None:
    """How many epochs its curve has; None if it has no curve."""
    return max(map(len, _outcome(trial).curve.values()), default=None)


def _metric(name: str) -> ReadCell:
    return lambda trial: _outcome(trial).metrics.get(name)


def _seconds(name: str) -> ReadCell:
    return lambda trial: _outcome(trial).seconds.get(name)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)
