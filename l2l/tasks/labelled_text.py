"""Text classification: a text's label, from its characters or bytes."""

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
from l2l.tasks.classification import make_read_only, pick_split
from l2l.tasks.data_files import decode_utf8, locate_file, read_bytes
from l2l.tasks.text import TextFile
from l2l.types import Split

_HEADER = ("label", "text")


@dataclass(frozen=True)
class LabelledText(TextFile):
    """A file of texts `[N, context]` int32 of code points (or bytes), and the indices of their labels in `classes`.

    A line is a label, a tab and a text. In a file that ends in .csv, a row is a label and a text, in quotes if needed,
    and a first row `label,text` is the header. Empty lines and blanks around a label are ignored. A longer text is cut,
    a shorter one is padded with 0. `validation` and `test` are shares of a fixed permutation. A relative `path` that
    does not exist is looked up in `$L2L_DATA`.

    Raises: InputError if an argument is out of range, or (in `check` and `load`) the file is missing, is not UTF-8, has
        an invalid line, fewer than two classes or too few examples.
    """

    metric: str = field(default="accuracy", init=False)

    @property
    def classes(self) -> Sequence[str]:
        """The labels, ascending. Raises: InputError as `check` does."""
        return _read(self._file(), self.unit).classes

    @property
    def outputs(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def vocabulary(self) -> Sequence[int]:
        """0 and the characters of the training split, ascending, or all bytes. Raises: InputError as `check` does."""
        return _read_vocabulary(self._file(), self.unit, self.context, self.validation, self.test)

    def check(self) -> None:
        """Refuses a file that cannot be learnt from. Raises: InputError."""
        self.load("train")

    def load(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Texts `[N, context]` int32 and the indices of their labels `[N]` int32 of one split."""
        return pick_split(_split(self._file(), self.unit, self.context, self.validation, self.test), split, self.name)

    def _file(self) -> Path:
        """The path of the texts. Raises: InputError if it is missing."""
        return locate_file(self.path, "text", "a file with a label, a tab and a text in each line, or a .csv file")


class _Examples(NamedTuple):
    """The examples of a file."""

    classes: tuple[str, ...]
    labels: np.ndarray
    """Indices into the classes `[N]`."""
    texts: Sequence[str]


# The keys of the caches are paths: one process reads each file once, however many candidates it trains.
@functools.lru_cache(maxsize=4)
def _read(file: Path, unit: str) -> _Examples:
    """The examples of a file. Raises: InputError if there are none, or one is damaged."""
    encoded = read_bytes(file)
    # With unit=byte, bytes that are not UTF-8 stay as they are.
    text = encoded.decode("utf-8", "surrogateescape") if unit == "byte" else decode_utf8(file, encoded)
    comma = file.suffix.lower() == ".csv"
    labels, texts = list[str](), list[str]()
    for number, label, words in (_parse_rows if comma else _parse_lines)(file, text.removeprefix("\ufeff")):
        for what, value in (("label", label), ("text", words)):
            if not value.strip():
                raise InputError(f"{file}: line {number} has an empty {what}; fill it in or remove the line.")
        if "\0" in words:
            raise InputError(f"{file}: line {number} has the {unit} 0, which marks padding; remove it.")
        labels.append(label.strip().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
        texts.append(words)
    if not labels:
        raise InputError(f"{file} is empty; expected a label, a {'comma' if comma else 'tab'} and a text in each line.")
    classes, indices = np.unique(np.array(labels, object), return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"{file} has one class only, {classes[0]!r}; expected at least two different labels.")
    return _Examples(tuple(classes.tolist()), indices.astype(np.int32), texts)


def _parse_lines(file: Path, text: str) -> Iterator[tuple[int, str, str]]:
    """Line, label and text of each example. Raises: InputError if there is no tab."""
    # Not splitlines, which takes some characters of a text for the end of a line.
    for number, line in enumerate(text.split("\n"), 1):
        if line := line.removesuffix("\r"):
            label, tab, words = line.partition("\t")
            if not tab:
                raise InputError(f"{file}: line {number} has no tab; expected a label, a tab and a text.")
            yield number, label, words


def _parse_rows(file: Path, text: str) -> Iterator[tuple[int, str, str]]:
    """First line, label and text of each example. Raises: InputError if a row is not CSV or not two columns."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    number, first = 1, True
    try:
        for row in rows:
            if row and len(row) != 2:
                raise InputError(
                    f"{file}: line {number} has {len(row)} columns, expected a label and a text, in quotes if it has "
                    "commas."
                )
            if row and not (first and tuple(cell.strip().lower() for cell in row) == _HEADER):
                yield number, row[0], row[1]
            number, first = rows.line_num + 1, first and not row
    except csv.Error as error:
        raise InputError(f"{file}: line {number} is not CSV ({error}); correct its quotes.") from None


@functools.lru_cache(maxsize=4)
def _split(
    file: Path, unit: str, context: int, validation: float, test: float
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The examples by split, in the order of the file. Raises: InputError if a split has none."""
    examples = _read(file, unit)
    x = encode_texts(examples.texts, context, unit)
    # RandomState, whose stream NumPy has promised never to change; a Generator's may.
    order = np.random.RandomState(0).permutation(len(x))
    ends = [round(len(x) * share) for share in (1.0 - validation - test, 1.0 - test)]
    splits: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for split, indices in zip(("train", "validation", "test"), np.split(order, ends), strict=True):
        if not len(indices):
            raise InputError(
                f"{file} has {len(x)} examples, too few to leave one for {split}; add some or choose other shares."
            )
        indices = np.sort(indices)
        splits[split] = (make_read_only(x[indices]), make_read_only(examples.labels[indices]))
    return splits


@functools.lru_cache(maxsize=4)
def _read_vocabulary(file: Path, unit: str, context: int, validation: float, test: float) -> tuple[int, ...]:
    """The tokens of the training texts, ascending; 0 is padding."""
    if unit == "byte":
        return tuple(range(256))
    return tuple(np.union1d(_split(file, unit, context, validation, test)["train"][0], [0]).tolist())
