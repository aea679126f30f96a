"""Several objectives at once: which points are beaten by none, and which of equals stand most apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def ranks(points: Sequence[Sequence[float]]) -> list[int]:
    """The front of each point `[N, M]`, larger being better: 0 for those that nothing dominates, then 1.

    Source: Deb et al. 2002, A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, IEEE TEC 6, section III-A.
    """
    values = np.asarray(points, np.float64).reshape(len(points), -1)
    if values.shape[1] == 1:  # every value is a front
        return [int(each) for each in np.unique(-values[:, 0], return_inverse=True)[1]]
    found = np.full(len(values), -1)
    for place in _dictionary(values):
        row = values[place]
        above = (values >= row).all(1) & (values > row).any(1)
        found[place] = 1 + max(found[above], default=-1)
    return [int(each) for each in found]


def crowding(points: Sequence[Sequence[float]]) -> list[float]:
    """How far each point `[N, M]` of one front lies from its neighbours; infinite at the ends of an objective.

    Source: Deb et al. 2002, section III-B.
    """
    values = np.asarray(points, np.float64).reshape(len(points), -1)
    distances = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        if span > 0:
            distances[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
            distances[order[[0, -1]]] = np.inf
    return [float(each) for each in distances]


def best_first(points: Sequence[Sequence[float]]) -> list[int]:
    """The places of the points `[N, M]`, best first: by front, then the least crowded, then as they came.

    Source: Deb et al. 2002, section III-B (crowded-comparison operator).
    """
    fronts = ranks(points)
    apart = [0.0] * len(points)
    if points and len(points[0]) > 1:
        for front in set(fronts):
            members = [place for place, each in enumerate(fronts) if each == front]
            for place, distance in zip(members, crowding([points[place] for place in members]), strict=True):
                apart[place] = distance
    return sorted(range(len(points)), key=lambda place: (fronts[place], -apart[place], place))


def front(points: Sequence[Sequence[float]]) -> list[int]:
    """The places of the points `[N, M]` that nothing dominates, the best by the first objective first; of equals one.

    Larger is better.
    """
    values, found = np.asarray(points, np.float64).reshape(len(points), -1), list[int]()
    for place in _dictionary(values):
        if not (values[found] >= values[place]).all(1).any():
            found.append(int(place))
    return found


def _dictionary(values: Floats) -> npt.NDArray[np.intp]:
    """The places of the points `[N, M]` in the dictionary's order: who dominates a point comes before it."""
    return np.lexsort(tuple(-values[:, axis] for axis in range(values.shape[1] - 1, -1, -1)))


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """The volume between the points `[N, M]`, larger being better, and a reference `[M]` that is worse than them.

    A point that is not better than the reference everywhere adds nothing.

    Source: Zitzler and Thiele 1998, Multiobjective Optimization Using Evolutionary Algorithms, PPSN V, section 3.
    """
    values = np.asarray(points, np.float64).reshape(len(points), len(reference)) - np.asarray(reference, np.float64)
    return _volume(values[(values > 0).all(1)])


def _volume(values: Floats) -> float:
    """The volume of the boxes from zero to each point, slice by slice of the last objective."""
    if not len(values):
        return 0.0
    if values.shape[1] == 1:
        return float(values.max())
    values, total, area = values[np.argsort(-values[:, -1], kind="stable")], 0.0, 0.0
    slab = values[:0, :-1]  # of the slice's points those that none beats: what else there is adds nothing
    for place, point in enumerate(values[:, :-1]):
        if not (slab >= point).all(1).any():
            slab = np.concatenate([slab[~(slab <= point).all(1)], point[None]])
            area = _volume(slab)
        below = values[place + 1, -1] if place + 1 < len(values) else 0.0
        total += (values[place, -1] - below) * area
    return total


def knee(points: Sequence[Sequence[float]]) -> int:
    """The place of the point of a front `[N, M]` that gives up least: the furthest from the plane through its ends.

    Of objectives scaled to the front's own range; larger is better.

    Source: Das 1999, On characterizing the "knee" of the Pareto curve, Structural Optimization 18.
    """
    values = np.asarray(points, np.float64).reshape(len(points), -1)
    span = np.ptp(values, axis=0)
    return int(np.argmax(((values - values.min(0)) / np.where(span > 0, span, 1.0)).sum(1)))
