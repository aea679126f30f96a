"""Searches on a table, many seeds of each searcher: as one program where it can be, else one after the other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from l2l import machine
from l2l.encoding import unbuilt
from l2l.errors import SearchError
from l2l.interrupts import interruptible
from l2l.objectives.benchmark_table import Table
from l2l.searchers.core.base import Coded
from l2l.types import ASK, Outcome, Searcher, Status, Trial

PART = 5
"""Seeds of a program: with more of them what each step works on leaves a core's cache, and workers idle at the end."""


class Found(NamedTuple):
    """What the searches of one searcher found."""

    rows: npt.NDArray[np.int32]
    """[S, T]: the table's row of every trial."""
    seconds: float
    """Of one core, compilation included."""


@dataclass(frozen=True)
class Job:
    """Some seeds of one searcher."""

    name: str
    searcher: Searcher[Any]
    seeds: tuple[int, ...]


def searches(
    searchers: Mapping[str, Searcher[Any]],
    table: Table,
    seeds: Sequence[int],
    trials: int,
    batch: int,
    workers: int | None,
) -> dict[str, Found]:
    """What each searcher finds with each seed; `workers` processes (None: one a core, 0: this one) share the work."""
    jobs = [
        Job(name, searcher, tuple(seeds[first : first + PART]))
        for name, searcher in searchers.items()
        for first in range(0, len(seeds), PART)
    ]
    found: dict[tuple[str, int], Found] = {}
    count = machine.cores() if workers is None else workers
    if not count:
        found = {(job.name, job.seeds[0]): run(job, table, trials, batch) for job in jobs}
    else:
        with interruptible():
            found = _pooled(jobs, count, replace(table, space=unbuilt(table.space)), trials, batch)
    parts = {name: [found[name, job.seeds[0]] for job in jobs if job.name == name] for name in searchers}
    return {
        name: Found(np.concatenate([each.rows for each in some]), sum(each.seconds for each in some))
        for name, some in parts.items()
    }


def _pooled(jobs: Sequence[Job], count: int, *held: Any) -> dict[tuple[str, int], Found]:
    """What the jobs find in `count` processes. Raises: SearchError if one of these dies."""
    context, found = multiprocessing.get_context("spawn"), dict[tuple[str, int], Found]()
    count = min(count, len(jobs))
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(count, context, _prepare, (os.getpid(), *held))
    try:
        # Programs are compiled first, each by one process, and those that take longest, which in every list of ours are
        # the last, before the others; where there is a compilation cache they are found there by the other processes.
        begun = {job.name: job for job in reversed(jobs)}
        order = [*begun.values(), *(job for job in jobs if job is not begun[job.name])]
        futures = {pool.submit(_run, job): job for job in order}
        for future in as_completed(futures):
            job = futures[future]
            found[job.name, job.seeds[0]] = future.result()
    except BrokenProcessPool:
        raise SearchError(
            "a process of the comparison could not start or was killed, most often for want of memory: give fewer with "
            'workers=1. In Python call compare() below `if __name__ == "__main__":`, or with workers=0.'
        ) from None
    finally:
        if len(found) < len(jobs):  # nobody waits for the others
            for each in set(multiprocessing.active_children()) - before:
                each.kill()
        pool.shutdown(cancel_futures=True)
    return found


def run(job: Job, table: Table, trials: int, batch: int) -> Found:
    """The searches of one job."""
    import jax

    started = time.process_time()
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        if isinstance(job.searcher, Coded) and isinstance(table.rows, np.ndarray):
            from l2l.searchers.core.compiled_search import searched

            keys = jax.vmap(jax.random.key)(np.array(job.seeds, np.uint32))
            known = jax.numpy.asarray(table.rows), jax.numpy.asarray(table.rewards, np.float32)
            told = jax.tree.map(
                lambda leaf: np.broadcast_to(leaf, (len(keys), *np.shape(leaf))), job.searcher.source(table.encoding)
            )
            rows = np.asarray(searched(job.searcher, table.encoding, *known, keys, trials, batch, sources=told))
        else:
            rows = np.stack([alone(job.searcher, table, seed, trials, batch) for seed in job.seeds])
    return Found(rows, time.process_time() - started)


def alone(searcher: Searcher[Any], table: Table, seed: int, trials: int, batch: int) -> npt.NDArray[np.int32]:
    """The rows [T] that one search finds, asked and told as `l2l.search` does it."""
    import jax

    asks = jax.random.fold_in(jax.random.key(seed), ASK)
    state, rows = searcher.init(table.space, asks), np.zeros(0, np.int32)
    while (first := len(rows)) < trials:
        size = min(batch, trials - first)
        candidates = searcher.ask(state, jax.random.fold_in(asks, first + 1), size)
        found = table.find(candidates)
        cohort = tuple(range(first, first + size))
        state = searcher.tell(
            state,
            [
                Trial(
                    first + place, each, (first, size), cohort, Status.COMPLETE, Outcome(), (float(table.rewards[row]),)
                )
                for place, (each, row) in enumerate(zip(candidates, found, strict=True))
            ],
        )
        rows = np.concatenate([rows, found])
    return rows


_held: list[Any] = []


def _prepare(parent: int, *held: Any) -> None:
    """Before a worker's first job: one thread, no accelerator, and an end when the parent's comes."""
    import jax

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the parent's to answer
    threading.Thread(target=watch, daemon=True).start()
    jax.config.update("jax_platforms", "cpu")
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    _held[:] = held


def _run(job: Job) -> Found:
    table, trials, batch = _held
    return run(job, table, trials, batch)
