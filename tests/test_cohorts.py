"""Cohorts as they are asked for: by static values, or by the objective's word."""

from __future__ import annotations

from l2l.cohorts import group_by_program
from l2l.space import Candidate, Categorical, Real, SearchSpace

SPACE = SearchSpace(
    {"kind": Categorical(options=("a", "b", 1, True)), "rate": Real(low=0, high=1)}, lambda values, spec: None
)
ASKED = [SPACE.candidate({"kind": kind, "rate": i / 10}) for i, kind in enumerate(["a", "b", 1, "a", True, "b", "a"])]


class Halved:
    """An objective that has a program for low rates and another one for high rates."""

    def name_bucket(self, candidate: Candidate) -> str:
        return "low" if candidate.values["rate"] < 0.25 else "high"


def test_cohorts_are_those_with_the_same_static_values() -> None:
    assert group_by_program(ASKED, SPACE, object(), 8) == [
        (8, 11, 14),
        (9, 13),
        (10,),
        (8, 11, 14),
        (12,),
        (9, 13),
        (8, 11, 14),
    ]


def test_the_objective_may_say_otherwise() -> None:
    assert group_by_program(ASKED, SPACE, Halved(), 0) == [(0, 1, 2)] * 3 + [(3, 4, 5, 6)] * 4
