"""Checkpoints as files: which are kept, and whose they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from l2l.engine.checkpoint import Checkpoints


def test_only_the_last_epoch_of_the_retained_is_kept(tmp_path: Path) -> None:
    kept, leaves = Checkpoints(tmp_path / "rungs"), [np.zeros(2)]
    kept.retain([1])
    for number, epoch in [(1, 1), (1, 3), (11, 2), (2, 9)]:
        kept.save(number, epoch, "mine", leaves)
    assert sorted(path.name for path in (tmp_path / "rungs").iterdir()) == ["1-3", "11-2", "2-9"]
    (tmp_path / "rungs" / ".1-3.99").write_bytes(b"torn")
    kept.retain([1, 11])
    assert (kept.find_last_epoch(1), kept.find_last_epoch(11), kept.find_last_epoch(2)) == (3, 2, 0)
    kept.retain([])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "rungs").write_text("a file")
    Checkpoints(tmp_path / "rungs").save(1, 3, "mine", [np.zeros(2)])
    assert "the checkpoint of trial 1 cannot be saved" in caplog.text
    assert Checkpoints(tmp_path / "rungs").find_last_epoch(1) == 0
    Checkpoints(tmp_path / "rungs").retain([])


def test_what_others_keep_in_the_folder_is_theirs(tmp_path: Path) -> None:
    kept, theirs = Checkpoints(tmp_path / "rungs"), ["asha.yaml", "7-notes.txt", "1-2-3", ".hidden", "README.md"]
    (tmp_path / "rungs").mkdir()
    for name in theirs:
        (tmp_path / "rungs" / name).write_text("mine")
    kept.save(7, 1, "mine", [np.zeros(2)])
    kept.save(7, 2, "mine", [np.zeros(2)])
    assert (kept.find_last_epoch(7), kept.find_last_epoch(1)) == (2, 0)
    kept.retain([])
    assert sorted(path.name for path in (tmp_path / "rungs").iterdir()) == sorted(theirs)
