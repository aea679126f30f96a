"""The objective that trains nothing: it looks candidates up in a tabular benchmark, such as NAS-Bench-201."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from l2l.errors import InputError
from l2l.objectives.benchmark_table import BenchmarkTable, load_benchmark, read_choice_columns, refuse_to_build
from l2l.space import Candidate, Categorical, SearchSpace
from l2l.types import Outcome, Task, Trial


def benchmark_space(
    path: str | os.PathLike[str], codes: str | Sequence[str], names: str | None = None
) -> SearchSpace[Any]:
    """The space of a tabular benchmark: a Categorical for each column, with the values that occur in it.

    A column [N] makes a choice of the same name, a column `ops` [N, D] the choices `ops0`, `ops1` and so on. With
    `names`, an array of text in the file, integers in the columns are indices of it.

    Raises: InputError if the file has no such columns.
    """
    columns = read_choice_columns(path, list_codes(codes), names)
    choices = {column.name: Categorical(options=column.options) for column in columns}
    return SearchSpace(choices, refuse_to_build, "tabular")


@dataclass(kw_only=True)
class Tabular:
    """Looks candidates up in the `.npz` file `path`, which has a row for every candidate of the space.

    The columns `codes` identify the candidate of a row (see `benchmark_space`, which also explains `names`). `reward`
    and `report` are columns of numbers, which become metrics of those names. A relative path that does not exist is
    looked for in `$L2L_DATA`. A custom space needs choices with the names of the columns.

    Raises: InputError if an argument is no name, or (in `check`) the file lacks a candidate of the space.
    """

    space: SearchSpace[Any]
    task: Task
    path: str | os.PathLike[str]
    codes: str | Sequence[str]
    reward: str
    report: str | None = None
    names: str | None = None
    seed: int = 0
    _benchmark: BenchmarkTable | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        list_codes(self.codes)
        for name in ("reward", "report", "names"):
            value = getattr(self, name)
            if (value is not None or name == "reward") and (not isinstance(value, str) or not value):
                raise InputError(f"objective.{name} must be the name of a column, got {value!r}.")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_benchmark": None}  # each process reads the file

    @property
    def benchmark(self) -> BenchmarkTable:
        """The benchmark, read once. Raises: InputError."""
        if self._benchmark is None:
            codes = list_codes(self.codes)
            self._benchmark = load_benchmark(self.path, codes, self.reward, self.report, self.names, self.space)
        return self._benchmark

    def check(self) -> Collection[str]:
        """Reads the benchmark; the metrics of an outcome. Raises: InputError."""
        return {self.reward} if self.benchmark.report is None else {self.reward, self.report or ""}

    def name_bucket(self, candidate: Candidate) -> str:
        """One bucket for all: a batch is looked up at once."""
        return "benchmark"

    def __call__(self, trials: Sequence[Trial]) -> Iterator[Trial]:
        """The trials with their outcomes, in the order of the argument."""
        benchmark = self.benchmark
        rows = benchmark.find_rows([trial.candidate for trial in trials])
        for trial, row in zip(trials, rows, strict=True):
            metrics = {self.reward: float(benchmark.rewards[row])}
            if benchmark.report is not None and self.report is not None:
                metrics[self.report] = float(benchmark.report[row])
            yield replace(trial, outcome=Outcome(metrics))


def list_codes(codes: object) -> list[str]:
    """Names of columns from a list, or from one text with commas. Raises: InputError."""
    parts = codes.split(",") if isinstance(codes, str) else codes
    if isinstance(parts, Sequence) and parts and all(isinstance(part, str) and part.strip() for part in parts):
        names = [str(part).strip() for part in parts]
        if len(set(names)) == len(names):
            return names
    raise InputError(f"objective.codes must be the name of a column or a list of different ones, got {codes!r}.")
