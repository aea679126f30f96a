"""Which worker is given what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from l2l.executors.scheduling import Piece, choose_pieces, split_trials
from l2l.space import Candidate, Integer, SearchSpace
from l2l.types import Outcome, Trial

SPACE: SearchSpace[Any] = SearchSpace(
    name="numbers", choices={"n": Integer(low=0, high=99)}, build=lambda values, spec: values
)


class Odd:
    """Has two programs."""

    def check(self) -> None: ...

    def name_bucket(self, candidate: Candidate) -> str:
        return "odd" if int(candidate.values["n"]) % 2 else "even"  # pyright: ignore

    def __call__(self, trials: Sequence[Trial]) -> Iterator[Trial]:
        yield from trials


class Plain:
    """Says nothing of programs."""

    def check(self) -> None: ...

    def __call__(self, trials: Sequence[Trial]) -> Iterator[Trial]:
        yield from trials


def trials(*cohorts: tuple[int, ...]) -> list[Trial]:
    return [
        Trial(number=number, batch=0, candidate=SPACE.candidate({"n": number}), cohort=cohort, outcome=Outcome())
        for cohort in cohorts
        for number in cohort
    ]


def numbers(pieces: Sequence[Piece]) -> list[list[int]]:
    return [[trial.number for trial in piece.trials] for piece in pieces]


def test_a_cohort_is_one_piece_or_as_many_as_it_has_calls() -> None:
    asked = trials((0, 2, 4, 6, 8), (1, 3))
    assert numbers(split_trials(Plain(), asked, None)) == [[0, 2, 4, 6, 8], [1, 3]]
    assert numbers(split_trials(Plain(), asked, 2)) == [[0, 2], [4, 6], [8], [1, 3]]
    assert numbers(split_trials(Plain(), asked, 1)) == [[number] for number in (0, 2, 4, 6, 8, 1, 3)]
    # After a crash, what is left of a cohort is cut where it would have been.
    assert numbers(split_trials(Plain(), asked[1:], 2)) == [[2], [4, 6], [8], [1, 3]]


def test_a_piece_has_the_name_of_its_bucket() -> None:
    asked = trials((0, 2), (1,), (4,))
    assert [piece.bucket_name for piece in split_trials(Odd(), asked, None)] == ["even", "odd", "even"]
    assert len({piece.bucket_name for piece in split_trials(Plain(), asked, None)}) == 3


def test_a_worker_goes_on_with_its_programs_then_begins_one_then_helps() -> None:
    waiting = split_trials(Odd(), trials(*((n,) for n in range(12))), 1)
    assert numbers(choose_pieces(waiting, {"odd"}, {"odd", "even"}, 2, {})) == [[1], [3], [5]]
    assert numbers(choose_pieces(waiting, set(), {"even"}, 2, {})) == [[1], [3], [5]]
    assert numbers(choose_pieces(waiting, set(), set(), 2, {})) == [[0], [2], [4]]
    assert numbers(choose_pieces(waiting[1:], set(), {"odd", "even"}, 2, {})) == [[1], [3]]
    assert numbers(choose_pieces(waiting[-1:], {"even"}, {"even"}, 2, {})) == [[11]]


def test_a_worker_helps_where_most_is_left_and_not_where_little_is() -> None:
    waiting, both = split_trials(Odd(), trials(*((n,) for n in range(12))), 1), {"odd", "even"}
    assert numbers(choose_pieces(waiting, set(), both, 2, {"odd": 0.4, "even": 0.5})) == [[0], [2], [4]]
    assert numbers(choose_pieces(waiting, set(), both, 2, {"odd": 0.4, "even": 0.3})) == [[1], [3], [5]]
    assert choose_pieces(waiting, set(), both, 2, {"odd": 0.3, "even": 0.3}) == []
    assert numbers(choose_pieces(waiting, {"odd"}, both, 2, {"odd": 0.0, "even": 9.0})) == [[1], [3], [5]]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    programs=st.lists(st.sampled_from("abcd"), min_size=1, max_size=40),
    workers=st.integers(1, 5),
    order=st.lists(st.integers(0, 4), max_size=60),
)
def test_everything_is_given_out_once_whoever_asks(programs: list[str], workers: int, order: list[int]) -> None:
    asked = trials(*((n,) for n in range(len(programs))))
    waiting = [Piece(name, [trial]) for name, trial in zip(programs, asked, strict=True)]
    compiled: list[set[str]] = [set() for _ in range(workers)]
    numbers_sent: list[int] = []
    turn = iter([*order, *range(1000)])
    while waiting:
        worker = next(turn) % workers
        taken = choose_pieces(waiting, compiled[worker], set().union(*compiled), workers, dict.fromkeys("ab", 0.01))
        if not taken:  # then others hold all that is left
            assert {piece.bucket_name for piece in waiting} <= set().union(*compiled) - compiled[worker]
            continue
        assert len({piece.bucket_name for piece in taken}) == 1
        compiled[worker].add(taken[0].bucket_name)
        waiting = [piece for piece in waiting if piece not in taken]
        numbers_sent += [trial.number for piece in taken for trial in piece.trials]
    assert sorted(numbers_sent) == list(range(len(programs)))
