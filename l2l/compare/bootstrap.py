"""Statistics of paired results: bootstrap intervals, verdicts, chances, and curves of the best reward so far."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 10_000
"""Bootstrap samples of an interval."""
BATCH = 100
"""Bootstrap samples that are in memory at a time: there may be thousands of seeds, and a curve has 60 points."""
LEVEL = 0.95
"""The level of confidence of every interval."""
FEWEST, MANY = 6, 30
"""The fewest pairs that can show a difference, and the fewest for which the bootstrap's interval suffices alone."""
NONE = "no evidence of a difference"


class Interval(NamedTuple):
    """The 95 % confidence interval of a mean."""

    low: float
    high: float


def bootstrap_mean(values: Floats, seed: int = 0) -> Interval:
    """The percentile bootstrap interval of the mean of values [S].

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
    """
    low, high = bootstrap_curves(values[:, None], seed)
    return Interval(float(low[0]), float(high[0]))


def bootstrap_curves(curves: Floats, seed: int = 0) -> tuple[Floats, Floats]:
    """The ends [points] of the bootstrap intervals of the mean of curves [S, points], with shared resamples."""
    from scipy import stats  # takes a third of a second to import

    centre = curves.mean(0)  # so that where all seeds agree the interval is exactly there
    if len(curves) < 2:
        return centre, centre
    result: Any = stats.bootstrap(
        ((curves - centre).T,), np.mean, axis=-1, n_resamples=RESAMPLES, batch=BATCH, confidence_level=LEVEL,
        method="percentile", rng=np.random.default_rng(seed),
    )  # fmt: skip
    return centre + result.confidence_interval.low, centre + result.confidence_interval.high


def compute_student_interval(values: Floats) -> Interval:
    """The interval of the mean of values [S] by Student's t distribution, for small S; nan for one value."""
    from scipy import stats  # takes a third of a second to import

    mean, size = float(values.mean()), len(values)
    if size < 2:
        return Interval(math.nan, math.nan)
    half = float(stats.t.ppf((1 + LEVEL) / 2, size - 1) * values.std(ddof=1) / math.sqrt(size))
    return Interval(mean - half, mean + half)


def judge_differences(differences: Floats) -> str:
    """Whether paired differences [S] show a better or a worse mean: by the bootstrap, and for few pairs by Student's t.

    Fewer than `FEWEST` pairs never show one: five equal signs happen by chance in more than 5 % of the cases.
    """
    if len(differences) < FEWEST:
        return NONE
    intervals = [bootstrap_mean(differences)]
    intervals += [compute_student_interval(differences)] if len(differences) < MANY else []
    if all(interval.low > 0 for interval in intervals):
        return "better"
    return "worse" if all(interval.high < 0 for interval in intervals) else NONE


def estimate_chance(rewards: Floats, others: Floats) -> float:
    """The probability that one of `rewards` [S] beats one of `others` [S], ties counting half.

    Source: Agarwal et al. 2021, Deep RL at the Edge of the Statistical Precipice, NeurIPS, section 4.
    """
    order = np.sort(others)
    lower = np.searchsorted(order, rewards, "left")
    lower_or_equal = np.searchsorted(order, rewards, "right")
    return float((lower + lower_or_equal).mean() / 2 / len(others))


def accumulate_best(rewards: Floats) -> Floats:
    """The highest reward up to each trial: [S, T] from rewards [S, T]; nan before the first trial that succeeded."""
    return np.fmax.accumulate(rewards, axis=1)
