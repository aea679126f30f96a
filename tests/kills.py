"""Not a test: starts one search over and over, kills it at random instants, and holds what is left against a whole one.

Every life is the real command, and every death is SIGKILL, to the driver alone or to the whole process group.
A quarter of the kills falls into the start, some of them into the recovery from the kill before. `test_kill.py`
uses this; by hand:

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
from optuna.storages import RDBStorage

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

    def start(self, run: str) -> Life:
        """The command, as a process group of its own."""
        words = ["search", f"out={run}", f"trials={self.trials}", f"batch={self.batch}", *self.words]
        # A kill can leave a torn entry in JAX's cache of programs, so that it must not be anybody else's.
        cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(self.folder / "programs")) + "-kills"
        # The code under test is the one that this process would import.
        path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache, "PYTHONPATH": path}
        with (self.folder / f"{run}.txt").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", "from l2l.cli import main; main()", *words],
                cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        return Life(process, self.folder / run)


class Life(NamedTuple):
    """A process that runs the command."""

    process: subprocess.Popen[bytes]
    run: Path

    def inside(self) -> bool:
        """Whether it has taken the run folder."""
        with suppress(OSError, ValueError):
            return int((self.run / "lock").read_text()) == self.process.pid
        return False

    def ended(self) -> int:
        """How many trials have ended, read beside the driver."""
        with suppress(sqlite3.Error):
            uri = f"{(self.run / 'study.db').absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True)) as reader:
                return reader.execute("select count(*) from trials where state != 'RUNNING'").fetchone()[0]
        return 0

    def until(self, holds: Callable[[], bool]) -> bool:
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
        self.until(lambda: False)
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
        while (left := members(self.process.pid)) and time.monotonic() < deadline:
            time.sleep(0.01)
        for each in left:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        return len(left)


def members(session: int) -> list[int]:
    """The living processes of a session, orphans among them."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, its = entry.read_text().rpartition(")")[2].split()[:4]
            if int(its) == session and state != "Z":
                found.append(int(entry.parent.name))
    return found


class Kill(NamedTuple):
    """When a life is killed: a share of the usual time after so many trials have ended, or after its birth."""

    after: int | None
    share: float
    group: bool


