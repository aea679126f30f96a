"""Runs jobs on the threads of one process: while one thread compiles, the others train what is compiled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_in_order(
    jobs: Sequence[Job],
    run: Callable[[Job], Result],
    name_program: Callable[[Job], str],
    is_compiled: Callable[[str], bool],
    threads: int,
) -> Iterator[Result]:
    """The results in the order of the jobs; each free thread takes the waiting job that suits best.

    That is the first job whose program nobody has begun to compile, unless another thread is compiling and there is a
    job whose program is compiled: then that one.

    Raises: what `run` raised, in place of the job's result.
    """
    waiting = list(range(len(jobs)))
    programs = [name_program(job) for job in jobs]
    started: set[str] = set()
    futures: list[Future[Result]] = [Future() for _ in jobs]
    lock = threading.Lock()
    compiling = 0

    def take_job() -> tuple[int, bool] | None:
        """The index of a waiting job, and whether its program is new."""
        nonlocal compiling
        with lock:
            if not waiting:
                return None
            compiled = next((index for index in waiting if is_compiled(programs[index])), None)
            new = next((i for i in waiting if programs[i] not in started and not is_compiled(programs[i])), None)
            if new is not None and (compiled is None or compiling == 0):
                index, is_new = new, True
            else:
                index, is_new = (waiting[0] if compiled is None else compiled), False
            waiting.remove(index)
            started.add(programs[index])
            compiling += is_new
            return index, is_new

    def serve() -> None:
        """Runs jobs until none is waiting."""
        nonlocal compiling
        while (taken := take_job()) is not None:
            index, is_new = taken
            try:
                futures[index].set_result(run(jobs[index]))
            except BaseException as error:
                futures[index].set_exception(error)
            finally:
                with lock:
                    compiling -= is_new

    with ThreadPoolExecutor(threads, "train") as pool:
        for _ in range(min(threads, len(jobs))):
            pool.submit(serve)
        try:
            for future in futures:
                yield future.result()
        finally:  # if the caller stops early, jobs that have not started are dropped
            with lock:
                waiting.clear()
