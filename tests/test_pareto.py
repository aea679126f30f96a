"""Fronts, their volume and their knee, against what they are defined as."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2l.pareto import find_front, find_knee, hypervolume

WHOLE = st.integers(0, 6)
POINTS = st.integers(1, 3).flatmap(lambda axes: st.lists(st.tuples(*[WHOLE] * axes), min_size=1, max_size=9))


def cells(points: list[tuple[int, ...]]) -> int:
    """How many unit cells lie between the points and the origin, one by one."""
    axes = len(points[0])
    return sum(
        any(all(at < end for at, end in zip(cell, point, strict=True)) for point in points)
        for cell in itertools.product(range(6), repeat=axes)
    )


@given(POINTS)
def test_the_front_is_what_nothing_dominates(points: list[tuple[int, ...]]) -> None:
    def beaten(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    front = find_front(points)
    assert {points[index] for index in front} == {p for p in points if not any(beaten(p, q) for q in points)}
    assert len({points[index] for index in front}) == len(front)
    assert [points[index][0] for index in front] == sorted((points[index][0] for index in front), reverse=True)
    assert all(points.index(points[index]) == index for index in front)


@given(POINTS)
def test_the_volume_is_that_of_its_cells(points: list[tuple[int, ...]]) -> None:
    assert hypervolume(points, [0] * len(points[0])) == cells(points)
    assert hypervolume([points[index] for index in find_front(points)], [0] * len(points[0])) == cells(points)


@given(POINTS, st.data())
def test_a_further_point_never_takes_volume_away(points: list[tuple[int, ...]], data: st.DataObject) -> None:
    more = data.draw(st.tuples(*[WHOLE] * len(points[0])))
    reference = [1] * len(points[0])
    assert hypervolume([*points, more], reference) >= hypervolume(points, reference) >= 0


def test_many_objectives_take_no_hours() -> None:
    draw = np.random.RandomState(0)
    points = draw.randn(64, 5)
    points = 1.0 + points / np.linalg.norm(points, axis=1, keepdims=True)
    samples = draw.rand(20_000, 5) * 2
    hit = (samples[:, None] <= points[None]).all(-1).any(1).mean() * 2**5
    assert hypervolume(points.tolist(), [0.0] * 5) == pytest.approx(hit, rel=0.05)


def test_nothing_has_no_volume() -> None:
    assert hypervolume([], [0.0, 0.0]) == 0.0
    assert hypervolume([(1.0, -1.0)], [0.0, 0.0]) == 0.0


@pytest.mark.parametrize("scale", [(1.0, 1.0), (1e-6, 1e9), (3.0, 0.01)])
def test_the_knee_is_where_the_front_bends_in_any_units(scale: tuple[float, float]) -> None:
    points = np.array([(0.0, 10.0), (4.0, 9.5), (9.0, 9.0), (9.5, 4.0), (10.0, 0.0)]) * scale
    assert find_knee(points.tolist()) == 2
    assert find_knee([(1.0, 1.0)]) == 0
    assert find_knee([(0.0, 5.0), (1.0, 5.0)]) == 1
