"""Tables of measured candidates in `.npz` files: where they lie, how they are read, and the task that names them."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from l2l.errors import InputError, suggest_names
from l2l.tasks import data_files
from l2l.tasks.classification import frozen, pick
from l2l.types import Array, Split

_UNREADABLE = (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, MemoryError)
"""What NumPy raises for a file, or a column of it, that is damaged, pickled or something else."""


def located(path: str | os.PathLike[str]) -> Path:
    """The file of a table. Raises: InputError if it is nowhere."""
    return data_files.located(path, "table", "an .npz file")


def read(path: str | os.PathLike[str], names: Collection[str]) -> dict[str, np.ndarray]:
    """The columns of these names, as they stand in the file.

    Raises: InputError if the file is none, has no such column or one of Python objects, or is damaged.
    """
    place = located(path)
    try:
        with place.open("rb") as file:
            return _members(place, file, names)
    except OSError as error:
        raise data_files.unreadable(place, error) from error


def _members(place: Path, file: IO[bytes], names: Collection[str]) -> dict[str, np.ndarray]:
    try:
        archive = np.load(file, allow_pickle=False)
    except _UNREADABLE:
        archive = None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise InputError(f"{place} is not an .npz file; write one with numpy.savez(path, column=array, ...).")
    found: dict[str, np.ndarray] = {}
    for name in names:
        if name not in archive.files:
            raise InputError(f"{place} has no column {name!r}: {suggest_names(name, archive.files)}")
        try:
            found[name] = archive[name]
        except _UNREADABLE as error:
            reason = " ".join(str(error).split())[:100].rstrip(".")
            raise InputError(
                f"{place}: the column {name!r} cannot be read ({reason}); it must be a plain array of numbers or text, "
                "in a whole file."
            ) from error
    return found


@dataclass(frozen=True)
class Lookup:
    """The task of a table: its file and the column that is maximised. There is nothing to train on.

    Raises: InputError if `metric` is no name, or (in `check` and `load`) the file is missing.
    """

    path: str | os.PathLike[str]
    metric: str
    epochs: int = field(default=1, init=False)
    outputs: int = field(default=1, init=False)
    normalise: bool = field(default=False, init=False)
    maximise: bool = field(default=True, init=False)
    symbols: tuple[int, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str) or not self.metric:
            raise InputError(f"task.metric must be the name of a column, got {self.metric!r}.")

    @property
    def name(self) -> str:
        """The file's."""
        return Path(self.path).stem

    def check(self) -> None:
        """Refuses a missing file. Raises: InputError."""
        located(self.path)

    def load(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """The file's bytes `[N]` as the training split: a search in another table is another search."""
        content = located(self.path).read_bytes() if split == "train" else b""
        bytes_ = frozen(np.frombuffer(content, np.uint8))
        return pick({"train": bytes_, "validation": bytes_, "test": bytes_}, split, self.name), bytes_[:0]

    def loss(self, logits: Array, targets: Array, label_smoothing: Any) -> Array:
        """There is none. Raises: InputError."""
        self._refuse()

    def score(self, logits: Array, targets: Array) -> Mapping[str, Array]:
        """There is none. Raises: InputError."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError(
            f"the task {self.name!r} is a table, which nothing can be trained on; look its candidates up with "
            "objective=tabular and final=null."
        )
