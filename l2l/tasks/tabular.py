"""Tabular benchmarks in `.npz` files: how their columns are read, and the task that names a file."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from l2l.errors import InputError, flatten_message, suggest_names
from l2l.tasks import data_files
from l2l.tasks.classification import make_read_only, pick_split
from l2l.types import Array, Split

_UNREADABLE = (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, MemoryError)
"""What NumPy raises for a file, or a column of it, that is damaged, pickled or something else."""


def locate_benchmark(path: str | os.PathLike[str]) -> Path:
    """Locates the file of a tabular benchmark. Raises: InputError if it is missing."""
    return data_files.locate_file(path, "tabular benchmark", "an .npz file")


def read(path: str | os.PathLike[str], names: Collection[str]) -> dict[str, np.ndarray]:
    """Reads the columns of these names.

    Raises: InputError if the file is no .npz file, lacks a column, has one of Python objects, or is damaged.
    """
    location = locate_benchmark(path)
    try:
        with location.open("rb") as file:
            return _read_columns(location, file, names)
    except OSError as error:
        raise data_files.read_error(location, error) from error


def _read_columns(location: Path, file: IO[bytes], names: Collection[str]) -> dict[str, np.ndarray]:
    try:
        archive = np.load(file, allow_pickle=False)
    except _UNREADABLE:
        archive = None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise InputError(f"{location} is not an .npz file; write one with numpy.savez(path, column=array, ...).")
    columns: dict[str, np.ndarray] = {}
    for name in names:
        if name not in archive.files:
            raise InputError(f"{location} has no column {name!r}: {suggest_names(name, archive.files)}")
        try:
            columns[name] = archive[name]
        except _UNREADABLE as error:
            reason = flatten_message(error)[:100].rstrip(".")
            raise InputError(
                f"{location}: the column {name!r} cannot be read ({reason}); it must be a plain array of numbers or "
                "text, in a whole file."
            ) from error
    return columns


@dataclass(frozen=True)
class Lookup:
    """The task of a tabular benchmark: its file and the column that is maximised. It has nothing to train on.

    Raises: InputError if `metric` is not a name, or (in `check` and `load`) the file is missing.
    """

    path: str | os.PathLike[str]
    metric: str
    epochs: int = field(default=1, init=False)
    outputs: int = field(default=1, init=False)
    normalise: bool = field(default=False, init=False)
    maximise: bool = field(default=True, init=False)
    vocabulary: tuple[int, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str) or not self.metric:
            raise InputError(f"task.metric must be the name of a column, got {self.metric!r}.")

    @property
    def name(self) -> str:
        """The file's name."""
        return Path(self.path).stem

    def check(self) -> None:
        """Refuses a missing file. Raises: InputError."""
        locate_benchmark(self.path)

    def load(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """The file's bytes `[N]` as the training split, so that a search in another file is another search."""
        file_content = locate_benchmark(self.path).read_bytes() if split == "train" else b""
        array = make_read_only(np.frombuffer(file_content, np.uint8))
        return pick_split({"train": array, "validation": array, "test": array}, split, self.name), array[:0]

    def loss(self, logits: Array, targets: Array, label_smoothing: Any) -> Array:
        """Unsupported: a tabular benchmark has nothing to train. Raises: InputError."""
        self._refuse()

    def score(self, logits: Array, targets: Array) -> Mapping[str, Array]:
        """Unsupported: a tabular benchmark has nothing to train. Raises: InputError."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError(
            f"the task {self.name!r} is a tabular benchmark, which nothing can be trained on; look its candidates up "
            "with objective=tabular and final=null."
        )
