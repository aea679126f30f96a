"""What `result.json` says of a winner that was handed over."""

from __future__ import annotations

import pytest

from l2l.errors import SearchError
from l2l.run.result import FinalScores, summarise_test
from l2l.space import Candidate
from l2l.types import Outcome, Status, Trial


def trial(score: float) -> Trial:
    return Trial(3, Candidate({}), (0, 1), (3,), Status.COMPLETE, Outcome({"bits": score}), (-score,))


@pytest.mark.parametrize(
    ("again", "loaded", "reproduced"),
    [
        (2.5, 2.5, True),
        (2.5, 2.5 * (1 + 5e-7), True),  # summed in another program
        (2.5, 2.5 * (1 + 5e-6), False),
        (2.5 * (1 + 1e-9), 2.5, False),  # another training
        (2.5, None, False),
    ],
)
def test_a_winner_is_reproduced_if_its_training_is_and_its_module_scores_the_same(
    again: float, loaded: float | None, reproduced: bool
) -> None:
    metrics = {"validation": again, "test": 2.6} | ({} if loaded is None else {"loaded": loaded})
    summary = summarise_test("bits", trial(2.5), FinalScores.from_metrics(metrics))
    assert summary.reproduced is reproduced
    assert (summary.trial, summary.mean, summary.seeds) == (2.6, None, 0)


def test_a_share_of_examples_is_reproduced_exactly() -> None:
    assert summarise_test("bits", trial(0.0), FinalScores(0.0, 0.1, 0.0)).reproduced
    assert not summarise_test("bits", trial(0.99), FinalScores(0.99, 0.1, 0.99 - 1 / 60000)).reproduced


def test_scores_travel_as_metrics() -> None:
    scores = FinalScores(0.9, 0.8, 0.9, (0.7, 0.75))
    assert FinalScores.from_metrics(scores.to_metrics()) == scores
    with pytest.raises(SearchError, match=r"^the final run measured no test score; its outcome's metrics must be"):
        FinalScores.from_metrics({"validation": 0.9})
