"""Populations that the tests of the engine share, so that each of their programs is compiled once."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from l2l.engine.population import Population
from l2l.tasks.digits import Digits
from search_spaces import cnn, mlp

TASK = Digits(epochs=3)


@pytest.fixture(scope="session")
def populations() -> Mapping[str, Population]:
    """One population of perceptrons and one of convolutional networks, of one or two layers."""
    spaces = {
        "mlp": mlp.space(widths=(16,), depth=(1, 2), batch_sizes=(128,)),
        "cnn": cnn.space(filters=(4,), depth=(1, 2), poolings=("max", "none"), batch_sizes=(128,)),
    }
    return {name: Population(space, TASK, None) for name, space in spaces.items()}
