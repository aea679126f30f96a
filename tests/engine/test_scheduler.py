"""The queue: answers in order, every program begun once, and an exception stays with its work."""

from __future__ import annotations

import threading

import pytest

from l2l.engine.scheduler import run_in_order


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_answers_come_in_the_order_of_the_work(threads: int) -> None:
    made: set[str] = set()
    lock = threading.Lock()

    def run(piece: int) -> int:
        with lock:
            made.add(str(piece % 4))
        return piece * piece

    found = list(run_in_order(range(40), run, lambda piece: str(piece % 4), made.__contains__, threads))
    assert found == [piece * piece for piece in range(40)]


def test_one_thread_compiles_while_another_trains() -> None:
    compiled, both = {"old"}, threading.Barrier(2, timeout=30)

    def run(piece: str) -> str:
        both.wait()  # only met if a new program and an old one are in hand at the same time
        compiled.add(piece)
        return piece

    assert list(run_in_order(["old", "new"], run, lambda piece: piece, compiled.__contains__, 2)) == ["old", "new"]


def test_an_exception_belongs_to_its_work() -> None:
    def run(piece: int) -> int:
        if piece == 2:
            raise ValueError("the third one")
        return piece

    answers = run_in_order(range(4), run, str, lambda name: True, 2)
    assert [next(answers), next(answers)] == [0, 1]
    with pytest.raises(ValueError, match="the third one"):
        next(answers)


def test_no_work_is_no_answer() -> None:
    assert list(run_in_order([], lambda piece: piece, str, lambda name: True, 3)) == []


def test_who_stops_listening_ends_what_has_not_begun() -> None:
    begun: list[int] = []
    closing = threading.Event()

    def run(piece: int) -> None:
        begun.append(piece)
        if piece:  # none ends before the listener goes, and then few before it has said so
            closing.wait()
            threading.Event().wait(0.01)

    answers = run_in_order(range(1000), run, str, lambda name: True, 1)
    next(answers)
    closing.set()
    answers.close()
    assert len(begun) < 1000
    assert not [each for each in threading.enumerate() if each.name.startswith("train")]
