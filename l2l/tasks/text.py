"""Text as a task: predicting the next character or byte."""

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
from l2l.tasks.classification import Classification, check_shares, make_read_only, pick_split
from l2l.tasks.data_files import cache_folder, decode_utf8, fetch_file, locate_file, read_bytes
from l2l.types import Array, Split

UNITS = ("character", "byte")
_SHAKESPEARE = "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt"
_CHECKSUM = "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


@dataclass(frozen=True)
class TextFile(Classification):
    """The arguments that tasks on a file of text share.

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
        """The file's name."""
        return Path(self.path).stem


@dataclass(frozen=True)
class Text(TextFile):
    """A text file in pieces `[N, context]` int32 of code points (or bytes); the targets are the next tokens.

    Targets are indices into the vocabulary: all characters of the file (or all 256 bytes). The first part trains, the
    shares `validation` and `test` follow in that order. A relative `path` that does not exist is looked up in
    `$L2L_DATA`.

    Raises: InputError if an argument is out of range, or (in `check` and `load`) the file is missing, is not UTF-8, has
        fewer than two different tokens, or a part of it is shorter than the context.
    """

    validation: float = 0.05
    test: float = 0.05
    epochs: int = 1
    metric: str = field(default="bits", init=False)
    maximise: bool = field(default=False, init=False)

    @property
    def vocabulary(self) -> Sequence[int]:
        """The tokens that occur, ascending, or all bytes. Raises: InputError as `check` does."""
        return _read(self._file(), self.unit)[1]

    @property
    def outputs(self) -> int:
        """The size of the vocabulary."""
        return len(self.vocabulary)

    def check(self) -> None:
        """Refuses a text that cannot be learnt from. Raises: InputError."""
        for split in ("train", "validation", "test"):
            self.load(split)

    def load(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Tokens `[N, context]` int32 and, in the same shape, the index of each one's successor, of one split."""
        return pick_split(_cut(self._file(), self.unit, self.context, self.validation, self.test), split, self.name)

    def score(self, logits: Array, targets: Array) -> Mapping[str, Array]:
        """Bits per token, cross-entropy in nats and accuracy (0 to 1), each `[B]`."""
        scores = super().score(logits, targets)
        return {"bits": scores["loss"] / jnp.float32(math.log(2.0)), **scores}

    def _file(self) -> Path:
        """The path of the text. Raises: InputError if it is missing."""
        return locate_file(self.path, "text", "a text file")


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
        folder = cache_folder(self.name)
        default = self.path == TinyShakespeare.path
        try:
            return super()._file()
        except InputError:
            if not default:
                raise
        file = folder / _SHAKESPEARE.rsplit("/", 1)[-1]
        return file if file.is_file() else fetch_file(_SHAKESPEARE, _CHECKSUM, folder)


# The keys of the two caches are paths: one process reads each file once, however many candidates it trains.
@functools.lru_cache(maxsize=4)
def _read(file: Path, unit: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """The tokens of a file `[L]` int32 and its vocabulary. Raises: InputError."""
    if unit == "byte":
        tokens = np.frombuffer(read_bytes(file), np.uint8).astype(np.int32)
    else:
        tokens = np.frombuffer(decode_utf8(file, read_bytes(file)).encode("utf-32-le"), "<u4").astype(np.int32)
    different = np.unique(tokens)
    if len(different) < 2:
        what = "is empty" if not len(tokens) else f"consists of one {unit} only, {chr(different[0])!r}"
        raise InputError(f"{file} {what}; a text to learn needs at least two different {unit}s.")
    return make_read_only(tokens), tuple(range(256)) if unit == "byte" else tuple(different.tolist())


@functools.lru_cache(maxsize=4)
def _cut(
    file: Path, unit: str, context: int, validation: float, test: float
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The pieces by split, in the order of the text. Raises: InputError if a split has none."""
    tokens, vocabulary = _read(file, unit)
    ends = [round(len(tokens) * share) for share in (1.0 - validation - test, 1.0 - test, 1.0)]
    starts = [0, *ends[:-1]]
    splits: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for split, start, end in zip(("train", "validation", "test"), starts, ends, strict=True):
        count = (end - start - 1) // context
        if count < 1:
            raise InputError(
                f"{file}: the {split} part has {end - start} {unit}s, too few for a context of {context} and its "
                "successor; choose a shorter task.context or another share."
            )
        part = tokens[start : start + count * context + 1]
        indices = np.searchsorted(np.asarray(vocabulary), part).astype(np.int32)
        inputs, targets = part[:-1].reshape(count, context), indices[1:].reshape(count, context)
        splits[split] = (make_read_only(inputs.copy()), make_read_only(targets))
    return splits
