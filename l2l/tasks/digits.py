"""The 1,797 handwritten digits that scikit-learn embeds: a task that needs no file and no network."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from l2l.errors import InputError, check_integer
from l2l.tasks.classification import Classification, make_read_only, pick_split
from l2l.types import Split

_EXAMPLES = 1797


@dataclass(frozen=True)
class Digits(Classification):
    """Handwritten digits: images `[N, 8, 8, 1]` float32 in their own range 0 to 16, classes 0 to 9.

    `validation` and `test` are numbers of examples; the rest trains. The split is fixed and stratified.

    Raises: InputError if the numbers leave nothing to train on.
    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, doi:10.24432/C50P49.
    """

    validation: int = 360
    test: int = 360
    epochs: int = 30
    name: str = field(default="digits", init=False)
    metric: str = field(default="accuracy", init=False)
    outputs: int = field(default=10, init=False)
    normalise: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        check_integer(f"{self.name}: validation", self.validation, 1)
        check_integer(f"{self.name}: test", self.test, 1)
        check_integer(f"{self.name}: epochs", self.epochs, 1)
        if self.validation + self.test >= _EXAMPLES:
            raise InputError(
                f"{self.name}: validation={self.validation} and test={self.test} leave nothing to train on; "
                f"their sum must be below {_EXAMPLES}."
            )

    def check(self) -> None:
        """Nothing can be missing: the data come with scikit-learn."""

    def load(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Images `[N, 8, 8, 1]` float32 and labels `[N]` int32 of one split, not writable."""
        return pick_split(_load_splits(self.validation, self.test), split, self.name)


@functools.cache
def _load_splits(validation: int, test: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The examples by split, stratified: each split has the same share of every class, to within one or two."""
    rows = _load_csv()
    images = rows[:, :-1].astype(np.float32).reshape(-1, 8, 8, 1)
    labels = rows[:, -1].astype(np.int32)
    # RandomState, whose stream NumPy has promised never to change; a Generator's may.
    shuffled = np.random.RandomState(0).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    held_out = _space_evenly(len(by_class), validation + test)
    is_test = np.isin(np.arange(len(held_out)), _space_evenly(len(held_out), test))
    rest = np.setdiff1d(np.arange(len(by_class)), held_out)
    positions = {"train": rest, "validation": held_out[~is_test], "test": held_out[is_test]}
    indices = {split: np.sort(by_class[position]) for split, position in positions.items()}
    return {split: (make_read_only(images[index]), make_read_only(labels[index])) for split, index in indices.items()}


def _load_csv() -> np.ndarray:
    """Pixels and the class `[N, 65]`, from scikit-learn's file: importing the library takes a second."""
    spec = importlib.util.find_spec("sklearn")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else Path()
    return np.loadtxt(folder / "datasets" / "data" / "digits.csv.gz", delimiter=",")


def _space_evenly(length: int, count: int) -> np.ndarray:
    """`count` indices, evenly spaced over `range(length)`: in a list sorted by class, a stratified sample."""
    return ((np.arange(count) + 0.5) * length / count).astype(int)
