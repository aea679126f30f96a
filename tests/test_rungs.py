"""The rules: who trains on, from scores alone."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l.errors import InputError
from l2l.pareto import measure_crowding, rank_fronts, sort_best_first
from l2l.rungs import Asha, Halving, Hyperband, Median
from l2l.space import Candidate
from l2l.types import Status, Trial

POINTS = st.lists(st.tuples(*[st.integers(0, 4).map(float)] * 3), min_size=1, max_size=24)


def trial(number: int, *scores: float | tuple[float, ...], status: Status = Status.RUNNING) -> Trial:
    """A trial with these scores after its first epochs."""
    scores_by_epoch = {epoch: score if isinstance(score, tuple) else (score,) for epoch, score in enumerate(scores, 1)}
    return Trial(number, Candidate({}), (0, 99), (number,), status, scores=scores_by_epoch)


def at(rung: int, *scores: float, first: int = 0) -> list[Trial]:
    """Trials that differ in their score at one rung."""
    return [trial(first + index, *[0.0] * (rung - 1), score) for index, score in enumerate(scores)]


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


@given(POINTS)
def test_fronts_are_what_is_left_when_those_before_are_taken_away(points: list[tuple[float, ...]]) -> None:
    left, front, ranks = set(range(len(points))), 0, dict[int, int]()
    while left:
        best = {i for i in left if not any(dominates(points[j], points[i]) for j in left)}
        ranks |= dict.fromkeys(best, front)
        left, front = left - best, front + 1
    assert rank_fronts(points) == [ranks[index] for index in range(len(points))]


def test_of_one_front_the_ends_and_then_the_least_crowded_come_first() -> None:
    front = [(0.0, 10.0), (1.0, 9.0), (2.0, 8.0), (6.0, 4.0), (10.0, 0.0)]
    assert measure_crowding(front) == pytest.approx([float("inf"), 0.4, 1.0, 1.6, float("inf")])
    assert sort_best_first([*front, (0.0, 0.0)]) == [0, 4, 3, 2, 1, 5]
    assert measure_crowding([(1.0, 1.0)] * 3) == [0, 0, 0]
    assert sort_best_first([(0.5,), (0.7,), (0.5,), (0.9,)]) == [3, 1, 0, 2]


@given(POINTS)
def test_one_objective_is_a_ranking(points: list[tuple[float, ...]]) -> None:
    values = [(point[0],) for point in points]
    assert sort_best_first(values) == sorted(range(len(values)), key=lambda index: -values[index][0])


def test_halving_keeps_the_best_of_its_batch() -> None:
    batch = at(3, 0.1, 0.9, 0.5, 0.9, 0.3, 0.2, 0.0, first=8)
    assert Halving(eta=3).keep(3, batch, at(3, *[1.0] * 8)) == {9, 11}
    assert Halving(eta=9).keep(3, batch, []) == {9}
    assert Halving(eta=2).keep(3, batch[:1], []) == {8}


def test_asha_holds_a_batch_against_all_that_came_before() -> None:
    earlier = at(1, 0.5, 0.6, 0.7, 0.8)
    assert Asha(eta=4).keep(1, at(1, 0.65, 0.1, 0.2, 0.75, first=4), earlier) == {7}
    assert Asha(eta=4).keep(1, at(1, 0.1, 0.2, 0.3, 0.4, first=4), earlier) == set()
    assert Asha(eta=4).keep(1, at(1, 0.8, 0.7, 0.7, 0.9, first=4), earlier) == {7}  # of equals, the earlier one


def test_several_objectives_are_promoted_by_front_and_crowding() -> None:
    points = [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0), (0.4, 0.4), (0.1, 0.95), (0.0, 0.0)]
    batch = [trial(number, point) for number, point in enumerate(points)]
    assert Halving(eta=2).keep(1, batch, []) == {0, 2, 1}
    assert Asha(eta=3).keep(1, batch[3:], batch[:3]) == set()
    assert Asha(eta=2).keep(1, batch[3:], batch[:1]) == {3}


def test_rungs_are_powers_of_eta() -> None:
    assert Halving().list_rungs(0, 30) == [1, 3, 9, 27]
    assert Asha(eta=2, first=3).list_rungs(5, 24) == [3, 6, 12]
    assert Median(first=2, every=3).list_rungs(0, 9) == [2, 5, 8]
    assert Halving().list_rungs(0, 1) == []


@pytest.mark.parametrize("total", [2, 5, 9, 10, 81])
def test_hyperband_has_a_bracket_for_every_first_rung_with_about_as_many_epochs_each(total: int) -> None:
    rule = Hyperband()
    ladder = Asha().list_rungs(0, total)
    size = 1
    while [rule.find_bracket(number, total) for number in range(size)] != [
        rule.find_bracket(number, total) for number in range(size, 2 * size)
    ]:
        size += 1
    borders = [rule.list_rungs(number, total) for number in range(size)]
    assert {len(rungs) for rungs in borders} == set(range(len(ladder) + 1))
    assert all(rungs == ladder[len(ladder) - len(rungs) :] for rungs in borders)
    counts = [len([rungs for rungs in borders if len(rungs) == left]) for left in range(len(ladder), -1, -1)]
    assert counts == sorted(counts, reverse=True)
    # Any batch of that size has some of every bracket.
    assert {rule.find_bracket(number, total) for number in range(7, 7 + size)} == set(range(len(ladder) + 1))


def test_the_median_rule_compares_the_best_so_far_with_averages_of_complete_trials() -> None:
    complete = [trial(n, n / 8, n / 8 + 0.25, 1.0, status=Status.COMPLETE) for n in range(5)]
    stopped = [trial(9, 5.0, 5.0, status=Status.PRUNED)]
    batch = [trial(10, 0.125, 0.25), trial(11, 0.375, 0.0), trial(12, 0.0, 0.5)]
    # Averages up to the second epoch are 1/8 to 5/8, and their median is 3/8.
    assert Median().keep(2, batch, [*complete, *stopped]) == {11, 12}
    assert Median().keep(2, batch, [*complete[:4], *stopped]) == {10, 11, 12}
    assert Median(startup=1).keep(1, batch, complete) == {11}


@settings(max_examples=30)
@given(st.sampled_from([Halving(), Asha(), Hyperband(), Median(startup=1)]), st.integers(0, 999))
def test_the_unit_of_the_scores_decides_nothing(rule: Any, seed: int) -> None:
    draw = random.Random(seed)
    scores = [round(draw.random(), 1) for _ in range(12)]
    earlier, batch = at(2, *scores[:6]), at(2, *scores[6:], first=6)
    survivors = rule.keep(2, batch, earlier)
    assert survivors == rule.keep(
        2, at(2, *(4 * score for score in scores[6:]), first=6), at(2, *(4 * s for s in scores[:6]))
    )
    assert survivors <= {trial.number for trial in batch}
    better = [n for n in range(6) if n + 6 not in survivors and any(scores[6 + n] > scores[k] for k in survivors)]
    assert better == [] or isinstance(rule, Median)


@pytest.mark.parametrize(
    ("rule", "name", "value", "low"),
    [
        (Halving, "eta", 1, 2), (Asha, "eta", 2.0, 2), (Hyperband, "first", 0, 1), (Asha, "first", True, 1),
        (Median, "every", 0, 1), (Median, "startup", -1, 1), (Median, "first", "one", 1),
    ],
)  # fmt: skip
def test_bad_arguments(rule: Any, name: str, value: Any, low: int) -> None:
    with pytest.raises(InputError, match=rf"^rungs\.{name} must be an integer of at least {low}, got {value!r}\.$"):
        rule(**{name: value})


def test_what_cannot_be_stopped_is_refused() -> None:
    for rule in (Halving(first=5), Asha(first=5), Hyperband(first=5), Median(first=5)):
        rule.check(6, 1, 8)
        with pytest.raises(
            InputError, match=r"rungs\.first must be below the 5 epochs .*, got 5: there would be nothing"
        ):
            rule.check(5, 1, 8)
    Asha().check(5, 3, 1)
    with pytest.raises(InputError, match="rungs=median compares one number, the reward has 2"):
        Median().check(5, 2, 8)


def test_halving_needs_a_batch_to_halve() -> None:
    Halving(eta=4).check(5, 1, 4)
    with pytest.raises(InputError, match=r"a batch has 3 here: let batch and trials be 4 or more"):
        Halving(eta=4).check(5, 1, 3)
