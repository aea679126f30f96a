"""Trials in worker processes of this machine, one for each GPU or core; one that dies is replaced."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any

import cloudpickle

from l2l.abilities import LimitsLanes
from l2l.errors import InputError, check_integer
from l2l.executors.scheduling import Piece, choose_pieces, split_trials
from l2l.machine import LANES, compilation_cache, cores, gpus, has_accelerator, memory
from l2l.types import Objective, Outcome, Trial

CRASH_POINTS, OUTSIDE_KILL_POINTS, MAX_POINTS = 5, 1, 10
"""Penalty points of a trial for each death of its worker, by cause; at `MAX_POINTS` the trial fails. A SIGKILL is an
outside kill, unless the kernel sent it because memory ran out."""

WORKER_BYTES = 2**31
"""Bytes of memory for each worker on a CPU."""


@dataclass(eq=False)
class Worker:
    """A worker process and its current work."""

    process: subprocess.Popen[bytes]
    pipe: Connection
    objective: bytes = b""
    """The pickled objective that it has."""
    unfinished_trials: deque[Trial] = field(default_factory=deque[Trial])
    """Trials that were sent to it and have not come back, in order."""
    bucket_names: set[str] = field(default_factory=set[str])
    """The buckets whose trials it has run: it has compiled their programs."""
    memory_kills: int = 0
    """Processes of this machine that the kernel had killed because memory ran out, when it last got work."""


@dataclass(eq=False)
class _Work:
    """The remaining work of a run."""

    split: Callable[[Sequence[Trial]], list[Piece]]
    waiting_pieces: list[Piece] = field(default_factory=list[Piece])
    bucket_names: dict[int, str] = field(default_factory=dict[int, str])
    """The bucket's name, by trial number."""
    suspect_cohorts: deque[list[Trial]] = field(default_factory=deque[list[Trial]])
    """Cohorts whose worker died; each is run on its own."""
    death_points: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    """Penalty points for the deaths of its workers, by trial number."""
    greedy_numbers: set[int] = field(default_factory=set[int])
    """Numbers of the trials whose worker died because memory ran out: they run while no other worker runs."""

    def is_greedy(self, trials: Iterable[Trial]) -> bool:
        """Whether one of the trials must run while no other worker runs."""
        return any(trial.number in self.greedy_numbers for trial in trials)


