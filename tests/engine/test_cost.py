"""The cost model: operations are counted right."""

from __future__ import annotations

from typing import Any

from l2l.engine import cost
from l2l.types import Spec
from search_spaces import cnn, mlp

SPEC = Spec((8, 8, 1), 10, 1000, 5)


def values(space: Any, **given: Any) -> dict[str, Any]:
    return dict(space.complete(lambda name, choice: given.get(name, choice.at(0.0))).values)


def test_operations_of_a_perceptron() -> None:
    found = cost.operations(mlp.space(), values(mlp.space(), depth=2, layer1_width=32, layer2_width=64), SPEC)
    assert found == 3 * 2 * (64 * 32 + 32 * 64 + 64 * 10) * 1000 * 5


def test_operations_of_a_convolutional_network() -> None:
    # One layer on 8x8, pooled to 4x4 before the head.
    found = cost.operations(cnn.space(), values(cnn.space(), depth=1, layer1_filters=16, layer1_kernel=5), SPEC)
    assert found == 3 * 2 * (64 * 25 * 16 + 16 * 16 * 10) * 1000 * 5
