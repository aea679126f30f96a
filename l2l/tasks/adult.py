"""The UCI Adult census: who earned more than 50,000 dollars in 1994, by age, schooling, work and family."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from l2l.errors import InputError, check_integer
from l2l.tasks.classification import Classification, hold_out, make_read_only, pick_split
from l2l.tasks.data_files import AGAIN, find_file, open_file
from l2l.types import Split

PERSON_FIELDS: tuple[str, ...] = (
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship", "race",
    "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country",
)  # fmt: skip
"""The fields of a person, in the order of the files; the label follows."""
LEFT_OUT = ("fnlwgt", "education")
"""`fnlwgt` is the weight of a row in the census and says nothing of a person; `education` repeats `education-num`."""
LOGARITHMIC = ("capital-gain", "capital-loss")
"""Nine of ten people have 0, the others up to 99,999: with log(1 + x) these few do not dominate the scale."""
NUMBERS = ("age", "education-num", "capital-gain", "capital-loss", "hours-per-week")
CATEGORIES = tuple(name for name in PERSON_FIELDS if name not in (*LEFT_OUT, *NUMBERS))
LABELS = ("<=50K", ">50K")
_URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult"
_DOWNLOADS = {
    f"{_URL}/adult.data": "md5:5d7c39d7b8804f071cdd1f2a7c460872",
    f"{_URL}/adult.test": "md5:35238206dfdf7f1fe215bbb874adecdc",
}


@dataclass(frozen=True)
class Adult(Classification):
    """48,842 people of a census as rows `[N, 91]` float32, and whether they earned more than 50,000 dollars: 0 or 1.

    A row has the `NUMBERS`, then a 1 among 0s for each of the `CATEGORIES`, of which a missing value (`?`) is one;
    `columns` names them. The files are looked for in `path` if it is given, else in `$L2L_DATA/adult`, else in the
    cache folder (`~/.cache/l2l/adult`), where a missing one is downloaded. `validation` rows are drawn from adult.data
    by a fixed permutation; adult.test is the test split.

    Raises: InputError if an argument is out of range, or (in `check` and `load`) a file is missing or damaged.
    Source: Becker and Kohavi, Adult, UCI, doi:10.24432/C5XW20 (CC BY 4.0).
    """

    path: str | os.PathLike[str] | None = None
    validation: int = 6_512
    epochs: int = 5
    name: str = field(default="adult", init=False)
    metric: str = field(default="accuracy", init=False)
    outputs: int = field(default=2, init=False)
    normalise: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        check_integer(f"{self.name}: validation", self.validation, 1)
        check_integer(f"{self.name}: epochs", self.epochs, 1)

    @property
    def columns(self) -> Sequence[str]:
        """The name of each number of a row, such as age or sex=Female. Raises: InputError as `check` does."""
        categories = zip(CATEGORIES, _list_values(self._file("adult.data")), strict=True)
        return (*NUMBERS, *(f"{name}={value}" for name, values in categories for value in values))

    def check(self) -> None:
        """Refuses files that are missing or damaged. Raises: InputError."""
        for split in ("train", "test"):
            self.load(split)

    def load(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Rows `[N, 91]` float32 and labels `[N]` int32 of one split; read once per process, not writable."""
        part = pick_split({"train": "train", "validation": "train", "test": "test"}, split, self.name)
        data = self._file("adult.data")
        if part == "test":
            return _load_test(data, self._file("adult.test"))
        if self.validation >= (people := len(_read(data).labels)):
            raise InputError(
                f"{self.name}: validation={self.validation} leaves nothing to train on of {people} people; "
                "choose fewer."
            )
        return _load_development(data, self.validation)[split]

    def _file(self, name: str) -> Path:
        """The path of one of the two files. Raises: InputError if it is missing."""
        return find_file(self.name, self.path, name, _DOWNLOADS, "adult.data and adult.test")


class _People(NamedTuple):
    """The N people of a file."""

    numbers: np.ndarray
    """`[N, 5]`."""
    categories: Sequence[tuple[np.ndarray, np.ndarray]]
    """Of each category the values that occur, ascending, and each person's index in them `[N]`."""
    labels: np.ndarray
    """`[N]`."""

    def rows(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """The people as rows `[N, F]` float32; a value that is not in the `values` of its category is 0 everywhere."""
        pairs = zip(self.categories, values, strict=True)
        parts = [(occurring[:, None] == columns)[indices] for (occurring, indices), columns in pairs]
        return np.concatenate([self.numbers, *parts], 1).astype(np.float32)


# The keys of the caches are paths: one process reads each file once, however many candidates it trains.
@functools.lru_cache(maxsize=4)
def _load_development(file: Path, validation: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Training and validation rows, split by a permutation that never changes."""
    return hold_out(_read(file).rows(_list_values(file)), _read(file).labels, validation)


@functools.lru_cache(maxsize=4)
def _load_test(data: Path, test: Path) -> tuple[np.ndarray, np.ndarray]:
    return make_read_only(_read(test).rows(_list_values(data))), make_read_only(_read(test).labels)


def _list_values(file: Path) -> list[np.ndarray]:
    """The values of each category in the whole training file, whatever rows are held out of it."""
    return [values for values, _ in _read(file).categories]


@functools.lru_cache(maxsize=4)
def _read(file: Path) -> _People:
    """The people of a file. Raises: InputError if a line is damaged."""
    with open_file(file) as unpacked:
        text = unpacked.read().decode("latin-1")
    # adult.test begins with a comment, and both files end with an empty line.
    lines = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip() and not line.startswith("|")]
    if not lines:
        raise InputError(f"{file}: expected a line for each person, got none; {AGAIN}.")
    people = [_parse_person(f"{file}: line {number}", line) for number, line in lines]
    numbers = np.array([[float(person[name]) for name in NUMBERS] for person in people])
    for name in LOGARITHMIC:
        numbers[:, NUMBERS.index(name)] = np.log1p(numbers[:, NUMBERS.index(name)])
    categories = [np.unique([person[name] for person in people], return_inverse=True) for name in CATEGORIES]
    return _People(numbers, categories, np.array([LABELS.index(person["label"]) for person in people], np.int32))


def _parse_person(where: str, line: str) -> dict[str, str]:
    """The fields of a person's line, by column. Raises: InputError if a field is missing or invalid."""
    fields = [text.strip() for text in line.split(",")]
    names = (*PERSON_FIELDS, "label")
    if len(fields) != len(names):
        raise InputError(f"{where} has {len(fields)} fields, expected {len(names)}; {AGAIN}.")
    person: dict[str, str] = dict(zip(names, fields, strict=True))
    person["label"] = person["label"].removesuffix(".")  # as adult.test ends its lines
    for name in NUMBERS:
        if not person[name].isdecimal():
            raise InputError(f"{where} has {name} {person[name]!r}, expected an integer; {AGAIN}.")
    if person["label"] not in LABELS:
        raise InputError(f"{where} has the label {fields[-1]!r}, expected {' or '.join(LABELS)}; {AGAIN}.")
    return person
