"""A table of measured candidates: one row for each candidate of a space, found by its codes."""

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
"""The most combinations of codes that an array of rows is made for; beyond them it is a dictionary."""
_CHUNK = 1 << 16


class Column(NamedTuple):
    """What a table says of one choice."""

    name: str
    options: tuple[Value, ...]
    """The values that occur, in the order of the table's own codes."""
    places: npt.NDArray[np.intp]
    """[N]: which of them each row has."""


@dataclass(frozen=True, eq=False)
class Table:
    """The rewards of every candidate of a space, by row of the file."""

    space: SearchSpace[Any]
    encoding: Encoding
    rows: Rows
    """The row of a candidate, by its codes as one number in mixed radix, the first decision the most significant one:
    an array [prod K], in which whatever stands at an inactive decision leads to the same row, or a dictionary of the
    numbers with 0 there, if the array would have more than `DENSE` places."""
    rewards: Floats
    """[N]"""
    report: Floats | None
    """[N], if a column was named."""
    winner: int
    """The row with the highest reward of the space, the first of equals."""

    @property
    def best(self) -> float:
        """The highest reward of the space."""
        return float(self.rewards[self.winner])

    def find(self, candidates: Sequence[Candidate]) -> npt.NDArray[np.int32]:
        """The rows [N] of candidates of the space."""
        codes, _ = self.encoding.encode(candidates)
        return np.array([self.rows[index] for index in numbers(self.encoding, codes).tolist()], np.int32)


@runtime_checkable
class HasBenchmark(Protocol):
    """An objective that looks candidates up in a tabular benchmark."""

    @property
    def table(self) -> Table:
        """The benchmark. Raises: InputError if its file does not fit the space."""
        ...

    @property
    def report(self) -> str | None:
        """The column that is reported beside the reward."""
        ...


def numbers(encoding: Encoding, codes: Codes) -> npt.NDArray[Any]:
    """Codes [N, D] as one number [N] each, in mixed radix."""
    sizes, weights = _radix(encoding)
    kind = np.int64 if math.prod(sizes) < 2**62 else object  # Python's whole numbers have no end
    return codes.astype(kind) @ np.array(weights, kind)


def _radix(encoding: Encoding) -> tuple[list[int], list[int]]:
    """By decision how many codes there are, and what each counts for."""
    sizes = [len(decision) for decision in encoding.decisions]
    return sizes, [math.prod(sizes[place + 1 :]) for place in range(len(sizes))]


def columns(path: str | os.PathLike[str], codes: Sequence[str], names: str | None) -> list[Column]:
    """The choices that the columns `codes` make: one for a column [N], D for a column [N, D].

    `names` is an array of words, which the whole numbers in the columns are indices into.

    Raises: InputError if a column is none of these.
    """
    found = read(path, [*codes, *([names] if names else [])])
    words = found[names] if names else None
    if words is not None and (words.ndim != 1 or words.dtype.kind != "U"):
        raise InputError(f"{path}: {names!r} must be an array [K] of text, got {_shape(words)}.")
    made: list[Column] = []
    for code in codes:
        array = found[code]
        if array.ndim not in (1, 2) or array.dtype.kind not in "biufU" or 0 in array.shape:
            raise InputError(
                f"{path}: the column {code!r} must be an array [N] or [N, D] of numbers or text, got {_shape(array)}."
            )
        several = array.ndim == 2
        for place, values in enumerate(array.T if several else [array]):
            made.append(_column(path, f"{code}{place}" if several else code, values, words))
    lengths = {code: len(found[code]) for code in codes}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{path}: the columns must be equally long, got {_listed(lengths)}.")
    twice = [each.name for each in made if [other.name for other in made].count(each.name) > 1]
    if twice:
        raise InputError(f"{path}: two columns would make the choice {twice[0]!r}; rename one of them.")
    return made


def _column(path: object, name: str, values: npt.NDArray[Any], words: npt.NDArray[Any] | None) -> Column:
    known, places = np.unique(values, return_inverse=True)
    if known.dtype.kind == "f" and not np.isfinite(known).all():
        raise InputError(f"{path}: the codes of {name!r} must be finite numbers, got {known[~np.isfinite(known)][0]}.")
    if words is not None and known.dtype.kind in "iu":
        if known[0] < 0 or known[-1] >= len(words):
            wrong = known[0] if known[0] < 0 else known[-1]
            raise InputError(f"{path}: the codes of {name!r} must be indices of {len(words)} names, got {wrong}.")
        known = words[known]
    return Column(name, tuple(known.tolist()), places)


def refuse_to_build(values: Mapping[str, Any], spec: Any) -> NoReturn:
    """The candidates of a tabular benchmark are not models. Raises: InputError."""
    raise InputError(
        "the candidates of a table are looked up and build no model; give objective=tabular and final=null."
    )


