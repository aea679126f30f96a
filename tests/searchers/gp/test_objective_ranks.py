"""Several objectives as one score."""

from __future__ import annotations

import numpy as np

from l2l.searchers.gp.objective_ranks import score_by_rank


def test_scores_follow_the_fronts_and_a_failed_trial_has_none() -> None:
    scores = score_by_rank(((0.0, 0.0), None, (2.0, 2.0), (1.0, 1.0)))
    np.testing.assert_array_equal(scores, [-2, np.nan, 0, -1])


def test_within_a_front_the_least_crowded_score_higher() -> None:
    scores = score_by_rank(((0.0, 10.0), (1.0, 9.0), (2.0, 8.0), (10.0, 0.0)))
    assert scores.tolist() == [0, -3, -2, -1]


def test_without_a_reward_there_is_no_score() -> None:
    assert np.isnan(score_by_rank((None, None))).all()
