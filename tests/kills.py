"""Not a test: starts one search over and over, kills it at random instants, and holds what is left against a whole one.

Every life is the real command, and every death is SIGKILL, to the driver alone or to the whole process group.
A quarter of the kills falls into the start, some of them into the recovery from the kill before. `test_kill.py`
uses this, and has most lives forked by a server (see `forks.py`), to be quick. By hand all are new processes:

    python tests/kills.py [KILLS [SEED [OVERRIDES]]]            # real trainings; prints a table, exits with 1 if red
    python tests/kills.py 4 0 searcher._target_=toys.Forgetful  # the negative control: no replay
    python tests/kills.py workers [KILLS [SEED [OVERRIDES]]]    # kills the workers of one driver, which goes on
"""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from forks import WORKER, Fork, Server
from optuna.storages import RDBStorage

from l2l.machine import compilation_cache

COMMON = [
    "task=digits", "searcher=reinforce", "executor=local", "store=sqlite", "tracker=none", "space=mlp",
    "space.widths=[8,16]", "space.depth=[1,2]", "space.activations=[relu]", "space.normalisations=[none]",
    "space.optimizers=[adamw]", "space.batch_sizes=[64]",
]  # fmt: skip
REAL = [*COMMON, "objective.epochs=1", "final.seeds=1"]  # trains
TOY = [*COMMON, "objective._target_=toys.Hashed", "~final"]  # only looks as if: see `toys.py`
RUNGS = [*TOY, "objective._target_=toys.Curved", "rungs=asha"]  # most trials are stopped on the way
# The negative controls: without replay, and without the trials that were running.
FORGETFUL, CARELESS = "searcher._target_=toys.Forgetful", "store._target_=toys.Careless"
PATIENCE = 300.0  # seconds after which a life that neither ends nor gets anywhere is stuck


class Search(NamedTuple):
    """A search as it is typed; `folder` holds the run folders."""

    folder: Path
    words: Sequence[str]
    trials: int
    batch: int
    server: Server | None = None
    """What forks its lives."""

    def start(self, run: str) -> Life:
        """The command, as a process group of its own."""
        words = ["search", f"out={run}", f"trials={self.trials}", f"batch={self.batch}", *self.words]
        with (self.folder / f"{run}.txt").open("ab") as output:
            if self.server is not None:
                return Life(self.server.start(words, self.folder, environment(), output.fileno()), self.folder / run)
            process = subprocess.Popen(
                [sys.executable, "-c", "from l2l.cli import main; main()", *words],
                cwd=self.folder, env=environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        return Life(process, self.folder / run)


def environment() -> dict[str, str]:
    """What a search has in its environment."""
    variables = {**os.environ, **compilation_cache()}
    # A kill can leave a torn entry in JAX's cache of programs, so that it must not be anybody else's.
    variables["JAX_COMPILATION_CACHE_DIR"] += "-kills"
    # The code under test is the one that this process would import.
    folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]
    return {**variables, "PYTHONPATH": os.pathsep.join(filter(None, folders))}


class Life(NamedTuple):
    """A process that runs the command."""

    process: subprocess.Popen[bytes] | Fork
    run: Path

    def has_lock(self) -> bool:
        """Whether it has taken the run folder."""
        with suppress(OSError, ValueError):
            return int((self.run / "lock").read_text()) == self.process.pid
        return False

    def count_ended(self) -> int:
        """How many trials have ended, read beside the driver."""
        with suppress(sqlite3.Error):
            uri = f"{(self.run / 'study.db').absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True)) as reader:
                return reader.execute("select count(*) from trials where state != 'RUNNING'").fetchone()[0]
        return 0

    def wait_until(self, holds: Callable[[], bool]) -> bool:
        """Waits until something holds: False if the process ends before. Raises: TimeoutError if neither comes."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > deadline:
                self.kill(group=True)
                raise TimeoutError(f"a search got nowhere within {PATIENCE:g} s")
            time.sleep(0.01)
        return True

    def finish(self) -> int:
        """The exit code."""
        self.wait_until(lambda: False)
        return self.process.returncode

    def kill(self, group: bool, after: float = 0.0) -> int | None:
        """Kills the driver or its group after some seconds: how many are left 5 seconds later, None if it had ended."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(after)
            return None
        (os.killpg if group else os.kill)(self.process.pid, signal.SIGKILL)
        if self.process.wait() != -signal.SIGKILL:
            return None
        deadline = time.monotonic() + 5.0
        while (left := list_members(self.process.pid)) and time.monotonic() < deadline:
            time.sleep(0.01)
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return len(left)