def load(
    path: str | os.PathLike[str],
    codes: Sequence[str],
    reward: str,
    report: str | None = None,
    names: str | None = None,
    space: SearchSpace[Any] | None = None,
) -> Table:
    """The table in the file, for the candidates of `space` (None: all that its columns span).

    Rows of values that the space does not offer are passed over; a column's value at an inactive choice means nothing.

    Raises: InputError if a candidate has no row or two, or a row of the space no finite reward.
    """
    found = columns(path, codes, names)
    length = len(found[0].places)
    scores = {name: _scores(path, name, length) for name in (reward, report) if name is not None}
    if space is None:
        space = SearchSpace(
            {each.name: Categorical(options=each.options) for each in found}, refuse_to_build, "tabular"
        )
    encoding = Encoding(space)
    coded = _coded(path, found, encoding)
    masks = np.concatenate([encoding.masks(part) for part in _parts(np.maximum(coded, 0))])
    inside = np.flatnonzero(~((coded < 0) & masks).any(1))
    places = numbers(encoding, np.where(masks, coded, 0)[inside])
    _check_once(path, encoding, places, inside)
    for name, values in scores.items():
        if len(wrong := inside[~np.isfinite(values[inside])]):
            raise InputError(
                f"{path}: the column {name!r} has {len(wrong)} values that are not finite, the first "
                f"({values[wrong[0]]}) in row {wrong[0]}; leave such rows out, and their candidates out of the space."
            )
    winner = int(inside[scores[reward][inside].argmax()])
    other = scores[report] if report is not None else None
    return Table(space, encoding, _rows(encoding, places, inside), scores[reward], other, winner)


def _scores(path: object, name: str, length: int) -> Floats:
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


def _coded(path: object, found: Sequence[Column], encoding: Encoding) -> Codes:
    """The codes [N, D] of the rows; -1 where a value is none of the choice's."""
    known = {each.name: each for each in found}
    choices = [decision.name for decision in encoding.decisions]
    if set(known) != set(choices):
        odd = next((name for name in choices if name not in known), None)
        if odd is not None:
            raise InputError(f"{path} has no column for the choice {odd!r} of the space: {suggest_names(odd, known)}")
        odd = next(name for name in known if name not in choices)
        raise InputError(f"{path}: the space has no choice for the column {odd!r}: {suggest_names(odd, choices)}")
    coded = np.zeros((len(found[0].places), len(choices)), np.int32)
    for place, decision in enumerate(encoding.decisions):
        if decision.bins:
            raise InputError(
                f"the choice {decision.name!r} has more values than a table can have rows for; make it a Categorical "
                "of the column's values."
            )
        column = known[decision.name]
        codes = [_code(encoding, place, value) for value in column.options]
        if absent := [each for code, each in enumerate(decision.values) if code not in codes]:
            raise InputError(
                f"the choice {decision.name!r} has the option {absent[0]!r}, which {path} does not have: "
                f"its values are {_listed(column.options)}."
            )
        coded[:, place] = np.array(codes, np.int32)[column.places]
    return coded


def _code(encoding: Encoding, place: int, value: Value) -> int:
    decision = encoding.decisions[place]
    try:
        return decision.code(decision.choice.read(value))
    except InputError:
        return -1


def _check_once(path: object, encoding: Encoding, places: npt.NDArray[Any], inside: npt.NDArray[Any]) -> None:
    """Refuses a candidate with two rows or none. Raises: InputError."""
    order = np.argsort(places, kind="stable")
    twice = np.flatnonzero(places[order][1:] == places[order][:-1])
    if len(twice):
        first, second = inside[order[twice[0] : twice[0] + 2]]
        raise InputError(
            f"{path}: {len(twice)} rows repeat a candidate, first row {second} that of row {first}; leave one of them."
        )
    missing = int(encoding.space.count()) - len(places)
    if missing:
        known = set(places.tolist())
        absent = next(each for each in every(encoding.space) if _number(encoding, each) not in known)
        raise InputError(
            f"{path} has no row for {missing} of {int(encoding.space.count())} candidates, the first of them "
            f"{dict(absent.values)}; every candidate of the space needs one."
        )


def _number(encoding: Encoding, candidate: Candidate) -> int:
    return int(numbers(encoding, encoding.encode([candidate])[0])[0])


def every(space: SearchSpace[Any]) -> Iterator[Candidate]:
    """Every candidate of a countable space, in the order of its options, the last choice changing first."""
    names = list(space.choices)

    def walk(place: int, values: dict[str, Value]) -> Iterator[Candidate]:
        if place == len(names):
            yield Candidate(values)
        elif space.is_active(name := names[place], values):
            for value in options(space.choices[name]):  # pyright: ignore[reportArgumentType]
                yield from walk(place + 1, {**values, name: value})
        else:
            yield from walk(place + 1, values)

    return walk(0, {})


def _rows(encoding: Encoding, places: npt.NDArray[Any], inside: npt.NDArray[Any]) -> Rows:
    """Rows by number; `places` are the numbers of the rows `inside`, each candidate once."""
    sizes, weights = _radix(encoding)
    if (size := math.prod(sizes)) > DENSE:
        return dict(zip(places.tolist(), inside.tolist(), strict=True))
    rows = np.zeros(size, np.int32)
    rows[places] = inside
    if any(decision.choice.when for decision in encoding.decisions):
        for numbers_ in _parts(np.arange(size)):
            codes = (numbers_[:, None] // np.array(weights) % np.array(sizes)).astype(np.int32)
            rows[numbers_] = rows[numbers(encoding, np.where(encoding.masks(codes), codes, 0))]
    rows.flags.writeable = False
    return rows


def _parts(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Stretches of an array, so that what is made of each stays small."""
    return (array[first : first + _CHUNK] for first in range(0, len(array), _CHUNK))


def _shape(array: npt.NDArray[Any]) -> str:
    return f"{array.dtype} of shape {list(array.shape)}"


def _listed(values: Sequence[Value] | Mapping[str, int]) -> str:
    """A few values in words."""
    words = [f"{k!r} {v}" for k, v in values.items()] if isinstance(values, Mapping) else [repr(v) for v in values]
    return ", ".join(words[:8]) + (", ..." if len(words) > 8 else "")
