"""Which trials share a program, and what happens to them when memory runs out or one of them crashes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from l2l.engine.cohort import Cohort, group_cohorts, halve_lanes, halve_trials, plan_calls
from l2l.space import Candidate
from l2l.types import Trial


def make_trials(numbers: Sequence[int], cohort: Sequence[int]) -> list[Trial]:
    return [Trial(n, Candidate({"n": n}), (0, 40), tuple(cohort)) for n in numbers]


def make_cohorts(size: int, limit: int) -> list[Cohort]:
    return group_cohorts(make_trials(range(size), range(size)), limit)


def describe(cohorts: Sequence[Cohort]) -> list[tuple[list[int], tuple[int, ...]]]:
    """The numbers of each cohort's trials, and those that its program has lanes for."""
    return [([trial.number for trial in cohort.trials], cohort.companions[0]) for cohort in cohorts]


def test_a_trial_that_runs_again_has_the_same_program() -> None:
    cohorts = make_cohorts(7, 4)
    assert describe(cohorts) == [([0, 1, 2, 3], (0, 1, 2, 3)), ([4, 5, 6], (4, 5, 6))]
    assert [cohort.lanes for cohort in cohorts] == [4, 4]
    again = group_cohorts(make_trials([6, 1], range(7)), 4)
    assert describe(again) == [([6], (4, 5, 6)), ([1], (0, 1, 2, 3))]


@pytest.mark.parametrize("limit", range(1, 40))
def test_there_are_few_numbers_of_lanes_and_none_above_the_limit(limit: int) -> None:
    lanes = {cohort.lanes for size in range(1, 40) for cohort in make_cohorts(size, limit)}
    assert lanes == {2**power for power in range(6) if 2**power <= limit}


@pytest.mark.parametrize("limit", [3, 4, 16])
@pytest.mark.parametrize("size", [2, 3, 7, 16, 33])
def test_halves_do_not_depend_on_which_trials_are_left_and_are_what_these_note(size: int, limit: int) -> None:
    for whole in make_cohorts(size, limit):
        halves = halve_lanes(whole)
        if whole.lanes == 1:
            assert halves == []
            continue
        assert halves[0].lanes == whole.lanes // 2 >= halves[1].lanes
        numbers = [trial.number for trial in whole.trials]
        for half in halves:
            for trial in half.trials:
                # Whichever trials have ended before, and from the stored trial alone, as the final run has it.
                index = numbers.index(trial.number)
                alone = [([trial.number], half.companions[0])]
                assert describe(halve_lanes(whole.select(index, index + 1))) == alone
                assert describe(group_cohorts([trial], limit)) == alone


def test_halved_trials_keep_the_lanes_until_one_is_alone() -> None:
    whole = Cohort(make_trials([1, 2, 5], range(8)), [tuple(range(8))] * 3)
    first, second = halve_trials(whole)
    assert describe([first, second]) == [([1, 2], whole.companions[0]), ([5], whole.companions[0])]
    assert [trial.cohort for part in (first, second) for trial in part.trials] == [tuple(range(8))] * 3
    (single,) = halve_trials(second)
    assert describe([single]) == [([5], (5,))]
    assert single.trials[0].cohort == (5,)
    assert halve_trials(single) == []


def test_trials_that_go_on_share_calls_with_those_of_the_same_program() -> None:
    cohorts = make_cohorts(8, 4) + group_cohorts(make_trials(range(8, 12), range(8, 12)), 4)
    begun = plan_calls(cohorts, lambda trial, lanes: "one", lambda number: 0)
    assert [numbers for numbers, _ in describe(begun)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    left = group_cohorts(make_trials([1, 4, 6], range(8)), 4)
    left += group_cohorts(make_trials([8, 11], range(8, 12)), 4)
    programs = {1: "one", 4: "one", 6: "two", 8: "one", 11: "one"}
    calls = plan_calls(left, lambda trial, lanes: programs[trial.number], lambda number: 2 if number != 11 else 0)
    # Number 11 has lost its state and begins anew; nobody's lanes change.
    assert [numbers for numbers, _ in describe(calls)] == [[1, 4, 8], [6], [11]]
    assert [(call.begin, call.lanes) for call in calls] == [(2, 4), (2, 4), (0, 4)]
