"""Intervals, chances and curves: against what is known of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from l2l.compare.bootstrap import (
    accumulate_best,
    bootstrap_mean,
    compute_student_interval,
    estimate_chance,
    judge_differences,
)

samples = hnp.arrays(np.float64, st.integers(2, 30), elements=st.floats(-100, 100))


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    intervals = [bootstrap_mean(rng.normal(1, 2, 60)) for _ in range(100)]
    covered = sum(interval.low <= 1 <= interval.high for interval in intervals)
    assert 88 <= covered <= 99


def test_an_interval_of_few_values_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    intervals = [compute_student_interval(rng.normal(1, 2, 4)) for _ in range(200)]
    assert 183 <= sum(interval.low <= 1 <= interval.high for interval in intervals) <= 197
    assert np.isnan(compute_student_interval(np.ones(1))).all()


@given(samples)
def test_an_interval_lies_within_the_values_and_is_reproducible(sample: np.ndarray) -> None:
    interval = bootstrap_mean(sample)
    assert sample.min() - 1e-9 <= interval.low <= interval.high <= sample.max() + 1e-9
    assert bootstrap_mean(sample) == interval


@pytest.mark.parametrize("pairs", [6, 10, 40])
def test_a_verdict_is_wrong_as_seldom_as_it_says(pairs: int) -> None:
    rng = np.random.default_rng(1)
    verdicts = [judge_differences(rng.normal(0, 1, pairs)) for _ in range(150)]
    assert sum(verdict != "no evidence of a difference" for verdict in verdicts) <= 15
    differences = rng.normal(3, 1, pairs)
    assert (judge_differences(differences), judge_differences(-differences)) == ("better", "worse")


def test_five_pairs_are_no_evidence() -> None:
    assert judge_differences(np.ones(5)) == "no evidence of a difference"
    assert judge_differences(np.ones(6)) == "better"


@given(samples, samples)
def test_the_chance_is_that_of_all_pairs(rewards: np.ndarray, others: np.ndarray) -> None:
    pairs = (rewards[:, None] > others) + (rewards[:, None] == others) / 2
    assert estimate_chance(rewards, others) == pytest.approx(pairs.mean())
    assert estimate_chance(rewards, rewards) == pytest.approx(0.5)


def test_the_best_so_far_passes_over_failures() -> None:
    rewards = np.array([[np.nan, 2.0, 1.0, np.nan, 3.0]])
    np.testing.assert_array_equal(accumulate_best(rewards), [[np.nan, 2, 2, 2, 3]])
