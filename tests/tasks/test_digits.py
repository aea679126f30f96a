"""The embedded digits: shapes, a split that never moves, and its shares of each class."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from l2l.errors import InputError
from l2l.tasks import digits
from l2l.tasks.digits import Digits


def test_shapes_and_ranges_are_the_data_s_own() -> None:
    task = Digits()
    task.check()
    sizes = {"train": 1077, "validation": 360, "test": 360}
    for split, size in sizes.items():
        images, labels = task.load(split)  # type: ignore[arg-type]
        assert images.shape == (size, 8, 8, 1)
        assert (images.dtype, labels.dtype) == (np.float32, np.int32)
        assert (images.min(), images.max()) == (0, 16)
        assert set(labels.tolist()) == set(range(task.outputs))
        assert task.load(split)[0] is images  # type: ignore[arg-type]


def test_the_split_is_a_stratified_partition() -> None:
    task = Digits()
    parts = {split: task.load(split) for split in ("train", "validation", "test")}
    rows = [row.tobytes() for images, _ in parts.values() for row in images]
    assert len(rows) == 1797
    # The set has no two equal images, so a partition shows as 1,797 different rows.
    assert len(set(rows)) == 1797
    total = sum(np.bincount(labels) for _, labels in parts.values())
    for _, labels in parts.values():
        assert np.abs(np.bincount(labels) - total * len(labels) / 1797).max() < 2


def test_the_split_is_the_same_on_every_machine_and_version() -> None:
    digest = hashlib.sha256(Digits().load("validation")[0].tobytes()).hexdigest()
    assert digest[:16] == "d2c7d112c6e9bfeb"


def test_the_sizes_can_be_chosen() -> None:
    task = Digits(validation=100, test=50)
    assert [len(task.load(split)[1]) for split in ("train", "validation", "test")] == [1647, 100, 50]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"validation": 0}, "validation must be"),
        ({"test": 1.5}, "test must be"),
        ({"epochs": 0}, "epochs must be"),
        ({"validation": 1000, "test": 797}, "leave nothing to train on"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Digits(**arguments)


def test_nobody_can_write_to_the_shared_arrays() -> None:
    with pytest.raises(ValueError, match="read-only"):
        Digits().load("train")[0][0] = 0


def test_the_table_is_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    np.testing.assert_array_equal(digits._load_csv(), np.column_stack([pixels, labels]))  # pyright: ignore
