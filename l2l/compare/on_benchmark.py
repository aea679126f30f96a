"""Searches a tabular benchmark with many seeds of each searcher: as one program where it can be, else one by one."""

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
from l2l.encoding import strip_builder
from l2l.errors import SearchError
from l2l.objectives.benchmark_table import BenchmarkTable
from l2l.run.interrupts import interruptible
from l2l.searchers.core.base import ArraySearcher
from l2l.types import ASK, Outcome, Searcher, Status, Trial

SEEDS_PER_JOB = 5
"""Seeds of a job: with more of them the arrays of a step leave a core's cache, and workers idle at the end."""


class SeedRuns(NamedTuple):
    """The searches of one searcher with several seeds."""

    rows: npt.NDArray[np.int32]
    """[S, T]: the benchmark's row of every trial."""
    seconds: float
    """Core-seconds, compilation included."""


@dataclass(frozen=True)
class Job:
    """Some seeds of one searcher."""

    name: str
    searcher: Searcher[Any]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Budget:
    """What every job searches: the benchmark, and how many trials in batches of how many."""

    benchmark: BenchmarkTable
    trials: int
    batch: int


def search_benchmark(
    searchers: Mapping[str, Searcher[Any]],
    benchmark: BenchmarkTable,
    seeds: Sequence[int],
    trials: int,
    batch: int,
    workers: int | None,
) -> dict[str, SeedRuns]:
    """The searches of each searcher with each seed, in `workers` processes (None: one a core, 0: this one)."""
    jobs = [
        Job(name, searcher, tuple(seeds[first : first + SEEDS_PER_JOB]))
        for name, searcher in searchers.items()
        for first in range(0, len(seeds), SEEDS_PER_JOB)
    ]
    count = machine.cores() if workers is None else workers
    if not count:
        results = [run_job(job, Budget(benchmark, trials, batch)) for job in jobs]
    else:
        budget = Budget(replace(benchmark, space=strip_builder(benchmark.space)), trials, batch)
        with interruptible():
            results = _run_in_processes(jobs, budget, count)
    runs: dict[str, SeedRuns] = {}
    for name in searchers:
        parts = [result for job, result in zip(jobs, results, strict=True) if job.name == name]
        runs[name] = SeedRuns(np.concatenate([part.rows for part in parts]), sum(part.seconds for part in parts))
    return runs


def _run_in_processes(jobs: Sequence[Job], budget: Budget, count: int) -> list[SeedRuns]:
    """The results of the jobs, in their order, run in `count` processes. Raises: SearchError if one of these dies.

    Threads would not do: searchers such as Optuna's samplers are Python code, which one thread at a time runs.
    """
    results: dict[int, SeedRuns] = {}
    count = min(count, len(jobs))
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, context, _prepare_worker, (os.getpid(), budget))
    try:
        # The first job of each searcher compiles its program, which the compilation cache hands to the other processes.
        # Of these jobs the last come first: in all our lists the last searchers compile for longest.
        first_jobs = {job.name: index for index, job in reversed(list(enumerate(jobs)))}
        order = [*first_jobs.values(), *(index for index, job in enumerate(jobs) if index != first_jobs[job.name])]
        futures = {pool.submit(_run_in_worker, jobs[index]): index for index in order}
        for future in as_completed(futures):
            results[futures[future]] = future.result()
    except BrokenProcessPool:
        raise SearchError(
            "a process of the comparison could not start or was killed, most often because memory ran out: use fewer "
            'with workers=1. In Python call compare() below `if __name__ == "__main__":`, or with workers=0.'
        ) from None
    finally:
        if len(results) < len(jobs):  # nobody waits for the others
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
        pool.shutdown(cancel_futures=True)
    return [results[index] for index in range(len(jobs))]


def run_job(job: Job, budget: Budget) -> SeedRuns:
    """The searches of one job."""
    import jax

    benchmark, trials, batch = budget.benchmark, budget.trials, budget.batch
    start = time.process_time()
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        if isinstance(job.searcher, ArraySearcher) and isinstance(benchmark.rows, np.ndarray):
            from l2l.searchers.core.compiled_search import run_searches

            keys = jax.vmap(jax.random.key)(np.array(job.seeds, np.uint32))
            arrays = jax.numpy.asarray(benchmark.rows), jax.numpy.asarray(benchmark.rewards, np.float32)
            earlier = jax.tree.map(
                lambda leaf: np.broadcast_to(leaf, (len(keys), *np.shape(leaf))),
                job.searcher.read_earlier(benchmark.encoding),
            )
            rows = np.asarray(
                run_searches(job.searcher, benchmark.encoding, *arrays, keys, trials, batch, earlier=earlier)
            )
        else:
            rows = np.stack([search_alone(job.searcher, benchmark, seed, trials, batch) for seed in job.seeds])
    return SeedRuns(rows, time.process_time() - start)


def search_alone(
    searcher: Searcher[Any], benchmark: BenchmarkTable, seed: int, trials: int, batch: int
) -> npt.NDArray[np.int32]:
    """The rows [T] of one search, whose searcher is asked and told as `l2l.search` does it."""
    import jax

    key = jax.random.fold_in(jax.random.key(seed), ASK)
    state, rows = searcher.init(benchmark.space, key), np.zeros(0, np.int32)
    while (first := len(rows)) < trials:
        size = min(batch, trials - first)
        candidates = searcher.ask(state, jax.random.fold_in(key, first + 1), size)
        batch_rows = benchmark.find_rows(candidates)
        rewards = benchmark.rewards[batch_rows].tolist()
        cohort = tuple(range(first, first + size))
        state = searcher.tell(
            state,
            [
                Trial(number, candidate, (first, size), cohort, Status.COMPLETE, Outcome(), (reward,))
                for number, candidate, reward in zip(cohort, candidates, rewards, strict=True)
            ],
        )
        rows = np.concatenate([rows, batch_rows])
    return rows


_budgets: list[Budget] = []
"""The budget of this worker process; every job of a pool has the same."""


def _prepare_worker(parent: int, budget: Budget) -> None:
    """Prepares a worker process: one thread, no accelerator, and an end when the parent ends."""
    import jax

    def watch_parent() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers it
    threading.Thread(target=watch_parent, daemon=True).start()
    jax.config.update("jax_platforms", "cpu")
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    _budgets[:] = [budget]


def _run_in_worker(job: Job) -> SeedRuns:
    return run_job(job, _budgets[0])