def list_members(session: int) -> list[int]:
    """The living processes of a session, orphans among them."""
    processes: list[int] = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, its = entry.read_text().rpartition(")")[2].split()[:4]
            if int(its) == session and state != "Z":
                processes.append(int(entry.parent.name))
    return processes


class Kill(NamedTuple):
    """When a life is killed: a share of the usual time after so many trials have ended, or after its birth."""

    after: int | None
    share: float
    group: bool


def plan_kills(kills: int, trials: int, seed: int) -> list[Kill]:
    """Random kills, a quarter of them in the start: of the first life, and of lives that recover."""
    generator = random.Random(seed)
    early = -(-kills // 4)
    after = sorted(generator.randrange(trials) for _ in range(kills - early))
    after[-1:] = [trials] * bool(after)  # the last one falls into the export of the winner
    planned = [Kill(count, generator.random(), generator.random() < 0.5) for count in after]
    for i in range(early):
        index = generator.randint(1, len(planned)) if i else 0
        planned.insert(index, Kill(None, generator.random(), generator.random() < 0.5))
    return planned


class Whole(NamedTuple):
    """A search that nothing interrupts, and how long its parts take, in seconds."""

    run: Path
    birth: float
    """Until the first trial has ended."""
    batch: float
    export: float


def run_whole(search: Search) -> Whole:
    """Runs a search to its end. Raises: RuntimeError if it fails."""
    born, life = time.monotonic(), search.start("whole")
    life.wait_until(lambda: life.count_ended() > 0)
    first = time.monotonic()
    life.wait_until(lambda: life.count_ended() == search.trials)
    last = time.monotonic()
    if code := life.finish():
        raise RuntimeError(f"exit code {code}: {(search.folder / 'whole.txt').read_text()}")
    return Whole(life.run, first - born, (last - first) * search.batch / search.trials, time.monotonic() - last)


@dataclass
class Report:
    """What the kills did."""

    kills: int = 0
    in_start: int = 0
    recoveries: int = 0  # those of the kills in the start that hit the recovery from the kill before
    lost: int = 0  # ended trials that were missing, or no longer the same, at any later kill or at the end
    duplicated: int = 0
    stuck: int = 0
    differing: int = 0  # trials and files with a value that is not the whole search's
    orphans: int = 0
    problems: list[str] = field(default_factory=list[str])
    ended: list[int] = field(default_factory=list[int])  # at each kill

    @property
    def wrong(self) -> dict[str, Any]:
        """What is not as it should be; empty if all is well."""
        names = ("lost", "duplicated", "stuck", "differing", "orphans", "problems")
        return {name: value for name in names if (value := getattr(self, name))}

    def table(self) -> str:
        """The figures as Markdown."""
        names, figures = list(vars(self))[:8], list(map(str, vars(self).values()))[:8]
        lines = [f"| {' | '.join(row)} |" for row in (names, ["---"] * 8, figures)]
        return "\n".join([*lines, f"ended trials at each kill: {self.ended}", *self.problems])


def kill_and_resume(search: Search, usual: Whole, kills: Sequence[Kill], run: str = "killed") -> Report:
    """Kills a search as planned, lets it end, and compares it with the whole one."""
    report, ended = Report(), dict[int, Any]()
    folder = search.folder / run
    for i, kill in enumerate(kills):
        share, life = kill.share, search.start(run)
        while (left := _kill(life, kill, share, search, usual)) is None:
            if life.process.returncode:
                return compare(report, folder, usual.run, life.process.returncode)
            share, life = share / 2, search.start(run)  # it was done before its time: again, on what it left
        report.kills += 1
        report.orphans += left
        report.in_start += kill.after is None
        report.recoveries += kill.after is None and i > 0
        count_lost(report, ended, read_trials(folder))
        report.ended.append(len(ended))
    code = search.start(run).finish()
    count_lost(report, ended, read_trials(folder))
    return compare(report, folder, usual.run, code)


def kill_workers(search: Search, usual: Whole, kills: int, seed: int, run: str = "killed") -> Report:
    """Kills workers at random instants while one driver searches, and compares what it ends with with the whole one."""
    report, life, generator = Report(), search.start(run), random.Random(seed)
    # Several in a row hit the same trial, or the worker's start; the end is left alone, or it might come first.
    for after in sorted(generator.randrange(search.trials - 2 * search.batch) for _ in range(kills)):
        life.wait_until(lambda after=after: life.count_ended() >= after)
        time.sleep(generator.random() * usual.batch)
        life.wait_until(lambda: bool(list_workers(life.process.pid)))
        os.kill(generator.choice(list_workers(life.process.pid)), signal.SIGKILL)
        report.kills += 1
        report.ended.append(life.count_ended())
    code = life.finish()
    report.orphans = len(list_members(life.process.pid))
    return compare(report, life.run, usual.run, code)


def list_workers(session: int) -> list[int]:
    """The worker processes of a session: programs of their own, or forks."""
    workers: list[int] = []
    for process in list_members(session):
        with suppress(OSError):
            folder = Path(f"/proc/{process}")
            is_program = b"l2l.executors.worker" in (folder / "cmdline").read_bytes()
            if is_program or (folder / "comm").read_text().strip() == WORKER:
                workers.append(process)
    return workers


def _kill(life: Life, kill: Kill, share: float, search: Search, usual: Whole) -> int | None:
    """Lets a life be until it is killed: the number of orphans, or None if it ended by itself."""
    seconds = usual.birth
    if (target := kill.after) is not None:
        if not life.wait_until(lambda: life.has_lock() and life.count_ended() >= target):
            return None
        seconds = usual.export if target == search.trials else usual.batch
    return life.kill(kill.group, share * seconds)


def count_lost(report: Report, ended: dict[int, Any], trials: Sequence[Any]) -> None:
    """Counts the trials that had ended at an earlier kill and are no longer what they were, to the microsecond."""
    now = {trial[0]: trial for trial in trials if trial[1] not in ("RUNNING", "WAITING")}
    report.lost += sum(now.get(number) != trial for number, trial in ended.items())
    ended.update(now)


def compare(report: Report, run: Path, other: Path, code: int = 0) -> Report:
    """The report with what is wrong with `run`, which ended with `code`, if `other` is right."""
    if code:
        report.problems.append(f"exit code {code}: {run.with_name(f'{run.name}.txt').read_text().strip()[-500:]}")
    trials, expected = read_trials(run), read_trials(other)
    numbers, right = [trial[0] for trial in trials], {trial[0] for trial in expected}
    report.lost += len(right - set(numbers))
    report.duplicated = len(numbers) - len(right & set(numbers))
    report.stuck = sum(trial[1] in ("RUNNING", "WAITING") for trial in trials)
    pairs = [*zip(trials, expected, strict=False), *zip(read_files(run), read_files(other), strict=True)]
    report.differing = sum(without_seconds(one) != without_seconds(another) for one, another in pairs)
    return report


def read_trials(run: Path) -> list[Any]:
    """A study's trials as Optuna reads them, from a copy, so that what a crash has left stays as it is."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for file in ("study.db", "study.db-wal"):
            if (run / file).exists():
                shutil.copy(run / file, copy)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = RDBStorage(f"sqlite:///{copy}/study.db")
        try:
            trials = optuna.load_study(study_name=None, storage=storage).trials if storage.get_all_studies() else []
            return [(t.number, t.state.name, t.values, t.params, t.user_attrs, t.intermediate_values) for t in trials]
        finally:
            storage.remove_session()
            storage.engine.dispose()


def read_files(run: Path) -> list[Any]:
    """What the other files of a run folder hold."""
    files = {
        path.name: path.read_bytes() for name in ("trials.csv", "result.json", "best/*") for path in run.glob(name)
    }
    lines = csv.DictReader(files.pop("trials.csv", b"").decode().splitlines())
    record = json.loads(files.pop("result.json", b"{}"))
    return [list(lines), [record.get(name) for name in ("trials", "best", "test")], files]


def without_seconds(value: Any) -> Any:
    """The same without the seconds that something took."""
    if isinstance(value, dict):
        return {name: without_seconds(item) for name, item in value.items() if not str(name).startswith("seconds")}
    return [without_seconds(item) for item in value] if isinstance(value, list | tuple) else value


def main(kills: int = 20, seed: int = 0, *words: str, only_workers: bool = False) -> int:
    """Prints the table of a real search's kills; 1 if it is red."""
    with tempfile.TemporaryDirectory() as folder:
        search = Search(Path(folder), [*REAL, *words], trials=64 if only_workers else 32, batch=8)
        usual = run_whole(search)
        if only_workers:
            report = kill_workers(search, usual, kills, seed)
        else:
            report = kill_and_resume(search, usual, plan_kills(kills, search.trials, seed))
        print(report.table())
        return bool(report.wrong) or report.kills < kills


if __name__ == "__main__":
    arguments = sys.argv[1:]
    only_workers = arguments[:1] == ["workers"]
    arguments = arguments[only_workers:]
    sys.exit(main(*map(int, arguments[:2]), *arguments[2:], only_workers=only_workers))
