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
    unfinished: deque[Trial] = field(default_factory=deque[Trial])
    """Trials that were sent to it and have not come back, in order."""
    programs: set[str] = field(default_factory=set[str])
    """Names of the programs whose trials it has run."""
    memory_kills: int = 0
    """Processes of this machine that the kernel had killed because memory ran out, when it last got work."""


@dataclass(eq=False)
class _Work:
    """The remaining work of a run."""

    split: Callable[[Sequence[Trial]], list[Piece]]
    waiting: list[Piece] = field(default_factory=list[Piece])
    program: dict[int, str] = field(default_factory=dict[int, str])
    """The program's name, by trial number."""
    suspects: deque[list[Trial]] = field(default_factory=deque[list[Trial]])
    """Cohorts whose worker died; each is run on its own."""
    deaths: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    """Penalty points for the deaths of its workers, by trial number."""
    greedy: set[int] = field(default_factory=set[int])
    """Trials whose worker died because memory ran out: they run while no other worker runs."""

    def is_greedy(self, trials: Iterable[Trial]) -> bool:
        """Whether one of the trials must run while no other worker runs."""
        return any(trial.number in self.greedy for trial in trials)


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
    _log: Path | None = field(default=None, init=False, repr=False)
    _variables: dict[str, str] = field(default_factory=dict[str, str], init=False, repr=False)
    _alive: list[Worker] = field(default_factory=list[Worker], init=False, repr=False)
    _seconds: dict[str, float] = field(default_factory=dict[str, float], init=False, repr=False)

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
        self._log = directory / "log.txt"
        assert self.workers is not None
        # Taken before a tracker's thread can be at work on it.
        self._variables = {**os.environ, **compilation_cache()}
        self._alive = self._alive or [self._start(slot) for slot in range(self.workers)]

    def run(self, objective: Objective, trials: Sequence[Trial]) -> Iterator[Trial]:
        """Every trial exactly once with its outcome, as they finish. Raises: InputError as `check` does."""
        work = _Work(functools.partial(split_trials, objective, lanes=self._lanes(objective)))
        work.waiting = work.split(trials)
        packed = _pickle_objective(objective)  # after the split, which computes program names: workers get them too
        work.program = {trial.number: piece.program for piece in work.waiting for trial in piece.trials}
        while work.waiting or work.suspects or any(worker.unfinished for worker in self._alive):
            self._assign(packed, work)
            pipes: dict[Any, Worker] = {worker.pipe: worker for worker in self._alive}
            for pipe in wait(list(pipes)):
                worker = pipes[pipe]
                try:
                    answer = worker.pipe.recv_bytes()
                except (EOFError, OSError):
                    yield from self._replace_dead(worker, work)
                    continue
                if answer:
                    trial = cloudpickle.loads(answer)
                    worker.unfinished = deque(other for other in worker.unfinished if other.number != trial.number)
                    if trial.outcome is not None and (name := work.program.get(trial.number)) is not None:
                        self._seconds[name] = trial.outcome.seconds.get("train", 0.0)
                    yield trial

    def _assign(self, packed: bytes, work: _Work) -> None:
        """Sends idle workers their next trials; suspects go alone."""
        assert self.workers is not None
        for slot in range(self.workers):
            if slot == len(self._alive):
                if not work.waiting and not work.suspects:
                    return
                self._alive.append(self._start(slot))
            worker = self._alive[slot]
            if worker.unfinished or not (work.waiting or work.suspects):
                continue
            worker.unfinished = deque(self._choose_trials(worker, work))
            worker.memory_kills = _count_memory_kills()
            if not worker.unfinished:
                continue
            # A worker that has just died cannot be written to; its pipe reports that to `run`.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if worker.objective != packed:
                    worker.pipe.send_bytes(cloudpickle.dumps(("objective", packed)))
                    worker.objective = packed
                    worker.programs &= {work.program[trial.number] for trial in worker.unfinished}
                worker.pipe.send_bytes(cloudpickle.dumps(("trials", list(worker.unfinished))))

    def _lanes(self, objective: Objective) -> int | None:
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
        busy = [other for other in self._alive if other.unfinished]
        if any(work.is_greedy(other.unfinished) for other in busy):
            return ()
        for index, suspects in enumerate(work.suspects):
            if not work.is_greedy(suspects):
                del work.suspects[index]
                return suspects
        if work.waiting:
            return self._take_pieces(worker, work.waiting)
        if busy:
            return ()
        for slot, other in enumerate(self._alive):  # new workers free the memory of the old ones
            if other is not worker:
                _end_worker(other)
                self._alive[slot] = self._start(slot)
        return work.suspects.popleft()

    def _take_pieces(self, worker: Worker, waiting: list[Piece]) -> list[Trial]:
        """Takes the pieces that suit a worker best out of `waiting`."""
        programs = {piece.program for piece in waiting}
        started = {name for name in programs if any(name in other.programs for other in self._alive)}
        pieces = choose_pieces(waiting, worker.programs, started, self.workers or 1, self._seconds)
        ids = set(map(id, pieces))
        waiting[:] = [piece for piece in waiting if id(piece) not in ids]
        worker.programs.update(piece.program for piece in pieces)
        return [trial for piece in pieces for trial in piece.trials]

    def _replace_dead(self, worker: Worker, work: _Work) -> Iterator[Trial]:
        """Replaces a dead worker: its first unfinished piece is suspected, the others wait again."""
        code = worker.process.wait()
        self._alive[self._alive.index(worker)] = self._start(self._alive.index(worker))
        if not worker.unfinished:
            return
        first, *rest = work.split(list(worker.unfinished))
        work.waiting[:0] = rest
        no_memory = _count_memory_kills() > worker.memory_kills
        outside = code == -signal.SIGKILL and not no_memory
        work.greedy |= {trial.number for trial in first.trials if no_memory}
        for trial in first.trials:
            work.deaths.setdefault(trial.number, []).append(OUTSIDE_KILL_POINTS if outside else CRASH_POINTS)
        points = work.deaths[first.trials[0].number]
        if sum(points) < MAX_POINTS:
            work.suspects.append(first.trials)
        elif parts := _isolate(first.trials, no_memory):
            work.suspects.extend(parts)
        else:
            often = "twice" if len(points) == 2 else f"{len(points)} times"
            reason = f"crashed: the worker process died {often} ({_describe_death(code)}); log.txt has its last words"
            yield replace(first.trials[0], outcome=Outcome(error=reason))

    def _start(self, slot: int) -> Worker:
        driver_end, worker_end = socket.socketpair()
        with worker_end, self._open_log() as output:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "l2l.executors.worker", str(worker_end.fileno())],
                pass_fds=(worker_end.fileno(),),
                env=self._environment(slot),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        pipe = Connection(driver_end.detach())
        pipe.send_bytes(cloudpickle.dumps(("path", [os.getcwd() if entry == "" else entry for entry in sys.path])))
        return Worker(process, pipe)

    def _open_log(self) -> IO[bytes]:
        return open(self._log or os.devnull, "ab")

    def _environment(self, slot: int) -> dict[str, str]:
        cards = gpus()
        # NPROC fixes the number of XLA's CPU threads, and with it the last bit of every sum.
        pinned = {"NPROC": str(self.threads)}
        if cards and self.workers != 1:  # one alone has them all
            pinned["CUDA_VISIBLE_DEVICES"] = cards[slot % len(cards)]
        return {**(self._variables or {**os.environ, **compilation_cache()}), **pinned}

    def close(self) -> None:
        """Ends the workers at once; trials that they were running have no outcome."""
        for worker in self._alive:
            _end_worker(worker)
        self._alive.clear()


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


def _isolate(cohort: Sequence[Trial], no_memory: bool) -> list[list[Trial]]:
    """Each trial alone, in its cohort's program or, after that failed, in a program of its own; then nothing."""
    if len(cohort) > 1 and not no_memory:
        return [[trial] for trial in cohort]
    if len(cohort[0].cohort) > 1:
        return [[replace(trial, cohort=(trial.number,))] for trial in cohort]
    return []


def _count_memory_kills() -> int:
    """How many processes the kernel has killed since its start because memory ran out; 0 if unknown."""
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/vmstat").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0


def _describe_death(code: int) -> str:
    return f"signal {-code}, {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
