"""The scheduler: results in order, every program compiled once, and an exception in place of its own result."""

from __future__ import annotations

import threading

import pytest

from l2l.engine.scheduler import run_in_order


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_jobs(threads: int) -> None:
    compiled: set[str] = set()
    lock = threading.Lock()

    def run(job: int) -> int:
        with lock:
            compiled.add(str(job % 4))
        return job * job

    results = list(run_in_order(range(40), run, lambda job: str(job % 4), compiled.__contains__, threads))
    assert results == [job * job for job in range(40)]


def test_one_thread_compiles_while_another_trains() -> None:
    compiled, both = {"old"}, threading.Barrier(2, timeout=30)

    def run(job: str) -> str:
        both.wait()  # only passed if a new program and an old one run at the same time
        compiled.add(job)
        return job

    assert list(run_in_order(["old", "new"], run, lambda job: job, compiled.__contains__, 2)) == ["old", "new"]


def test_an_exception_belongs_to_its_job() -> None:
    def run(job: int) -> int:
        if job == 2:
            raise ValueError("the third one")
        return job

    results = run_in_order(range(4), run, str, lambda name: True, 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="the third one"):
        next(results)


def test_no_jobs_give_no_results() -> None:
    assert list(run_in_order([], lambda job: job, str, lambda name: True, 3)) == []


def test_a_caller_that_stops_early_drops_the_jobs_that_have_not_begun() -> None:
    begun: list[int] = []
    closing = threading.Event()

    def run(job: int) -> None:
        begun.append(job)
        if job:  # none ends before the caller stops, and only a few before it has said so
            closing.wait()
            threading.Event().wait(0.01)

    results = run_in_order(range(1000), run, str, lambda name: True, 1)
    next(results)
    closing.set()
    results.close()
    assert len(begun) < 1000
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("train")]
