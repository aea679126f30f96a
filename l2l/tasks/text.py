"""Text as a task: what comes next, character by character or byte by byte."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from l2l.errors import InputError, check_integer
from l2l.tasks.classification import Classification, check_shares, frozen, pick
from l2l.tasks.data_files import cache, content, decoded, fetched, located
from l2l.types import Array, Split

UNITS = ("character", "byte")
_SHAKESPEARE = "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt"
_CHECKSUM = "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


@dataclass(frozen=True)
class TextFile(Classification):
    """What tasks on a file of text share.

    Raises: InputError if an argument is out of range.
    """

    path: str | os.PathLike[str]
    context: int = 64
    unit: str = "character"
    validation: float = 0.1
    test: float = 0.1
    epochs: int = 10
    normalise: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | os.PathLike):
            raise InputError(f"task.path must be the path of a file of text, got {self.path!r}.")
        check_integer(f"{self.name}: context", self.context, 1)
        check_integer(f"{self.name}: epochs", self.epochs, 1)
        if self.unit not in UNITS:
            raise InputError(f"{self.name}: unit must be one of {', '.join(UNITS)}, got {self.unit!r}.")
        check_shares(self.name, self.validation, self.test)

    @property
    def name(self) -> str:
        """The file's."""
        return Path(self.path).stem


@dataclass(frozen=True)
class Text(TextFile):
    """A text file in pieces `[N, context]` int32 of code points (or bytes), each with what follows it as target.

    Targets are places in the alphabet, all characters that the file has (or all 256 bytes). The first part trains,
    the shares `validation` and `test` follow in that order. A relative `path` that leads nowhere is looked for in
    `$L2L_DATA`.

    Raises: InputError if an argument is out of range, or (in `check` and `load`) the file is missing, no UTF-8, has
        fewer than two symbols, or a part of it is shorter than the context.
    """

    validation: float = 0.05
    test: float = 0.05
    epochs: int = 1
    metric: str = field(default="bits", init=False)
    maximise: bool = field(default=False, init=False)

    @property
    def symbols(self) -> Sequence[int]:
        """The alphabet, ascending. Raises: InputError as `check` does."""
        return _read(self._file(), self.unit)[1]

    @property
    def outputs(self) -> int:
        """How many symbols there are."""
        return len(self.symbols)

    def check(self) -> None:
        """Refuses a text that cannot be learnt from. Raises: InputError."""
        for split in ("train", "validation", "test"):
            self.load(split)

    def load(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Symbols `[N, context]` int32 and the places of what follows them, the same shape, of one split."""
        return pick(_cut(self._file(), self.unit, self.context, self.validation, self.test), split, self.name)

    def score(self, logits: Array, targets: Array) -> Mapping[str, Array]:
        """Bits for each symbol, cross-entropy in nats and accuracy (0 to 1), each `[B]`."""
        found = super().score(logits, targets)
        return {"bits": found["loss"] / jnp.float32(math.log(2.0)), **found}

    def _file(self) -> Path:
        """Where the text lies. Raises: InputError if it is nowhere."""
        return located(self.path, "text", "a text file")


@dataclass(frozen=True)
class TinyShakespeare(Text):
    """A million characters of Shakespeare's plays, 65 different ones.

    Looked for as `path`, else in `$L2L_DATA/tiny_shakespeare`, else in the cache folder, where it is downloaded.

    Raises: InputError as `Text` does.
    Source: Karpathy 2015, The Unreasonable Effectiveness of Recurrent Neural Networks (public domain).
    """

    path: str | os.PathLike[str] = "tiny_shakespeare/input.txt"

    @property
    def name(self) -> str:
        """tiny_shakespeare."""
        return "tiny_shakespeare"

    def _file(self) -> Path:
        folder = cache(self.name)
        default = self.path == TinyShakespeare.path
        try:
            return super()._file()
        except InputError:
            if not default:
                raise
        place = folder / _SHAKESPEARE.rsplit("/", 1)[-1]
        return place if place.is_file() else fetched(_SHAKESPEARE, _CHECKSUM, folder)


# The keys of the two caches are paths: one process reads each file once, however many candidates it trains.
@functools.lru_cache(maxsize=4)
def _read(file: Path, unit: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """The symbols of a file `[M]` int32 and its alphabet. Raises: InputError."""
    if unit == "byte":
        found = np.frombuffer(content(file), np.uint8).astype(np.int32)
    else:
        found = np.frombuffer(decoded(file, content(file)).encode("utf-32-le"), "<u4").astype(np.int32)
    different = np.unique(found)
    if len(different) < 2:
        what = "is empty" if not len(found) else f"has one symbol alone, {chr(different[0])!r}"
        raise InputError(f"{file} {what}; a text to learn has at least two different symbols.")
    return frozen(found), tuple(range(256)) if unit == "byte" else tuple(different.tolist())


@functools.lru_cache(maxsize=4)
def _cut(
    file: Path, unit: str, context: int, validation: float, test: float
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The pieces by split, in the order of the text. Raises: InputError if a split has not one."""
    symbols, alphabet = _read(file, unit)
    ends = [round(len(symbols) * share) for share in (1.0 - validation - test, 1.0 - test, 1.0)]
    starts = [0, *ends[:-1]]
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for split, start, end in zip(("train", "validation", "test"), starts, ends, strict=True):
        count = (end - start - 1) // context
        if count < 1:
            raise InputError(
                f"{file}: the {split} part has {end - start} symbols, too few for a context of {context} and what "
                "follows it; choose a shorter task.context or another share."
            )
        part = symbols[start : start + count * context + 1]
        places = np.searchsorted(np.asarray(alphabet), part).astype(np.int32)
        pieces = (part[:-1].reshape(count, context), places[1:].reshape(count, context))
        found[split] = (frozen(pieces[0].copy()), frozen(pieces[1]))
    return found
