"""A tabular benchmark: a file with one row for each candidate of a space, which is looked up by its codes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from l2l.encoding import Codes, Encoding
from l2l.errors import InputError, suggest_names
from l2l.space import Candidate, Categorical, SearchSpace, Value, options
from l2l.tasks.tabular import read

Floats = npt.NDArray[np.float64]
Rows: TypeAlias = "npt.NDArray[np.int32] | Mapping[int, int]"
DENSE = 10_000_000
"""Maximum combinations of codes for an array of rows; beyond them the rows are a dictionary."""
_PART_SIZE = 1 << 16
"""Elements of an array that are handled at a time."""


class ChoiceColumn(NamedTuple):
    """The values of one choice in the file."""

    name: str
    options: tuple[Value, ...]
    """The values that occur, in ascending order."""
    indices: npt.NDArray[np.intp]
    """[N]: the option of each row."""


@dataclass(frozen=True, eq=False)
class BenchmarkTable:
    """The rewards of every candidate of a space, by row of the file."""

    space: SearchSpace[Any]
    encoding: Encoding
    rows: Rows
    """The row of a candidate by its codes as one number in mixed radix, the first decision most significant.

    An array `[prod K]`, in which every code of an inactive decision leads to the same row; or, if the array would have
    more than `DENSE` elements, a dictionary of the numbers with code 0 for inactive decisions."""
    rewards: Floats
    """[N]"""
    report: Floats | None
    """[N]; None without a report column."""
    winner: int
    """The row with the highest reward of the space, the first of equals."""

    @property
    def best_reward(self) -> float:
        """The highest reward of the space."""
        return float(self.rewards[self.winner])

    def find_rows(self, candidates: Sequence[Candidate]) -> npt.NDArray[np.int32]:
        """The rows [N] of candidates of the space."""
        codes, _ = self.encoding.encode(candidates)
        return np.array([self.rows[index] for index in number_codes(self.encoding, codes).tolist()], np.int32)


@runtime_checkable
class HasBenchmark(Protocol):
    """An objective that looks candidates up in a tabular benchmark."""

    @property
    def benchmark(self) -> BenchmarkTable:
        """The benchmark. Raises: InputError if its file does not fit the space."""
        ...

    @property
    def report(self) -> str | None:
        """The column that is reported beside the reward."""
        ...


def number_codes(encoding: Encoding, codes: Codes) -> npt.NDArray[Any]:
    """Codes [N, D] as one number [N] each, in mixed radix."""
    sizes, weights = _radix(encoding)
    dtype = np.int64 if math.prod(sizes) < 2**62 else object  # Python's integers have no limit
    return codes.astype(dtype) @ np.array(weights, dtype)


def _radix(encoding: Encoding) -> tuple[list[int], list[int]]:
    """By decision: the number of codes, and the weight of a code in the number of a candidate."""
    sizes = [len(decision) for decision in encoding.decisions]
    return sizes, [math.prod(sizes[index + 1 :]) for index in range(len(sizes))]


def read_choice_columns(path: str | os.PathLike[str], codes: Sequence[str], names: str | None) -> list[ChoiceColumn]:
    """Reads the columns `codes` as choices: one for a column [N], D for a column [N, D].

    `names` is an array of text that integers in the columns are indices of.

    Raises: InputError if a column has another shape or type.
    """
    arrays = read(path, [*codes, *([names] if names else [])])
    words = arrays[names] if names else None
    if words is not None and (words.ndim != 1 or words.dtype.kind != "U"):
        raise InputError(f"{path}: {names!r} must be an array [K] of text, got {_shape(words)}.")
    columns: list[ChoiceColumn] = []
    for code in codes:
        array = arrays[code]
        if array.ndim not in (1, 2) or array.dtype.kind not in "biufU" or 0 in array.shape:
            raise InputError(
                f"{path}: the column {code!r} must be an array [N] or [N, D] of numbers or text, got {_shape(array)}."
            )
        is_matrix = array.ndim == 2
        for index, values in enumerate(array.T if is_matrix else [array]):
            columns.append(_read_choice_column(path, f"{code}{index}" if is_matrix else code, values, words))
    lengths = {code: len(arrays[code]) for code in codes}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{path}: the columns must be equally long, got {_list_values(lengths)}.")
    choices = [column.name for column in columns]
    if repeated := [name for name in choices if choices.count(name) > 1]:
        raise InputError(f"{path}: two columns would make the choice {repeated[0]!r}; rename one of them.")
    return columns


def _read_choice_column(
    path: object, name: str, values: npt.NDArray[Any], words: npt.NDArray[Any] | None
) -> ChoiceColumn:
    options, indices = np.unique(values, return_inverse=True)
    if options.dtype.kind == "f" and not np.isfinite(options).all():
        wrong = options[~np.isfinite(options)][0]
        raise InputError(f"{path}: the codes of {name!r} must be finite numbers, got {wrong}.")
    if words is not None and options.dtype.kind in "iu":
        if options[0] < 0 or options[-1] >= len(words):
            wrong = options[0] if options[0] < 0 else options[-1]
            raise InputError(f"{path}: the codes of {name!r} must be indices of {len(words)} names, got {wrong}.")
        options = words[options]
    return ChoiceColumn(name, tuple(options.tolist()), indices)


def refuse_to_build(values: Mapping[str, Any], spec: Any) -> NoReturn:
    """The candidates of a tabular benchmark are not models. Raises: InputError."""
    raise InputError(
        "the candidates of a tabular benchmark are looked up and build no model; give objective=tabular and final=null."
    )


def load_benchmark(
    path: str | os.PathLike[str],
    codes: Sequence[str],
    reward: str,
    report: str | None = None,
    names: str | None = None,
    space: SearchSpace[Any] | None = None,
) -> BenchmarkTable:
    """Reads the benchmark in a file for the candidates of `space` (None: all combinations of its columns).

    Rows with values outside the space are ignored, and so is the value of an inactive choice.

    Raises: InputError if a candidate has no row or two, or no finite reward.
    """
    columns = read_choice_columns(path, codes, names)
    length = len(columns[0].indices)
    scores = {name: _read_scores(path, name, length) for name in (reward, report) if name is not None}
    if space is None:
        space = SearchSpace(
            {column.name: Categorical(options=column.options) for column in columns}, refuse_to_build, "tabular"
        )
    encoding = Encoding(space)
    codes_of_rows = _encode_rows(path, columns, encoding)
    masks = np.concatenate([encoding.masks(part) for part in _split(np.maximum(codes_of_rows, 0))])
    rows = np.flatnonzero(~((codes_of_rows < 0) & masks).any(1))
    numbers = number_codes(encoding, np.where(masks, codes_of_rows, 0)[rows])
    _check_rows(path, encoding, numbers, rows)
    for name, values in scores.items():
        if len(wrong := rows[~np.isfinite(values[rows])]):
            raise InputError(
                f"{path}: the column {name!r} has {len(wrong)} values that are not finite, the first "
                f"({values[wrong[0]]}) in row {wrong[0]}; leave such rows out, and their candidates out of the space."
            )
    winner = int(rows[scores[reward][rows].argmax()])
    reported = scores[report] if report is not None else None
    return BenchmarkTable(space, encoding, _index_rows(encoding, numbers, rows), scores[reward], reported, winner)


def _read_scores(path: object, name: str, length: int) -> Floats:
    """A column of numbers [N]."""
    array = read(path, [name])[name]  # pyright: ignore[reportArgumentType]
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise InputError(f"{path}: the column {name!r} must be an array [N] of numbers, got {_shape(array)}.")
    if len(array) != length:
        raise InputError(
            f"{path}: the column {name!r} has {len(array)} rows, where the codes have {length}; each row is one "
            "candidate."
        )
    return array.astype(np.float64)


def _encode_rows(path: object, columns: Sequence[ChoiceColumn], encoding: Encoding) -> Codes:
    """The codes [N, D] of the rows; -1 where the choice does not have the value."""
    by_name = {column.name: column for column in columns}
    choices = [decision.name for decision in encoding.decisions]
    for name in choices:
        if name not in by_name:
            raise InputError(
                f"{path} has no column for the choice {name!r} of the space: {suggest_names(name, by_name)}"
            )
    for name in by_name:
        if name not in choices:
            raise InputError(f"{path}: the space has no choice for the column {name!r}: {suggest_names(name, choices)}")
    codes_of_rows = np.zeros((len(columns[0].indices), len(choices)), np.int32)
    for index, decision in enumerate(encoding.decisions):
        if decision.bins:
            raise InputError(
                f"the choice {decision.name!r} has too many values for a tabular benchmark; make it a Categorical "
                "of the column's values."
            )
        column = by_name[decision.name]
        codes = [_encode_value(encoding, index, value) for value in column.options]
        if absent := [value for code, value in enumerate(decision.values) if code not in codes]:
            raise InputError(
                f"the choice {decision.name!r} has the option {absent[0]!r}, which {path} does not have: "
                f"its values are {_list_values(column.options)}."
            )
        codes_of_rows[:, index] = np.array(codes, np.int32)[column.indices]
    return codes_of_rows


def _encode_value(encoding: Encoding, index: int, value: Value) -> int:
    decision = encoding.decisions[index]
    try:
        return decision.code(decision.choice.read(value))
    except InputError:
        return -1


def _check_rows(path: object, encoding: Encoding, numbers: npt.NDArray[Any], rows: npt.NDArray[Any]) -> None:
    """Rejects a candidate with two rows or none. Raises: InputError."""
    order = np.argsort(numbers, kind="stable")
    repeats = np.flatnonzero(numbers[order][1:] == numbers[order][:-1])
    if len(repeats):
        first, second = rows[order[repeats[0] : repeats[0] + 2]]
        raise InputError(
            f"{path}: {len(repeats)} rows repeat a candidate, first row {second} that of row {first}; leave one out."
        )
    missing = int(encoding.space.count()) - len(numbers)
    if missing:
        present = set(numbers.tolist())
        absent = next(
            candidate
            for candidate in list_candidates(encoding.space)
            if _number_candidate(encoding, candidate) not in present
        )
        raise InputError(
            f"{path} has no row for {missing} of {int(encoding.space.count())} candidates, the first of them "
            f"{dict(absent.values)}; every candidate of the space needs one."
        )


def _number_candidate(encoding: Encoding, candidate: Candidate) -> int:
    return int(number_codes(encoding, encoding.encode([candidate])[0])[0])


def list_candidates(space: SearchSpace[Any]) -> Iterator[Candidate]:
    """Every candidate of a countable space in the order of its options; the last choice changes first."""
    names = list(space.choices)

    def walk(depth: int, values: dict[str, Value]) -> Iterator[Candidate]:
        if depth == len(names):
            yield Candidate(values)
        elif space.is_active(name := names[depth], values):
            for value in options(space.choices[name]):  # pyright: ignore[reportArgumentType]
                yield from walk(depth + 1, {**values, name: value})
        else:
            yield from walk(depth + 1, values)

    return walk(0, {})


def _index_rows(encoding: Encoding, numbers: npt.NDArray[Any], rows: npt.NDArray[Any]) -> Rows:
    """Rows by the numbers of their candidates, which are all different."""
    sizes, weights = _radix(encoding)
    if (size := math.prod(sizes)) > DENSE:
        return dict(zip(numbers.tolist(), rows.tolist(), strict=True))
    row_by_number = np.zeros(size, np.int32)
    row_by_number[numbers] = rows
    if any(decision.choice.when for decision in encoding.decisions):
        for part in _split(np.arange(size)):
            codes = (part[:, None] // np.array(weights) % np.array(sizes)).astype(np.int32)
            active_numbers = number_codes(encoding, np.where(encoding.masks(codes), codes, 0))
            row_by_number[part] = row_by_number[active_numbers]
    row_by_number.flags.writeable = False
    return row_by_number


def _split(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Parts of an array, so that arrays computed from a part stay small."""
    return (array[first : first + _PART_SIZE] for first in range(0, len(array), _PART_SIZE))


def _shape(array: npt.NDArray[Any]) -> str:
    return f"{array.dtype} of shape {list(array.shape)}"


def _list_values(values: Sequence[Value] | Mapping[str, int]) -> str:
    """A few values in words."""
    words = [f"{k!r} {v}" for k, v in values.items()] if isinstance(values, Mapping) else [repr(v) for v in values]
    return ", ".join(words[:8]) + (", ..." if len(words) > 8 else "")
