"""Checkpoints as files: which are kept, and which files of the folder belong to others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from l2l.engine.checkpoint import Checkpoints

LEAVES = [np.zeros(2)]


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_only_the_last_epoch_of_the_retained_is_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "rungs")
    checkpoints.retain([1])
    for number, epoch in [(1, 1), (1, 3), (11, 2), (2, 9)]:
        checkpoints.save(number, epoch, "mine", LEAVES)
    assert list_names(tmp_path / "rungs") == ["1-3", "11-2", "2-9"]
    (tmp_path / "rungs" / ".1-3.99").write_bytes(b"torn")
    checkpoints.retain([1, 11])
    assert [checkpoints.find_last_epoch(number) for number in (1, 11, 2)] == [3, 2, 0]
    checkpoints.retain([])
    assert list_names(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "rungs").write_text("a file")
    checkpoints = Checkpoints(tmp_path / "rungs")
    checkpoints.save(1, 3, "mine", LEAVES)
    assert "the checkpoint of trial 1 cannot be saved" in caplog.text
    assert checkpoints.find_last_epoch(1) == 0
    checkpoints.retain([])


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "rungs")
    foreign = ["asha.yaml", "7-notes.txt", "1-2-3", ".hidden", "README.md"]
    (tmp_path / "rungs").mkdir()
    for name in foreign:
        (tmp_path / "rungs" / name).write_text("mine")
    checkpoints.save(7, 1, "mine", LEAVES)
    checkpoints.save(7, 2, "mine", LEAVES)
    assert [checkpoints.find_last_epoch(number) for number in (7, 1)] == [2, 0]
    checkpoints.retain([])
    assert list_names(tmp_path / "rungs") == sorted(foreign)
