"""An earlier search, for all tests of this room."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from l2l.api import search
from l2l.executors.inline import Inline
from l2l.objectives.tabular import Tabular, benchmark_space
from l2l.searchers.random_search import Random
from l2l.tasks.tabular import Lookup
from l2l.testing import make_landscape, write_landscape


@pytest.fixture(scope="session")
def earlier_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a random search of 60 trials on `make_landscape(4, 4, seed=3)`."""
    folder = tmp_path_factory.mktemp("prior")
    write_landscape(folder / "table.npz", make_landscape(4, 4, seed=3))
    search(
        benchmark_space(folder / "table.npz", "codes"), Lookup(folder / "table.npz", "reward"), Random(),
        objective=functools.partial(Tabular, path=folder / "table.npz", codes="codes", reward="reward"),
        executor=Inline(), tracker={}, final=None, trials=60, batch=60, out=folder / "run",
    )  # fmt: skip
    return folder / "run"
