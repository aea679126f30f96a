"""A small tabular benchmark for all tests of comparisons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from l2l.testing import make_landscape, write_landscape


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A landscape of 4 decisions and 3 options, with another column to report."""
    path = tmp_path_factory.mktemp("table") / "small.npz"
    benchmark = make_landscape(4, 3)
    write_landscape(path, benchmark)
    np.savez(path, codes=benchmark.codes, reward=benchmark.rewards, other=benchmark.rewards[::-1])
    return path