@dataclass(eq=False)
class Local:
    """Runs cohorts in `workers` processes of `threads` CPU threads each (by default an even share of the cores).

    By default there is a worker for each NVIDIA GPU (a single worker has all of them), one worker for accelerators of
    another kind, or one for each CPU core with 2 GiB of memory: programs that share a process slow each other down by
    a fifth. A worker continues with the programs that it has compiled as long as it can.

    A worker that dies while it runs a cohort is replaced, and the cohort is run once more on its own; if the
    new worker dies too, so is each of its trials, and one that dies alone fails with the signal as the reason.
    Where memory ran out, it has the machine to itself, and a trial alone is one in a cohort of its own; otherwise
    its program keeps its lanes as long as it can, so that the companions of a candidate which kills its worker
    give what they always give. A worker that is killed from outside is no fault of a trial's, up to ten times.

    Raises: InputError if `workers` or `threads` is not at least 1.
    """

    workers: int | None = None
    threads: int | None = None
    in_process = False
    _log_file: Path | None = field(default=None, init=False, repr=False)
    _variables: dict[str, str] = field(default_factory=dict[str, str], init=False, repr=False)
    """The environment variables of the workers."""
    _worker_processes: list[Worker] = field(default_factory=list[Worker], init=False, repr=False)
    _trial_seconds: dict[str, float] = field(default_factory=dict[str, float], init=False, repr=False)
    """By bucket name: what its last trial took."""

    def __post_init__(self) -> None:
        for name in ("workers", "threads"):
            check_integer(f"executor.{name}", getattr(self, name), 1, optional=True)
        self.workers = (
            self.workers or len(gpus()) or (1 if has_accelerator() else max(min(cores(), memory() // WORKER_BYTES), 1))
        )
        self.threads = self.threads or max(cores() // self.workers, 1)

    def check(self, objective: Objective) -> None:
        """Refuses an objective that cannot be pickled. Raises: InputError."""
        _pickle_objective(objective)

    def start(self, directory: Path) -> None:
        """Starts the workers, which get ready while the driver does; they print to `directory / "log.txt"`."""
        self._log_file = directory / "log.txt"
        assert self.workers is not None
        # Taken before a tracker's thread can be at work on it.
        self._variables = {**os.environ, **compilation_cache()}
        self._worker_processes = self._worker_processes or [self._start_worker(slot) for slot in range(self.workers)]

    def run(self, objective: Objective, trials: Sequence[Trial]) -> Iterator[Trial]:
        """Every trial exactly once with its outcome, as they finish. Raises: InputError as `check` does."""
        work = _Work(functools.partial(split_trials, objective, lanes=self._choose_lanes(objective)))
        work.waiting_pieces = work.split(trials)
        # After the split, in which the objective computes what names buckets: workers get that too.
        pickled_objective = _pickle_objective(objective)
        work.bucket_names = {trial.number: piece.bucket_name for piece in work.waiting_pieces for trial in piece.trials}
        while (
            work.waiting_pieces
            or work.suspect_cohorts
            or any(worker.unfinished_trials for worker in self._worker_processes)
        ):
            self._assign(pickled_objective, work)
            workers_by_pipe: dict[Any, Worker] = {worker.pipe: worker for worker in self._worker_processes}
            for pipe in wait(list(workers_by_pipe)):
                worker = workers_by_pipe[pipe]
                try:
                    answer = worker.pipe.recv_bytes()
                except (EOFError, OSError):
                    yield from self._replace_dead(worker, work)
                    continue
                if answer:
                    trial = cloudpickle.loads(answer)
                    worker.unfinished_trials = deque(
                        other for other in worker.unfinished_trials if other.number != trial.number
                    )
                    if trial.outcome is not None and (name := work.bucket_names.get(trial.number)) is not None:
                        self._trial_seconds[name] = trial.outcome.seconds.get("train", 0.0)
                    yield trial

    def _assign(self, pickled_objective: bytes, work: _Work) -> None:
        """Sends idle workers their next trials; suspects go alone."""
        assert self.workers is not None
        for slot in range(self.workers):
            if slot == len(self._worker_processes):
                if not work.waiting_pieces and not work.suspect_cohorts:
                    return
                self._worker_processes.append(self._start_worker(slot))
            worker = self._worker_processes[slot]
            if worker.unfinished_trials or not (work.waiting_pieces or work.suspect_cohorts):
                continue
            worker.unfinished_trials = deque(self._choose_trials(worker, work))
            worker.memory_kills = _count_memory_kills()
            if not worker.unfinished_trials:
                continue
            # A worker that has just died cannot be written to; its pipe reports that to `run`.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if worker.objective != pickled_objective:
                    worker.pipe.send_bytes(cloudpickle.dumps(("objective", pickled_objective)))
                    worker.objective = pickled_objective
                    worker.bucket_names &= {work.bucket_names[trial.number] for trial in worker.unfinished_trials}
                worker.pipe.send_bytes(cloudpickle.dumps(("trials", list(worker.unfinished_trials))))

    def _choose_lanes(self, objective: Objective) -> int | None:
        """How many trials of a cohort stay together, None for all; an objective's own `lanes` decide."""
        if not isinstance(objective, LimitsLanes):
            return None
        lanes = objective.lanes
        if lanes is None:
            if has_accelerator() and self.workers == 1:
                return None
            lanes = LANES if has_accelerator() else 1
        return 1 << (lanes.bit_length() - 1)

    def _choose_trials(self, worker: Worker, work: _Work) -> Sequence[Trial]:
        """The next trials of an idle worker: suspects first, but those that need all memory last and alone."""
        busy_workers = [other for other in self._worker_processes if other.unfinished_trials]
        if any(work.is_greedy(other.unfinished_trials) for other in busy_workers):
            return ()
        for index, cohort in enumerate(work.suspect_cohorts):
            if not work.is_greedy(cohort):
                del work.suspect_cohorts[index]
                return cohort
        if work.waiting_pieces:
            return self._take_pieces(worker, work.waiting_pieces)
        if busy_workers:
            return ()
        for slot, other in enumerate(self._worker_processes):  # new workers free the memory of the old ones
            if other is not worker:
                _end_worker(other)
                self._worker_processes[slot] = self._start_worker(slot)
        return work.suspect_cohorts.popleft()

    def _take_pieces(self, worker: Worker, waiting_pieces: list[Piece]) -> list[Trial]:
        """Takes the pieces that suit a worker best out of the waiting ones."""
        started_buckets = set[str]().union(*(other.bucket_names for other in self._worker_processes))
        pieces = choose_pieces(
            waiting_pieces, worker.bucket_names, started_buckets, self.workers or 1, self._trial_seconds
        )
        piece_ids = set(map(id, pieces))
        waiting_pieces[:] = [piece for piece in waiting_pieces if id(piece) not in piece_ids]
        worker.bucket_names.update(piece.bucket_name for piece in pieces)
        return [trial for piece in pieces for trial in piece.trials]

    def _replace_dead(self, worker: Worker, work: _Work) -> Iterator[Trial]:
        """Replaces a dead worker: its first unfinished piece is suspected, the others wait again."""
        exit_code = worker.process.wait()
        self._worker_processes[self._worker_processes.index(worker)] = self._start_worker(
            self._worker_processes.index(worker)
        )
        if not worker.unfinished_trials:
            return
        suspect_piece, *other_pieces = work.split(list(worker.unfinished_trials))
        trials = suspect_piece.trials
        work.waiting_pieces[:0] = other_pieces
        ran_out_of_memory = _count_memory_kills() > worker.memory_kills
        was_killed_outside = exit_code == -signal.SIGKILL and not ran_out_of_memory
        work.greedy_numbers |= {trial.number for trial in trials if ran_out_of_memory}
        new_points = OUTSIDE_KILL_POINTS if was_killed_outside else CRASH_POINTS
        for trial in trials:
            work.death_points.setdefault(trial.number, []).append(new_points)
        points = work.death_points[trials[0].number]
        if sum(points) < MAX_POINTS:
            work.suspect_cohorts.append(trials)
        elif cohorts := _isolate(trials, ran_out_of_memory):
            work.suspect_cohorts.extend(cohorts)
        else:
            times = "twice" if len(points) == 2 else f"{len(points)} times"
            death = _describe_death(exit_code)
            reason = f"crashed: the worker process died {times} ({death}); log.txt has its last words"
            yield replace(trials[0], outcome=Outcome(error=reason))

    def _start_worker(self, slot: int) -> Worker:
        driver_end, worker_end = socket.socketpair()
        with worker_end, self._open_log() as output:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "l2l.executors.worker", str(worker_end.fileno())],
                pass_fds=(worker_end.fileno(),),
                env=self._make_environment(slot),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        pipe = Connection(driver_end.detach())
        pipe.send_bytes(cloudpickle.dumps(("path", [os.getcwd() if entry == "" else entry for entry in sys.path])))
        return Worker(process, pipe)

    def _open_log(self) -> IO[bytes]:
        return open(self._log_file or os.devnull, "ab")

    def _make_environment(self, slot: int) -> dict[str, str]:
        gpu_names = gpus()
        # NPROC fixes the number of XLA's CPU threads, and with it the last bit of every sum.
        variables = {"NPROC": str(self.threads)}
        if gpu_names and self.workers != 1:  # one alone has them all
            variables["CUDA_VISIBLE_DEVICES"] = gpu_names[slot % len(gpu_names)]
        return {**(self._variables or {**os.environ, **compilation_cache()}), **variables}

    def close(self) -> None:
        """Ends the workers at once; trials that they were running have no outcome."""
        for worker in self._worker_processes:
            _end_worker(worker)
        self._worker_processes.clear()


def _pickle_objective(objective: Objective) -> bytes:
    try:
        return cloudpickle.dumps(objective)
    except Exception as error:
        raise InputError(
            f"the objective cannot be handed to a worker process ({type(error).__name__}: {error}); "
            "executor=inline runs it in this one."
        ) from error


def _end_worker(worker: Worker) -> None:
    worker.pipe.close()
    worker.process.kill()
    worker.process.wait()


def _isolate(trials: Sequence[Trial], ran_out_of_memory: bool) -> list[list[Trial]]:
    """Each trial alone, in its cohort's program or, after that failed, in a program of its own; then nothing."""
    if len(trials) > 1 and not ran_out_of_memory:
        return [[trial] for trial in trials]
    if len(trials[0].cohort) > 1:
        return [[replace(trial, cohort=(trial.number,))] for trial in trials]
    return []


def _count_memory_kills() -> int:
    """How many processes the kernel has killed since its start because memory ran out; 0 if unknown."""
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/vmstat").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0


def _describe_death(exit_code: int) -> str:
    return f"signal {-exit_code}, {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit code {exit_code}"
