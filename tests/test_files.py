"""Files of a run folder: the lock, whole files, and what SQLite was really told."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from l2l.errors import InputError
from l2l.files import lock_file, write_atomically
from l2l.store.sqlite import connect


def test_the_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    with lock_file(tmp_path / "a" / "b" / "lock"):
        assert (tmp_path / "a" / "b" / "lock").read_text() == f"{os.getpid()}\n"
        with (
            pytest.raises(InputError, match=f"process {os.getpid()}"),
            lock_file(tmp_path / "a" / "b" / "lock"),
        ):
            pass
        assert (tmp_path / "a" / "b" / "lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_keeps_a_folder_that_is_used(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("left by a crash")
    for _ in range(2):
        with lock_file(tmp_path / "run" / "lock"), lock_file(tmp_path / "lock"):
            (tmp_path / "run" / "result").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["result", "run"]


def test_a_folder_that_cannot_be_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot lock"), lock_file(tmp_path / "file" / "run" / "lock"):
        pass


def test_replace_writes_the_whole_text_or_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    write_atomically(path, "a\nü\r\n")
    assert path.read_bytes() == "a\nü\r\n".encode()
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")
    assert path.read_bytes() == "a\nü\r\n".encode()
    assert [file.name for file in tmp_path.iterdir()] == ["trials.csv"]


def test_a_commit_is_durable_and_readers_do_not_wait(tmp_path: Path) -> None:
    with ExitStack() as stack:
        connection = connect(tmp_path / "study.db", False, stack)
        assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
        assert connection.execute("pragma synchronous").fetchone() == (2,)  # FULL
