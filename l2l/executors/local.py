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
from l2l.executors.scheduling import Piece, choose, pieces
from l2l.machine import LANES, compilation_cache, cores, gpus, has_accelerator, memory
from l2l.types import Objective, Outcome, Trial

OWN, OUTSIDE, ENOUGH = 5, 1, 10
"""What a death counts for against the cohort that was running, by who is to blame, and where patience ends: two deaths
of its own. A SIGKILL that was not the kernel's, for want of memory, comes from outside."""

ROOM = 2**31
"""Bytes of memory for which there is a worker on a CPU."""


@dataclass(eq=False)
class Worker:
    """A worker process and what it is busy with."""

    process: subprocess.Popen[bytes]
    pipe: Connection
    objective: bytes = b""
    """The pickled objective it holds."""
    owed: deque[Trial] = field(default_factory=deque[Trial])
    """Trials it was given and has not returned, in order."""
    programs: set[str] = field(default_factory=set[str])
    """Names of the programs that it has been given trials of."""
    memory_kills: int = 0
    """Processes of this machine that had been killed for want of memory when it was last given work."""


@dataclass(eq=False)
class _Work:
    """What is left of a run."""

    split: Callable[[Sequence[Trial]], list[Piece]]
    waiting: list[Piece] = field(default_factory=list[Piece])
    program: dict[int, str] = field(default_factory=dict[int, str])
    """By trial the name of its program."""
    suspects: deque[list[Trial]] = field(default_factory=deque[list[Trial]])
    """Trials whose worker died, each to be run alone."""
    deaths: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    """By trial what the deaths of its workers count for."""
    greedy: set[int] = field(default_factory=set[int])
    """Trials whose worker died for want of memory: they run beside nobody."""

    def is_greedy(self, trials: Iterable[Trial]) -> bool:
        """Whether one of these must run beside nobody."""
        return any(trial.number in self.greedy for trial in trials)


