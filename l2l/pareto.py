"""Several objectives at once, larger being better: non-dominated points, their order and their volume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def rank_fronts(points: Sequence[Sequence[float]]) -> list[int]:
    """The front of each point `[N, M]`: 0 for those that no point dominates, 1 for those that only front 0 does, ...

    Source: Deb et al. 2002, A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, IEEE TEC 6, section III-A.
    """
    values = np.asarray(points, np.float64).reshape(len(points), -1)
    if values.shape[1] == 1:  # every value is a front
        return np.unique(-values[:, 0], return_inverse=True)[1].tolist()
    fronts = np.full(len(values), -1)
    for index in _sort_lexicographic(values):
        point = values[index]
        dominators = (values >= point).all(1) & (values > point).any(1)
        fronts[index] = 1 + max(fronts[dominators], default=-1)
    return fronts.tolist()


def measure_crowding(points: Sequence[Sequence[float]]) -> list[float]:
    """How far each point `[N, M]` of one front lies from its neighbours; infinite at the ends of an objective.

    Source: Deb et al. 2002, section III-B.
    """
    values = np.asarray(points, np.float64).reshape(len(points), -1)
    distances = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        extent = column[order[-1]] - column[order[0]]
        if extent > 0:
            distances[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / extent
            distances[order[[0, -1]]] = np.inf
    return distances.tolist()


def sort_best_first(points: Sequence[Sequence[float]]) -> list[int]:
    """The indices of the points `[N, M]`, best first: by front, then the least crowded, then in the given order.

    Source: Deb et al. 2002, section III-B (crowded-comparison operator).
    """
    if not points:
        return []
    fronts = rank_fronts(points)
    crowding = [0.0] * len(points)
    if len(points[0]) > 1:
        for front in set(fronts):
            members = [index for index, rank in enumerate(fronts) if rank == front]
            distances = measure_crowding([points[index] for index in members])
            for index, distance in zip(members, distances, strict=True):
                crowding[index] = distance
    return sorted(range(len(points)), key=lambda index: (fronts[index], -crowding[index], index))


def find_front(points: Sequence[Sequence[float]]) -> list[int]:
    """The indices of the points `[N, M]` that no point dominates, in descending lexicographic order; of equals one."""
    values, front = np.asarray(points, np.float64).reshape(len(points), -1), list[int]()
    for index in _sort_lexicographic(values):
        if not (values[front] >= values[index]).all(1).any():
            front.append(int(index))
    return front


def _sort_lexicographic(values: Floats) -> npt.NDArray[np.intp]:
    """The indices of the points `[N, M]` in descending lexicographic order, in which dominators come first."""
    return np.lexsort(tuple(-values[:, axis] for axis in range(values.shape[1] - 1, -1, -1)))


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """The volume between the points `[N, M]` and a reference `[M]` that is worse than them.

    A point that is not better than the reference in every objective adds nothing.

    Source: Zitzler and Thiele 1998, Multiobjective Optimization Using Evolutionary Algorithms, PPSN V, section 3.
    """
    values = np.asarray(points, np.float64).reshape(len(points), len(reference)) - np.asarray(reference, np.float64)
    return _union_volume(values[(values > 0).all(1)])


def _union_volume(values: Floats) -> float:
    """The volume of the union of the boxes from zero to each point `[N, M]`, slice by slice of the last objective."""
    if not len(values):
        return 0.0
    if values.shape[1] == 1:
        return float(values.max())
    values, total, area = values[np.argsort(-values[:, -1], kind="stable")], 0.0, 0.0
    slab = values[:0, :-1]  # the non-dominated points of the slice: dominated ones add nothing
    for index, point in enumerate(values[:, :-1]):
        if not (slab >= point).all(1).any():
            slab = np.concatenate([slab[~(slab <= point).all(1)], point[None]])
            area = _union_volume(slab)
        below = values[index + 1, -1] if index + 1 < len(values) else 0.0
        total += (values[index, -1] - below) * area
    return total


def find_knee(points: Sequence[Sequence[float]]) -> int:
    """The index of the point of a front `[N, M]` that gives up least: the furthest from the plane through its ends.

    Objectives are scaled to the front's own range.

    Source: Das 1999, On characterizing the "knee" of the Pareto curve, Structural Optimization 18.
    """
    values = np.asarray(points, np.float64).reshape(len(points), -1)
    extent = np.ptp(values, axis=0)
    return int(np.argmax(((values - values.min(0)) / np.where(extent > 0, extent, 1.0)).sum(1)))
