"""What all tests share: programs compiled once, and nothing written outside the test's own folder."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from commands import Ended, Run

from l2l.machine import compilation_cache

# Before any test imports JAX: its programs come from the cache of earlier runs.
os.environ.update(compilation_cache())
os.environ.setdefault("WANDB_MODE", "offline")

MAPS = Path("/proc/self/maps")


_ran = itertools.count(1)


@pytest.fixture(autouse=True)
def _few_programs() -> Generator[None]:
    """Drops compiled programs now and then: each takes some fifty mappings, of which Linux gives a process 65,530."""
    yield
    if next(_ran) % 20 == 0 and "jax" in sys.modules and MAPS.exists() and MAPS.read_bytes().count(b"\n") > 25_000:
        from l2l.engine import jax_caches

        jax_caches.clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a command in this process, in an empty folder."""
    from hydra.core.global_hydra import GlobalHydra

    from l2l.cli import commands

    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    handlers = {number: signal.getsignal(number) for number in commands.INTERRUPTED}

    def call(*words: str) -> Ended:
        GlobalHydra.instance().clear()
        code = 0
        try:
            commands.main(words)
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Ended(code, *capsys.readouterr())

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)
    sys.modules.pop("wild", None)
