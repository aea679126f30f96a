"""Image sets in the idx format of MNIST: four files, plain or gzipped, found on disk or downloaded."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from l2l.errors import InputError, check_integer
from l2l.tasks.classification import Classification, check_labels, hold_out, make_read_only, pick_split
from l2l.tasks.data_files import AGAIN, find_file, open_file
from l2l.types import Split

_IMAGE_FILES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
_LABEL_FILES = {"train": "train-labels-idx1-ubyte", "test": "t10k-labels-idx1-ubyte"}
"""File names by part of the data."""


@dataclass(frozen=True)
class IdxImages(Classification):
    """Images `[N, H, W, 1]` uint8 in their own range 0 to 255, and `outputs` classes, from four idx files.

    The files are looked for in `path` if it is given, else in `$L2L_DATA/<name>`, else in the cache folder
    (`~/.cache/l2l/<name>`), where a missing one is downloaded if `downloads` (URL to "sha256:..." or
    "md5:...") has it. `validation` examples are drawn from the training files by a fixed permutation;
    the t10k files are the test split and are opened for nothing else.

    Raises: InputError if an argument is out of range, or (in `check` and `load`) a file is missing or damaged.
    """

    name: str
    path: str | os.PathLike[str] | None = None
    outputs: int = 10
    validation: int = 10_000
    epochs: int = 3
    downloads: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    metric: str = field(default="accuracy", init=False)
    normalise: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        if not self.name or Path(self.name).name != self.name:
            raise InputError(f"an idx task's name must be a plain folder name such as 'mnist', got {self.name!r}.")
        check_integer(f"{self.name}: validation", self.validation, 1)
        check_integer(f"{self.name}: epochs", self.epochs, 1)
        check_integer(f"{self.name}: outputs", self.outputs, 2)

    def check(self) -> None:
        """Refuses a missing file or a wrong header without reading the images. Raises: InputError."""
        sizes: dict[str, tuple[int, ...]] = {}
        for part in _IMAGE_FILES:
            images, labels = self._file(_IMAGE_FILES[part]), self._file(_LABEL_FILES[part])
            sizes[part] = _read_shape(images, 3)
            _check_pair(images, sizes[part][0], labels, _read_shape(labels, 1)[0])
        if sizes["train"][1:] != sizes["test"][1:]:
            raise InputError(
                f"{self._file(_IMAGE_FILES['test'])}: expected images of {list(sizes['train'][1:])} pixels as in the "
                f"training file, got {list(sizes['test'][1:])}; put files of one data set there."
            )
        self._check_validation(sizes["train"][0])

    def load(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Images `[N, H, W, 1]` uint8 and labels `[N]` int32 of one split; read once per process, not writable."""
        files = pick_split({"train": "train", "validation": "train", "test": "test"}, split, self.name)
        images, labels = self._file(_IMAGE_FILES[files]), self._file(_LABEL_FILES[files])
        if files == "test":
            return _load_test(images, labels, self.outputs)
        self._check_validation(_read_shape(images, 3)[0])
        return _load_development(images, labels, self.outputs, self.validation)[split]

    def _check_validation(self, examples: int) -> None:
        if self.validation >= examples:
            raise InputError(
                f"{self.name}: validation={self.validation} leaves nothing to train on of {examples} examples; "
                "choose fewer."
            )

    def _file(self, stem: str) -> Path:
        """The path of one of the four files. Raises: InputError if it is missing."""
        return find_file(self.name, self.path, stem, self.downloads, "the four idx files")


@dataclass(frozen=True)
class FashionMnist(IdxImages):
    """Zalando's 70,000 articles of clothing: images `[N, 28, 28, 1]` uint8, ten classes.

    Raises: InputError as `IdxImages` does.
    Source: Xiao, Rasul and Vollgraf, Fashion-MNIST, arXiv:1708.07747 (MIT licence).
    """

    name: str = "fashion_mnist"
    downloads: Mapping[str, str] = field(
        default_factory=lambda: {
            f"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{stem}.gz": f"md5:{digest}"
            for stem, digest in {
                _IMAGE_FILES["train"]: "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                _LABEL_FILES["train"]: "25c81989df183df01b3e8a0aad5dffbe",
                _IMAGE_FILES["test"]: "bef4ecab320f06d8554ea6380940ec79",
                _LABEL_FILES["test"]: "bb300cfdad3c16e7a12a480ee83cd310",
            }.items()
        },
        hash=False,
    )


# The keys of the two caches are paths: one process reads each file once, however many candidates it trains.
@functools.lru_cache(maxsize=4)
def _load_development(
    images: Path, labels: Path, classes: int, validation: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Training and validation examples, split by a permutation that never changes."""
    return hold_out(*_read_pair(images, labels, classes), validation)


@functools.lru_cache(maxsize=4)
def _load_test(images: Path, labels: Path, classes: int) -> tuple[np.ndarray, np.ndarray]:
    return _read_pair(images, labels, classes)


def _read_pair(images: Path, labels: Path, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images `[N, H, W, 1]` uint8 and labels `[N]` int32 of two files. Raises: InputError."""
    x, y = _read(images, 3), _read(labels, 1)
    _check_pair(images, len(x), labels, len(y))
    check_labels(y, classes, labels)
    return make_read_only(x[..., None]), make_read_only(y.astype(np.int32))


def _check_pair(images: Path, image_count: int, labels: Path, label_count: int) -> None:
    if image_count != label_count:
        raise InputError(
            f"{labels}: expected {image_count} labels, one for each image of {images.name}, "
            f"got {label_count}; put files of one data set there."
        )


def _read(path: Path, axes: int) -> np.ndarray:
    """The whole array of an idx file, uint8. Raises: InputError."""
    shape = _read_shape(path, axes)
    with open_file(path) as file:
        file.read(4 + 4 * axes)
        content = file.read()
    if len(content) != math.prod(shape):
        raise InputError(f"{path}: expected {math.prod(shape)} bytes after the header, got {len(content)}; {AGAIN}.")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _read_shape(path: Path, axes: int) -> tuple[int, ...]:
    """Reads the shape in an idx file's header and checks that the file's length agrees. Raises: InputError."""
    with open_file(path) as file:
        header = file.read(4 + 4 * axes)
    numbers = np.frombuffer(header[: len(header) // 4 * 4], ">u4").tolist()
    magic = 0x800 + axes
    if not numbers or numbers[0] != magic:
        got = numbers[0] if numbers else "fewer than four bytes"
        raise InputError(f"{path}: expected an idx file of bytes (magic number {magic}), got {got}; {AGAIN}.")
    shape = tuple(numbers[1:])
    if len(shape) != axes or 0 in shape:
        raise InputError(f"{path}: expected a header of {axes} sizes above 0, got {list(shape)}; {AGAIN}.")
    expected, got = len(header) + math.prod(shape), _count_bytes(path)
    if got != expected:
        raise InputError(f"{path}: expected {expected} bytes as its header says, got {got}; {AGAIN}.")
    return shape


def _count_bytes(path: Path) -> int:
    """Bytes of a file once unpacked; a gzip file has them in its last four bytes, unless it was cut short."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        end = file.seek(0, os.SEEK_END)
        if not zipped or end < 18:
            return end
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(4), "little")
