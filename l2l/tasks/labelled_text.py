"""Texts with a label each: what kind of text it is, by its characters or bytes."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from l2l.errors import InputError
from l2l.nn.text import encode_texts
from l2l.tasks.classification import frozen, pick
from l2l.tasks.data_files import content, decoded, located
from l2l.tasks.text import TextFile
from l2l.types import Split

_HEADER = ("label", "text")


@dataclass(frozen=True)
class LabelledText(TextFile):
    """A file of texts `[N, context]` int32 of code points (or bytes), and the places of their labels in `classes`.

    A line is a label, a tab and a text; of a file that ends in .csv a row is a label and a text, in quotes if need be,
    and a first row `label,text` is the header. Empty lines and blanks around a label are left out. A longer text is
    cut, a shorter one is filled up with 0, which stands for nothing. `validation` and `test` are shares of a fixed
    permutation. A relative `path` that leads nowhere is looked for in `$L2L_DATA`.

    Raises: InputError if an argument is out of range, or (in `check` and `load`) the file is missing, no UTF-8, has a
        line that is no example, fewer than two classes or too few examples.
    """

    metric: str = field(default="accuracy", init=False)

    @property
    def classes(self) -> Sequence[str]:
        """The labels, ascending. Raises: InputError as `check` does."""
        return _read(self._file(), self.unit).classes

    @property
    def outputs(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def symbols(self) -> Sequence[int]:
        """0 and the alphabet of the training split, ascending, or all bytes. Raises: InputError as `check` does."""
        return _alphabet(self._file(), self.unit, self.context, self.validation, self.test)

    def check(self) -> None:
        """Refuses a file that cannot be learnt from. Raises: InputError."""
        self.load("train")

    def load(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Texts `[N, context]` int32 and the places of their labels `[N]` int32 of one split."""
        return pick(_split(self._file(), self.unit, self.context, self.validation, self.test), split, self.name)

    def _file(self) -> Path:
        """Where the texts lie. Raises: InputError if they are nowhere."""
        return located(self.path, "text", "a file with a label, a tab and a text in each line, or a .csv file")


class _Read(NamedTuple):
    """What a file holds."""

    classes: tuple[str, ...]
    labels: np.ndarray
    """Places in the classes `[N]`."""
    texts: Sequence[str]


# The keys of the caches are paths: one process reads each file once, however many candidates it trains.
@functools.lru_cache(maxsize=4)
def _read(file: Path, unit: str) -> _Read:
    """The examples of a file. Raises: InputError if there are none, or one is damaged."""
    encoded = content(file)
    # Bytes that are no UTF-8 are kept as such where bytes are asked for.
    text = encoded.decode("utf-8", "surrogateescape") if unit == "byte" else decoded(file, encoded)
    comma = file.suffix.lower() == ".csv"
    labels, texts = list[str](), list[str]()
    for number, label, words in (_rows if comma else _lines)(file, text.removeprefix("\ufeff")):
        for what, found in (("label", label), ("text", words)):
            if not found.strip():
                raise InputError(f"{file}: line {number} has an empty {what}; fill it in or take the line out.")
        if "\0" in words:
            raise InputError(f"{file}: line {number} has the {unit} 0, which stands for nothing; take it out.")
        labels.append(label.strip().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
        texts.append(words)
    if not labels:
        raise InputError(f"{file} is empty; expected a label, a {'comma' if comma else 'tab'} and a text in each line.")
    classes, places = np.unique(np.array(labels, object), return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"{file} has one class alone, {classes[0]!r}; expected at least two different labels.")
    return _Read(tuple(classes.tolist()), places.astype(np.int32), texts)


def _lines(file: Path, text: str) -> Iterator[tuple[int, str, str]]:
    """Line, label and text of each example. Raises: InputError if there is no tab."""
    # Not splitlines, which takes some characters of a text for the end of a line.
    for number, line in enumerate(text.split("\n"), 1):
        if line := line.removesuffix("\r"):
            label, tab, words = line.partition("\t")
            if not tab:
                raise InputError(f"{file}: line {number} has no tab; expected a label, a tab and a text.")
            yield number, label, words


def _rows(file: Path, text: str) -> Iterator[tuple[int, str, str]]:
    """First line, label and text of each example. Raises: InputError if a row has not two columns, or is no CSV."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    number, first = 1, True
    try:
        for row in rows:
            if row and len(row) != 2:
                raise InputError(
                    f"{file}: line {number} has {len(row)} columns, expected a label and a text, in quotes if it has "
                    "commas."
                )
            if row and not (first and tuple(each.strip().lower() for each in row) == _HEADER):
                yield number, row[0], row[1]
            number, first = rows.line_num + 1, first and not row
    except csv.Error as error:
        raise InputError(f"{file}: line {number} is no CSV ({error}); correct its quotes.") from None


@functools.lru_cache(maxsize=4)
def _split(
    file: Path, unit: str, context: int, validation: float, test: float
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The examples by split, in the order of the file. Raises: InputError if a split has not one."""
    found = _read(file, unit)
    x = encode_texts(found.texts, context, unit)
    # RandomState, whose stream NumPy has promised never to change; a Generator's may.
    order = np.random.RandomState(0).permutation(len(x))
    ends = [round(len(x) * share) for share in (1.0 - validation - test, 1.0 - test)]
    made: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for split, chosen in zip(("train", "validation", "test"), np.split(order, ends), strict=True):
        if not len(chosen):
            raise InputError(
                f"{file} has {len(x)} examples, too few to leave one for {split}; add some or choose other shares."
            )
        chosen = np.sort(chosen)
        made[split] = (frozen(x[chosen]), frozen(found.labels[chosen]))
    return made


@functools.lru_cache(maxsize=4)
def _alphabet(file: Path, unit: str, context: int, validation: float, test: float) -> tuple[int, ...]:
    """What texts are made of, ascending; 0 is nothing."""
    if unit == "byte":
        return tuple(range(256))
    return tuple(np.union1d(_split(file, unit, context, validation, test)["train"][0], [0]).tolist())
