"""The cost model: operations are counted right, and a ladder is what the counts say."""

from __future__ import annotations

import random
from typing import Any

import pytest

from l2l.engine import cost
from l2l.engine.bucket import rungs
from l2l.types import Spec
from search_spaces import cnn, mixed, mlp

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


@pytest.mark.parametrize("make", [mlp.space, cnn.space, mixed.space])
def test_a_ladder_covers_every_size_and_grows_with_the_work(make: Any) -> None:
    space = make()
    lengths: list[int] = []
    for epochs in (1, 30, 10_000):
        found = cost.ladders(space, SPEC._replace(epochs=epochs))
        assert found == cost.ladders(space, SPEC._replace(epochs=epochs))
        for name, sizes in rungs(space).items():
            assert set(found[name]) <= set(sizes)
            assert found[name][-1] == sizes[-1]
            assert list(found[name]) == sorted(found[name])
        lengths.append(sum(map(len, found.values())))
    assert lengths == sorted(lengths)
    # All but perhaps a size that no drawn candidate needs.
    assert lengths[0] < lengths[-1] >= sum(map(len, rungs(space).values())) - 1


def test_a_size_that_no_drawn_candidate_has_is_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "SAMPLES", 1)
    space = mlp.space()
    needed = max(int(value) for name, value in space.sample(random.Random(0)).values.items() if "width" in name)
    ladder = cost.ladders(space, SPEC._replace(epochs=10**6))["width"]
    assert ladder[-1] == 256
    assert any(size >= needed for size in ladder)


def test_thousands_of_sizes_are_no_hindrance() -> None:
    ladder = cost.ladders(mlp.space(widths=tuple(range(1, 4001))), SPEC)["width"]
    assert ladder[-1] == 4000
    assert 1 < len(ladder) < 24