def plan(kills: int, trials: int, seed: int) -> list[Kill]:
    """Random kills, a quarter of them in the start: of the first life, and of lives that recover."""
    draw = random.Random(seed)
    early = -(-kills // 4)
    after = sorted(draw.randrange(trials) for _ in range(kills - early))
    after[-1:] = [trials] * bool(after)  # the last one falls into the hand-over
    made = [Kill(each, draw.random(), draw.random() < 0.5) for each in after]
    for i in range(early):
        made.insert(draw.randint(1, len(made)) if i else 0, Kill(None, draw.random(), draw.random() < 0.5))
    return made


class Whole(NamedTuple):
    """A search that nothing interrupts, and how long its parts take, in seconds."""

    run: Path
    birth: float
    """Until the first trial has ended."""
    batch: float
    handover: float


def whole(search: Search) -> Whole:
    """Runs a search to its end. Raises: RuntimeError if it fails."""
    born, life = time.monotonic(), search.start("whole")
    life.until(lambda: life.ended() > 0)
    first = time.monotonic()
    life.until(lambda: life.ended() == search.trials)
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
        named = ("lost", "duplicated", "stuck", "differing", "orphans", "problems")
        return {name: value for name in named if (value := getattr(self, name))}

    def table(self) -> str:
        """The figures as Markdown."""
        names, figures = list(vars(self))[:8], list(map(str, vars(self).values()))[:8]
        lines = [f"| {' | '.join(row)} |" for row in (names, ["---"] * 8, figures)]
        return "\n".join([*lines, f"ended trials at each kill: {self.ended}", *self.problems])


def torment(search: Search, usual: Whole, kills: Sequence[Kill], run: str = "killed") -> Report:
    """Kills a search as planned, lets it end, and compares it with the whole one."""
    report, kept = Report(), dict[int, Any]()
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
        note(report, kept, rows(folder))
        report.ended.append(len(kept))
    code = search.start(run).finish()
    note(report, kept, rows(folder))
    return compare(report, folder, usual.run, code)


def torment_workers(search: Search, usual: Whole, kills: int, seed: int, run: str = "killed") -> Report:
    """Kills workers at random instants while one driver searches, and compares what it ends with with the whole one."""
    report, life, draw = Report(), search.start(run), random.Random(seed)
    # Several in a row hit the same trial, or the worker's start; the end is left alone, or it might come first.
    for after in sorted(draw.randrange(search.trials - 2 * search.batch) for _ in range(kills)):
        life.until(lambda after=after: life.ended() >= after)
        time.sleep(draw.random() * usual.batch)
        life.until(lambda: bool(workers(life.process.pid)))
        os.kill(draw.choice(workers(life.process.pid)), signal.SIGKILL)
        report.kills += 1
        report.ended.append(life.ended())
    code = life.finish()
    report.orphans = len(members(life.process.pid))
    return compare(report, life.run, usual.run, code)


def workers(session: int) -> list[int]:
    """The worker processes of a session."""
    found: list[int] = []
    for each in members(session):
        with suppress(OSError):
            if b"l2l.executors.worker" in Path(f"/proc/{each}/cmdline").read_bytes():
                found.append(each)
    return found


def _kill(life: Life, kill: Kill, share: float, search: Search, usual: Whole) -> int | None:
    """Lets a life be until it is killed: the number of orphans, or None if it ended by itself."""
    seconds = usual.birth
    if (target := kill.after) is not None:
        if not life.until(lambda: life.inside() and life.ended() >= target):
            return None
        seconds = usual.handover if target == search.trials else usual.batch
    return life.kill(kill.group, share * seconds)


def note(report: Report, kept: dict[int, Any], found: Sequence[Any]) -> None:
    """Counts the trials that had ended at an earlier kill and are no longer what they were, to the microsecond."""
    now = {row[0]: row for row in found if row[1] not in ("RUNNING", "WAITING")}
    report.lost += sum(now.get(number) != row for number, row in kept.items())
    kept.update(now)


def compare(report: Report, run: Path, other: Path, code: int = 0) -> Report:
    """The report with what is wrong with `run`, which ended with `code`, if `other` is right."""
    if code:
        report.problems.append(f"exit code {code}: {run.with_name(f'{run.name}.txt').read_text().strip()[-500:]}")
    found, expected = rows(run), rows(other)
    numbers, right = [row[0] for row in found], {row[0] for row in expected}
    report.lost += len(right - set(numbers))
    report.duplicated = len(numbers) - len(right & set(numbers))
    report.stuck = sum(row[1] in ("RUNNING", "WAITING") for row in found)
    pairs = [*zip(found, expected, strict=False), *zip(results(run), results(other), strict=True)]
    report.differing = sum(timeless(one) != timeless(another) for one, another in pairs)
    return report


def rows(run: Path) -> list[Any]:
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
            return [
                (each.number, each.state.name, each.values, each.params, each.user_attrs, each.intermediate_values)
                for each in trials
            ]
        finally:
            storage.remove_session()
            storage.engine.dispose()


def results(run: Path) -> list[Any]:
    """What the other files of a run folder hold."""
    found = {
        path.name: path.read_bytes() for name in ("trials.csv", "result.json", "best/*") for path in run.glob(name)
    }
    table = csv.DictReader(found.pop("trials.csv", b"").decode().splitlines())
    record = json.loads(found.pop("result.json", b"{}"))
    return [list(table), [record.get(name) for name in ("trials", "best", "test")], found]


def timeless(made: Any) -> Any:
    """The same without the seconds that something took."""
    if isinstance(made, dict):
        return {name: timeless(each) for name, each in made.items() if not str(name).startswith("seconds")}
    return [timeless(each) for each in made] if isinstance(made, list | tuple) else made


def main(kills: int = 20, seed: int = 0, *words: str, only_workers: bool = False) -> int:
    """Prints the table of a real search's kills; 1 if it is red."""
    with tempfile.TemporaryDirectory() as folder:
        search = Search(Path(folder), [*REAL, *words], trials=64 if only_workers else 32, batch=8)
        usual = whole(search)
        if only_workers:
            report = torment_workers(search, usual, kills, seed)
        else:
            report = torment(search, usual, plan(kills, search.trials, seed))
        print(report.table())
        return bool(report.wrong) or report.kills < kills


if __name__ == "__main__":
    given = sys.argv[1:]
    only_workers = given[:1] == ["workers"]
    given = given[only_workers:]
    sys.exit(main(*map(int, given[:2]), *given[2:], only_workers=only_workers))
