"""What may be said of paired results: intervals by bootstrap, chances, and curves of the best so far."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 10_000
"""Bootstrap samples of an interval."""
LEVEL = 0.95
FEWEST, MANY = 6, 30
"""Pairs that can show a difference at all, and from how many on the bootstrap's interval is wide enough alone."""
NONE = "no evidence of a difference"


class Interval(NamedTuple):
    """Where a mean lies with 95 % confidence."""

    low: float
    high: float


def interval(values: Floats, seed: int = 0) -> Interval:
    """The percentile bootstrap interval of the mean of values [S].

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
    """
    low, high = band(values[:, None], seed)
    return Interval(float(low[0]), float(high[0]))


def student(values: Floats) -> Interval:
    """The interval of the mean of values [S] by Student's t, for small S; nan for one value."""
    from scipy import stats  # a third of a second that a comparison does not need

    mean, size = float(values.mean()), len(values)
    if size < 2:
        return Interval(math.nan, math.nan)
    half = float(stats.t.ppf((1 + LEVEL) / 2, size - 1) * values.std(ddof=1) / math.sqrt(size))
    return Interval(mean - half, mean + half)


def verdict(differences: Floats) -> str:
    """Whether paired differences [S] are evidence of one, by their interval; of few pairs by Student's too.

    Fewer than `FEWEST` pairs never are: that the signs of five are equal happens by chance more often than in 5 %.
    """
    if len(differences) < FEWEST:
        return NONE
    found = [interval(differences)]
    found += [student(differences)] if len(differences) < MANY else []
    if all(each.low > 0 for each in found):
        return "better"
    return "worse" if all(each.high < 0 for each in found) else NONE


def band(curves: Floats, seed: int = 0) -> tuple[Floats, Floats]:
    """The ends [P] of the intervals of `interval` at each point of curves [S, P], with the same resamples for all."""
    draw, (size, points) = np.random.default_rng(seed), curves.shape
    means = np.empty((RESAMPLES, points))
    centre = curves.mean(0)  # so that where all seeds agree the interval is exactly there
    for begin in range(0, RESAMPLES, 1000):  # in parts: S may be thousands
        count = min(1000, RESAMPLES - begin)
        picks = draw.integers(0, size, (count, size)) + size * np.arange(count)[:, None]
        often = np.bincount(picks.ravel(), minlength=count * size).reshape(count, size)
        means[begin : begin + count] = centre + often @ (curves - centre) / size
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


def chance(ours: Floats, theirs: Floats) -> float:
    """How often one of ours [S] beats one of theirs [S], ties counting half: the probability of improvement.

    Source: Agarwal et al. 2021, Deep RL at the Edge of the Statistical Precipice, NeurIPS, section 4.
    """
    order = np.sort(theirs)
    less = np.searchsorted(order, ours, "left")
    most = np.searchsorted(order, ours, "right")
    return float((less + most).mean() / 2 / len(theirs))


def best_so_far(rewards: Floats) -> Floats:
    """The highest reward up to each trial: [S, T] from rewards [S, T]; nan before the first that did not fail."""
    return np.fmax.accumulate(rewards, axis=1)