@dataclass(eq=False)
class Local:
    """Runs cohorts in `workers` processes of `threads` CPU threads each (an even share).

    There is one for each NVIDIA GPU (one alone has all of them), one for accelerators of another kind, or one for
    each core of a CPU where there are 2 GiB of memory for it: programs that share a process slow each other down by
    a fifth. Each worker goes on with what it has compiled as long as it can.

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
            self.workers or len(gpus()) or (1 if has_accelerator() else max(min(cores(), memory() // ROOM), 1))
        )
        self.threads = self.threads or max(cores() // self.workers, 1)

    def check(self, objective: Objective) -> None:
        """Refuses an objective that cannot be pickled. Raises: InputError."""
        _packed(objective)

    def start(self, directory: Path) -> None:
        """Starts the workers, which get ready while the driver does; they print to `directory / "log.txt"`."""
        self._log = directory / "log.txt"
        assert self.workers is not None
        # Taken before a tracker's thread can be at work on it.
        self._variables = {**os.environ, **compilation_cache()}
        self._alive = self._alive or [self._start(slot) for slot in range(self.workers)]

    def run(self, objective: Objective, trials: Sequence[Trial]) -> Iterator[Trial]:
        """Every trial exactly once with its outcome, as they finish. Raises: InputError as `check` does."""
        work = _Work(functools.partial(pieces, objective, lanes=self._lanes(objective)))
        work.waiting = work.split(trials)
        packed = _packed(objective)  # now it knows its programs, and workers need not find them out again
        work.program = {trial.number: piece.program for piece in work.waiting for trial in piece.trials}
        while work.waiting or work.suspects or any(worker.owed for worker in self._alive):
            self._assign(packed, work)
            pipes: dict[Any, Worker] = {worker.pipe: worker for worker in self._alive}
            for pipe in wait(list(pipes)):
                worker = pipes[pipe]
                try:
                    answer = worker.pipe.recv_bytes()
                except (EOFError, OSError):
                    yield from self._bury(worker, work)
                    continue
                if answer:
                    trial = cloudpickle.loads(answer)
                    worker.owed = deque(each for each in worker.owed if each.number != trial.number)
                    if trial.outcome is not None and (name := work.program.get(trial.number)) is not None:
                        self._seconds[name] = trial.outcome.seconds.get("train", 0.0)
                    yield trial

    def _assign(self, packed: bytes, work: _Work) -> None:
        """Gives idle workers their next trials; those under suspicion go alone."""
        assert self.workers is not None
        for slot in range(self.workers):
            if slot == len(self._alive):
                if not work.waiting and not work.suspects:
                    return
                self._alive.append(self._start(slot))
            worker = self._alive[slot]
            if worker.owed or not (work.waiting or work.suspects):
                continue
            worker.owed = deque(self._chosen(worker, work))
            worker.memory_kills = _memory_kills()
            if not worker.owed:
                continue
            # A worker that has just died cannot be written to; its pipe reports that to `run`.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if worker.objective != packed:
                    worker.pipe.send_bytes(cloudpickle.dumps(("objective", packed)))
                    worker.objective = packed
                    worker.programs &= {work.program[trial.number] for trial in worker.owed}
                worker.pipe.send_bytes(cloudpickle.dumps(("trials", list(worker.owed))))

    def _lanes(self, objective: Objective) -> int | None:
        """How many trials of a cohort stay together, None for all; an objective with `lanes` says it or leaves it."""
        if not isinstance(objective, LimitsLanes):
            return None
        lanes = objective.lanes
        if lanes is None:
            if has_accelerator() and self.workers == 1:
                return None
            lanes = LANES if has_accelerator() else 1
        return 1 << (lanes.bit_length() - 1)

    def _chosen(self, worker: Worker, work: _Work) -> Sequence[Trial]:
        """What an idle worker does next: suspects come first, but those that need all the memory last and alone."""
        busy = [each for each in self._alive if each.owed]
        if any(work.is_greedy(each.owed) for each in busy):
            return ()
        for at, suspects in enumerate(work.suspects):
            if not work.is_greedy(suspects):
                del work.suspects[at]
                return suspects
        if work.waiting:
            return self._next(worker, work.waiting)
        if busy:
            return ()
        for slot, each in enumerate(self._alive):  # the others give back what they hold
            if each is not worker:
                _end(each)
                self._alive[slot] = self._start(slot)
        return work.suspects.popleft()

    def _next(self, worker: Worker, waiting: list[Piece]) -> list[Trial]:
        """Takes what suits a worker."""
        begun = {
            name for name in {piece.program for piece in waiting} if any(name in each.programs for each in self._alive)
        }
        taken = choose(waiting, worker.programs, begun, self.workers or 1, self._seconds)
        gone = set(map(id, taken))
        waiting[:] = [piece for piece in waiting if id(piece) not in gone]
        worker.programs.update(piece.program for piece in taken)
        return [trial for piece in taken for trial in piece.trials]

    def _bury(self, worker: Worker, work: _Work) -> Iterator[Trial]:
        """Replaces a dead worker: the first that it had not finished is suspected, the others wait again."""
        code = worker.process.wait()
        self._alive[self._alive.index(worker)] = self._start(self._alive.index(worker))
        if not worker.owed:
            return
        first, *rest = work.split(list(worker.owed))
        work.waiting[:0] = rest
        no_memory = _memory_kills() > worker.memory_kills
        outside = code == -signal.SIGKILL and not no_memory
        work.greedy |= {trial.number for trial in first.trials if no_memory}
        for trial in first.trials:
            work.deaths.setdefault(trial.number, []).append(OUTSIDE if outside else OWN)
        counted = work.deaths[first.trials[0].number]
        if sum(counted) < ENOUGH:
            work.suspects.append(first.trials)
        elif parts := _alone(first.trials, no_memory):
            work.suspects.extend(parts)
        else:
            often = "twice" if len(counted) == 2 else f"{len(counted)} times"
            reason = f"crashed: the worker process died {often} ({_cause(code)}); log.txt has its last words"
            yield replace(first.trials[0], outcome=Outcome(error=reason))

    def _start(self, slot: int) -> Worker:
        ours, theirs = socket.socketpair()
        with theirs, self._output() as output:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "l2l.executors.worker", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env=self._environment(slot),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        pipe = Connection(ours.detach())
        pipe.send_bytes(cloudpickle.dumps(("path", [os.getcwd() if entry == "" else entry for entry in sys.path])))
        return Worker(process, pipe)

    def _output(self) -> IO[bytes]:
        return open(self._log or os.devnull, "ab")

    def _environment(self, slot: int) -> dict[str, str]:
        cards = gpus()
        # NPROC fixes the number of XLA's CPU threads, and with it the last bit of every sum.
        pinned = {"NPROC": str(self.threads)}
        if cards and self.workers != 1:  # one alone has them all
            pinned["CUDA_VISIBLE_DEVICES"] = cards[slot % len(cards)]
        return {**(self._variables or {**os.environ, **compilation_cache()}), **pinned}

    def close(self) -> None:
        """Ends the workers at once; what they were doing is lost to nobody but them."""
        for worker in self._alive:
            _end(worker)
        self._alive.clear()


def _packed(objective: Objective) -> bytes:
    try:
        return cloudpickle.dumps(objective)
    except Exception as error:
        raise InputError(
            f"the objective cannot be handed to a worker process ({type(error).__name__}: {error}); "
            "executor=inline runs it in this one."
        ) from error


def _end(worker: Worker) -> None:
    worker.pipe.close()
    worker.process.kill()
    worker.process.wait()


def _alone(cohort: Sequence[Trial], no_memory: bool) -> list[list[Trial]]:
    """Each trial alone, in its cohort's program or, where that is the trouble, in one of its own; then nothing."""
    if len(cohort) > 1 and not no_memory:
        return [[trial] for trial in cohort]
    if len(cohort[0].cohort) > 1:
        return [[replace(trial, cohort=(trial.number,))] for trial in cohort]
    return []


def _memory_kills() -> int:
    """How many processes the kernel has killed since it started because memory ran out; 0 where it does not say."""
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/vmstat").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0


def _cause(code: int) -> str:
    return f"signal {-code}, {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
