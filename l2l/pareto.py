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
    # Who dominates a point comes before it in the dictionary's order, so its front is known.
    for place in np.lexsort(tuple(-values[:, axis] for axis in range(values.shape[1] - 1, -1, -1))):
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
