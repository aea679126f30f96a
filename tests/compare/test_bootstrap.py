"""Intervals, chances and curves: against what is known of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from l2l.compare.bootstrap import best_so_far, chance, interval, student, verdict

values = hnp.arrays(np.float64, st.integers(2, 30), elements=st.floats(-100, 100))


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    found = [interval(draw.normal(1, 2, 60)) for _ in range(100)]
    covered = sum(each.low <= 1 <= each.high for each in found)
    assert 88 <= covered <= 99


def test_an_interval_of_few_values_covers_the_mean_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    found = [student(draw.normal(1, 2, 4)) for _ in range(200)]
    assert 183 <= sum(each.low <= 1 <= each.high for each in found) <= 197
    assert np.isnan(student(np.ones(1))).all()


@given(values)
def test_an_interval_lies_within_the_values_and_comes_out_the_same(sample: np.ndarray) -> None:
    found = interval(sample)
    assert sample.min() - 1e-9 <= found.low <= found.high <= sample.max() + 1e-9
    assert interval(sample) == found


@pytest.mark.parametrize("pairs", [6, 10, 40])
def test_a_verdict_is_wrong_as_seldom_as_it_says(pairs: int) -> None:
    draw = np.random.default_rng(1)
    found = [verdict(draw.normal(0, 1, pairs)) for _ in range(150)]
    assert sum(each != "no evidence of a difference" for each in found) <= 15
    apart = draw.normal(3, 1, pairs)
    assert (verdict(apart), verdict(-apart)) == ("better", "worse")


def test_five_pairs_are_no_evidence() -> None:
    assert verdict(np.ones(5)) == "no evidence of a difference"
    assert verdict(np.ones(6)) == "better"


@given(values, values)
def test_the_chance_is_that_of_all_pairs(ours: np.ndarray, theirs: np.ndarray) -> None:
    pairs = (ours[:, None] > theirs) + (ours[:, None] == theirs) / 2
    assert chance(ours, theirs) == pytest.approx(pairs.mean())
    assert chance(ours, ours) == pytest.approx(0.5)


def test_the_best_so_far_passes_over_failures() -> None:
    rewards = np.array([[np.nan, 2.0, 1.0, np.nan, 3.0]])
    np.testing.assert_array_equal(best_so_far(rewards), [[np.nan, 2, 2, 2, 3]])
