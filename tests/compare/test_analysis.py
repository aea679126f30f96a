"""The analysis of searches: verdicts, curves, equal seconds and the recommendation, on numbers made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from l2l.compare.analysis import Searches, analyse, compute_curves
from l2l.errors import InputError


def make_searches(rewards: list[list[float]]) -> Searches:
    array = np.array(rewards)
    return Searches(array, None, np.ones(len(array)), {"searcher": 0.0})


EVEN = make_searches([[1.0, 2.0], [2.0, 1.0], [1.0, 3.0]] * 2)
HIGHER = make_searches([[1.0, 9.0], [2.0, 9.0], [1.0, 9.0]] * 2)


def test_only_a_difference_that_is_shown_is_called_one() -> None:
    better = make_searches([[1.0, 4.0], [4.0, 1.0], [1.0, 5.0]] * 2)
    analysis = analyse({"random": EVEN, "twin": EVEN, "better": better}, None)
    assert analysis.searchers["twin"].verdict == "no evidence of a difference"
    assert analysis.searchers["better"].verdict == "better"
    assert analysis.searchers["better"].chance_over_random > 0.9
    assert analysis.highest == "better"


def test_a_reward_is_reported_by_the_best_so_far() -> None:
    rewards, report = np.array([[0.1, 0.3, 0.2], [0.5, 0.4, 0.5]]), np.array([[1.0, 3, 2], [5, 4, 9]])
    searcher = analyse({"random": Searches(rewards, report, np.ones(2), {})}, 0.5).searchers["random"]
    assert searcher.report_mean == 4  # of the first of equals
    assert searcher.regret is not None
    assert searcher.found_best is not None
    assert searcher.regret[3] == pytest.approx(0.1)
    assert searcher.found_best[3] == 0.5


def test_equal_seconds_are_those_of_the_quickest() -> None:
    slow = Searches(np.array([[0.7, 0.9], [0.6, 0.8]]), None, np.ones(2), {}, np.array([[5.0, 10.0], [3.0, 6.0]]))
    quick = Searches(np.array([[0.3, 0.2], [0.1, 0.4]]), None, np.ones(2), {}, np.array([[1.0, 2.0], [1.0, 4.0]]))
    searchers = analyse({"random": quick, "slow": slow}, None).searchers
    quick_within, slow_within = searchers["random"].equal_seconds, searchers["slow"].equal_seconds
    assert quick_within is not None
    assert slow_within is not None
    assert quick_within.seconds == 3
    assert (quick_within.trials, slow_within.trials) == (2.0, 0.5)
    assert quick_within.reward_mean == pytest.approx(0.35)
    # With the first seed no trial had ended yet, which counts as the lowest reward of all.
    assert slow_within.reward_mean == pytest.approx((0.1 + 0.6) / 2)


def test_failures_before_the_first_success_count_as_the_lowest_of_all_searches() -> None:
    late = make_searches([[np.nan, 5.0], [np.nan, 6.0]])
    analysis = analyse({"random": make_searches([[0.0, 1.0], [2.0, 3.0]]), "late": late}, None)
    assert analysis.searchers["late"].failed == 2
    curves = compute_curves({"random": make_searches([[0.0, 1.0]]), "late": make_searches([[np.nan, 5.0]])})
    assert curves["late"].tolist() == [[0, 5]]


def test_what_is_no_better_than_random_is_not_recommended() -> None:
    analysis = analyse({"random": EVEN, "twin": EVEN}, None)
    assert analysis.recommended is None
    assert analysis.searchers["twin"].difference_to_recommended is None
    assert analyse({"random": EVEN, "gp_critic": EVEN}, None).recommended == "gp_critic"
    assert analyse({"random": EVEN, "up": HIGHER}, None).recommended == "up"
    assert analyse({"random": EVEN, "up": HIGHER, "gp_critic": EVEN}, None).recommended == "up"
    assert analyse({"random": HIGHER, "gp_critic": EVEN}, None).recommended is None
    few = {
        name: make_searches(searches.rewards[:5].tolist())
        for name, searches in {"random": EVEN, "up": HIGHER, "gp_critic": EVEN}.items()
    }
    analysis = analyse(few, None)
    assert analysis.searchers["up"].verdict == "no evidence of a difference"  # that is what five seeds can show
    assert analysis.recommended == "gp_critic"


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(InputError, match=r"^a comparison needs equal budgets, got random 1 seeds of 2 trials, odd 1 "):
        analyse({"random": make_searches([[1.0, 2.0]]), "odd": make_searches([[1.0]])}, None)
    with pytest.raises(InputError, match=r"^a comparison needs random search as one of its searchers"):
        analyse({"odd": make_searches([[1.0]])}, None)
    with pytest.raises(InputError, match=r"^a search had no trial that succeeded"):
        analyse({"random": make_searches([[np.nan, np.nan]])}, None)
