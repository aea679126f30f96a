"""Which trials share a program, and what becomes of them when memory runs out or one of them crashes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from l2l.engine.cohort import Cohort, group_cohorts, halve_lanes, plan_calls, split_trials
from l2l.space import Candidate
from l2l.types import Trial


def trials(numbers: Sequence[int], cohort: Sequence[int]) -> list[Trial]:
    return [Trial(n, Candidate({"n": n}), (0, 40), tuple(cohort)) for n in numbers]


def shape(found: Sequence[Cohort]) -> list[tuple[list[int], tuple[int, ...]]]:
    """The numbers of the trials, and those the program was made for."""
    return [([trial.number for trial in each.trials], each.companions[0]) for each in found]


def test_a_trial_that_is_run_again_finds_its_program() -> None:
    whole = group_cohorts(trials(range(7), range(7)), 4)
    assert shape(whole) == [([0, 1, 2, 3], (0, 1, 2, 3)), ([4, 5, 6], (4, 5, 6))]
    assert [each.lanes for each in whole] == [4, 4]
    assert shape(group_cohorts(trials([6, 1], range(7)), 4)) == [([6], (4, 5, 6)), ([1], (0, 1, 2, 3))]


@pytest.mark.parametrize("limit", range(1, 40))
def test_there_are_few_numbers_of_lanes_and_none_above_the_limit(limit: int) -> None:
    found = {each.lanes for size in range(1, 40) for each in group_cohorts(trials(range(size), range(size)), limit)}
    assert found == {2**power for power in range(6) if 2**power <= limit}


@pytest.mark.parametrize("limit", [3, 4, 16])
@pytest.mark.parametrize("size", [2, 3, 7, 16, 33])
def test_halves_do_not_depend_on_who_is_left_and_are_what_their_trials_note(size: int, limit: int) -> None:
    for whole in group_cohorts(trials(range(size), range(size)), limit):
        left = halve_lanes(whole)
        if whole.lanes == 1:
            assert left == []
            continue
        assert left[0].lanes == whole.lanes // 2 >= left[1].lanes
        for part in left:
            for trial in part.trials:
                # Whoever else has ended before, and by the stored trial alone, as the final run finds it.
                place = [each.number for each in whole.trials].index(trial.number)
                assert shape(halve_lanes(whole.select(place, place + 1))) == [([trial.number], part.companions[0])]
                assert shape(group_cohorts([trial], limit)) == [([trial.number], part.companions[0])]


def test_apart_keeps_the_lanes_until_one_is_alone() -> None:
    whole = Cohort(trials([1, 2, 5], range(8)), [tuple(range(8))] * 3)
    first, second = split_trials(whole)
    assert shape([first, second]) == [([1, 2], whole.companions[0]), ([5], whole.companions[0])]
    assert [trial.cohort for part in (first, second) for trial in part.trials] == [tuple(range(8))] * 3
    (alone,) = split_trials(second)
    assert shape([alone]) == [([5], (5,))]
    assert alone.trials[0].cohort == (5,)
    assert split_trials(alone) == []


def test_who_goes_on_shares_calls_with_those_of_the_same_program() -> None:
    work = group_cohorts(trials(range(8), range(8)), 4) + group_cohorts(trials(range(8, 12), range(8, 12)), 4)
    begun = plan_calls(work, lambda trial, lanes: "one", lambda number: 0)
    assert [numbers for numbers, _ in shape(begun)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    left = group_cohorts(trials([1, 4, 6], range(8)), 4) + group_cohorts(trials([8, 11], range(8, 12)), 4)
    program = {1: "one", 4: "one", 6: "two", 8: "one", 11: "one"}
    found = plan_calls(left, lambda trial, lanes: program[trial.number], lambda number: 2 if number != 11 else 0)
    # Number 11 has lost its state and begins anew; nobody's lanes change.
    assert [numbers for numbers, _ in shape(found)] == [[1, 4, 8], [6], [11]]
    assert [(each.begin, each.lanes) for each in found] == [(2, 4), (2, 4), (0, 4)]
