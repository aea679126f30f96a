"""Crashes and second drivers, with real processes: nothing is lost, counted twice or left running."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from l2l.errors import InputError
from l2l.store.optuna_store import OptunaStore
from l2l.testing.stores import SPACE

CRASHES = Path(__file__).with_name("crashes.py")


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    """A folder in memory where there is one: the end of a process does not touch the page cache, and fsync is slow."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


def crash(folder: Path, *what: str) -> str:
    process = subprocess.run([sys.executable, CRASHES, folder, *what], capture_output=True, text=True, timeout=300)
    assert not process.stderr
    return process.stdout


def test_a_search_that_died_anywhere_goes_on_as_if_it_had_not(memory_folder: Path) -> None:
    report = crash(memory_folder, "sweep")
    crashes = int(report.split()[0])
    assert report == f"{crashes} crashes, exit code 0\n"
    assert crashes > 18  # three commits a trial


def test_the_sweep_sees_a_driver_that_forgets_what_was_running(memory_folder: Path) -> None:
    assert "another history" in crash(memory_folder, "sweep", "careless")


def test_of_eight_starts_at_once_one_gets_in(memory_folder: Path) -> None:
    assert crash(memory_folder, "race", "3") == "1 in, 7 refused, 0 errors\n" * 3


def test_a_second_driver_is_told_who_holds_the_study_until_that_one_dies(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, CRASHES, tmp_path, "hold"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == f"{holder.pid}\n"
        with (
            pytest.raises(InputError, match=rf"process {holder.pid}\)"),
            OptunaStore().attach(tmp_path, SPACE, {"seed": 0}),
        ):
            pass
        holder.kill()
    assert (tmp_path / "lock").exists()
    with OptunaStore().attach(tmp_path, SPACE, {"seed": 0}) as log:
        assert log.count() == 0


def test_a_refusal_leaves_what_a_crash_left(tmp_path: Path) -> None:
    crash(tmp_path, "die")
    beside = tmp_path / "study.db-wal"
    assert beside.stat().st_size > 0
    before = [(tmp_path / "study.db").read_bytes(), beside.read_bytes()]
    with pytest.raises(InputError, match="seed 0 -> 1"), OptunaStore().attach(tmp_path, SPACE, {"seed": 1}):
        pass
    assert [(tmp_path / "study.db").read_bytes(), beside.read_bytes()] == before
    with OptunaStore().attach(tmp_path, SPACE, {"seed": 0}) as log:
        assert [trial.number for trial in log.list_running()] == [0]
