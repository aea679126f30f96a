"""Cohorts on the threads of one process: while one thread compiles, the others train what is compiled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Work = TypeVar("Work")
Answer = TypeVar("Answer")


def in_order(
    work: Sequence[Work],
    run: Callable[[Work], Answer],
    program: Callable[[Work], str],
    ready: Callable[[str], bool],
    threads: int,
) -> Iterator[Answer]:
    """The answers in the order of the work; each thread takes what suits it best.

    `program` names the program that a piece needs, and `ready` says whether it is there. Raises what `run` raised, in
    the place of its answer.
    """
    waiting = list(range(len(work)))
    names = [program(each) for each in work]
    begun: set[str] = set()
    answers: list[Future[Answer]] = [Future() for _ in work]
    lock = threading.Lock()
    compiling = 0

    def choose() -> tuple[int, bool] | None:
        nonlocal compiling
        with lock:
            if not waiting:
                return None
            done = next((at for at in waiting if ready(names[at])), None)
            new = next((at for at in waiting if names[at] not in begun and not ready(names[at])), None)
            if new is not None and (done is None or compiling == 0):
                chosen, fresh = new, True
            else:
                chosen, fresh = (waiting[0] if done is None else done), False
            waiting.remove(chosen)
            begun.add(names[chosen])
            compiling += fresh
            return chosen, fresh

    def serve() -> None:
        nonlocal compiling
        while (chosen := choose()) is not None:
            at, fresh = chosen
            try:
                answers[at].set_result(run(work[at]))
            except BaseException as error:
                answers[at].set_exception(error)
            finally:
                with lock:
                    compiling -= fresh

    with ThreadPoolExecutor(threads, "train") as pool:
        for _ in range(min(threads, len(work))):
            pool.submit(serve)
        try:
            for answer in answers:
                yield answer.result()
        finally:  # whoever stops listening ends the work that has not begun
            with lock:
                waiting.clear()
