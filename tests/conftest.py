"""What all tests share: quick compiling, a cache of compiled programs, a process for each core, and fixtures."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from commands import Ended, Run
from hypothesis import settings

from l2l.machine import compilation_cache, cores

# Set before any test imports JAX. JAX then keeps compiled programs on disk, for later runs and for the other processes.
os.environ.update(compilation_cache())
os.environ.setdefault("WANDB_MODE", "offline")
# Tests run a program for a moment only, so they let XLA optimise little: compiling takes a quarter of the time.
# engine/test_search_options.py repeats tests that are marked `exact` with the options of a search, and
# `XLA_FLAGS= pytest` (an empty value) runs every test with them.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)

# Tracing makes many objects and no cycles to speak of: 6 % of the time went into looking for them.
gc.set_threshold(100_000, 50, 50)

# An example that is the first to need a program waits for the compiler, beside the other processes.
settings.register_profile("l2l", deadline=None)
settings.load_profile("l2l")

MAPS = Path("/proc/self/maps")
SLOWEST = (
    *("test_kill.py", "search_spaces/test_transformers.py", "search_spaces/test_spaces.py", "gp/test_gp_critic.py"),
    *("engine/test_search_options.py", "engine/test_population.py", "engine/test_devices.py", "nn/test_moe.py"),
    *("optuna_sampler/test_sampler.py", "controllers/test_controller.py", "executors/test_local.py"),
    "objectives/test_trained.py",
)
"""Ends of the names of the files that take longest: they begin, so that no process waits for them in the end."""

_ran = itertools.count(1)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process for each core; files and tests that are named on the command line run in this one."""
    return 0 if config.option.file_or_dir else cores()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest files first, in the order of their list; the others as they come."""

    def rank(item: pytest.Item) -> int:
        file = item.path.as_posix()
        return next((i for i, end in enumerate(SLOWEST) if file.endswith(end)), len(SLOWEST))

    items.sort(key=rank)


@pytest.fixture(autouse=True)
def _few_programs() -> Generator[None]:
    """Drops compiled programs now and then: each takes some fifty mappings, of which Linux gives a process 65,530."""
    yield
    if next(_ran) % 5 == 0 and "jax" in sys.modules and MAPS.exists() and MAPS.read_bytes().count(b"\n") > 45_000:
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

    from l2l.cli import main
    from l2l.cli.signals import EXIT_CODES
    from l2l.trackers.background import is_any_running

    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    handlers = {number: signal.getsignal(number) for number in EXIT_CODES}

    def call(*words: str) -> Ended:
        # The command would end this very process at once.
        assert not is_any_running(), "an earlier test has left the thread of a tracker behind"
        GlobalHydra.instance().clear()
        code = 0
        try:
            main(words)
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Ended(code, *capsys.readouterr())

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)
    sys.modules.pop("wild", None)
