"""The objective that trains nothing: each candidate's metrics stand in a table, such as NAS-Bench-201's."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from l2l.errors import InputError
from l2l.objectives.benchmark_table import Table, columns, load, refuse_to_build
from l2l.space import Candidate, Categorical, SearchSpace
from l2l.types import Outcome, Task, Trial


def benchmark_space(
    path: str | os.PathLike[str], codes: str | Sequence[str], names: str | None = None
) -> SearchSpace[Any]:
    """The space that columns of a table span: a Categorical for each, of the values that occur in it.

    A column [N] makes a choice of its own name, a column `ops` [N, D] the choices `ops0`, `ops1` and so on. With
    `names`, an array of words in the table, the whole numbers in the columns are indices into it.

    Raises: InputError if the table has no such columns.
    """
    found = columns(path, listed(codes), names)
    return SearchSpace({each.name: Categorical(options=each.options) for each in found}, refuse_to_build, "tabular")


@dataclass(kw_only=True)
class Tabular:
    """Looks candidates up in the `.npz` file `path`, which has a row for every candidate of the space.

    The columns `codes` say which candidate a row is (see `benchmark_space`, which also explains `names`), `reward`
    and, if given, `report` are columns of numbers and the metrics of those names. A relative path that leads nowhere is
    looked for in `$L2L_DATA`. The space may be one of the user's own whose choices are called as the columns are.

    Raises: InputError if an argument is no name, or (in `check`) the table does not hold what the space offers.
    """

    space: SearchSpace[Any]
    task: Task
    path: str | os.PathLike[str]
    codes: str | Sequence[str]
    reward: str
    report: str | None = None
    names: str | None = None
    seed: int = 0
    _table: Table | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        listed(self.codes)
        for name in ("reward", "report", "names"):
            value = getattr(self, name)
            if (value is not None or name == "reward") and (not isinstance(value, str) or not value):
                raise InputError(f"objective.{name} must be the name of a column, got {value!r}.")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}  # each process reads its own

    @property
    def table(self) -> Table:
        """The table, read once. Raises: InputError."""
        if self._table is None:
            self._table = load(self.path, listed(self.codes), self.reward, self.report, self.names, self.space)
        return self._table

    def check(self) -> Collection[str]:
        """Reads the table; the metrics of an outcome. Raises: InputError."""
        return {self.reward} if self.table.report is None else {self.reward, self.report or ""}

    def program(self, candidate: Candidate) -> str:
        """There is none to share: a batch is looked up at once."""
        return "table"

    def __call__(self, trials: Sequence[Trial]) -> Iterator[Trial]:
        """The trials with their outcomes, in the order given."""
        table = self.table
        for trial, row in zip(trials, table.find([each.candidate for each in trials]), strict=True):
            metrics = {self.reward: float(table.rewards[row])}
            if table.report is not None and self.report is not None:
                metrics[self.report] = float(table.report[row])
            yield replace(trial, outcome=Outcome(metrics))


def listed(codes: object) -> list[str]:
    """Names of columns, given as a list or as one text with commas. Raises: InputError."""
    found = codes.split(",") if isinstance(codes, str) else codes
    if isinstance(found, Sequence) and found and all(isinstance(each, str) and each.strip() for each in found):
        names = [str(each).strip() for each in found]
        if len(set(names)) == len(names):
            return names
    raise InputError(f"objective.codes must be the name of a column or a list of different ones, got {codes!r}.")
