"""Not a test: drives a toy search and dies on command; `test_crashes.py` runs it as a process of its own.

Every state that a crash can leave in the database lies between two commits, so a search that dies before its
first commit, its second, and so on to its last has died everywhere. Tables are committed one by one; of these
every fourth is enough.

    python crashes.py FOLDER hold              # takes the study, says so, and waits to be killed
    python crashes.py FOLDER die               # dies with a trial running and commits beside the file
    python crashes.py FOLDER sweep [careless]  # dies before every commit, goes on, and prints what is wrong
    python crashes.py FOLDER race ROUNDS       # eight starts at once; prints how many got in, each round
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import sqlalchemy
from sqlalchemy.engine import Engine

from l2l.errors import InputError
from l2l.run.trials_csv import write_csv
from l2l.store.optuna_store import OptunaStore
from l2l.testing.stores import SPACE, complete_trial, point
from l2l.types import Trial

TRIALS, BATCH = 6, 3


def tell(state: int, trials: Sequence[Trial]) -> int:
    """A searcher whose next candidates depend on every bit of the rewards that it was told."""
    return hash((state, *[(trial.number, trial.reward) for trial in trials]))


def drive(folder: Path, careless: bool = False) -> str:
    """Searches, or resumes, to the end: its trials.csv. The careless driver forgets which trials were running."""
    with OptunaStore().attach(folder, SPACE, {"seed": 0}) as log:
        state = functools.reduce(tell, log.batches(), 0)
        while log.count() < TRIALS:
            todo = [] if careless else log.list_running()
            if not todo:
                first, size = log.next_batch(min(BATCH, TRIALS - log.count()))
                draw = random.Random(state)
                cohorts = [range(first, first + size)] * size
                todo = log.open([SPACE.sample(draw) for _ in range(size)], cohorts)
            for trial in todo:
                log.close(complete_trial(trial, random.Random(f"{trial.number} {trial.candidate.key}").random()))
            state = tell(state, log.batches()[-1]) if log.batches() else state
        return write_csv(log.trials(), SPACE)


def die_before(commit: int) -> None:
    """Ends this process before that commit, as SIGKILL would: nothing is cleaned up."""
    left = [commit]

    def count(*_: object) -> None:
        left[0] -= 1
        if not left[0]:
            os._exit(9)

    tables = itertools.count(1)

    def count_tables(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.lstrip().upper().startswith("CREATE") and not next(tables) % 4:
            count()

    sqlalchemy.event.listen(Engine, "commit", count)
    sqlalchemy.event.listen(Engine, "before_cursor_execute", count_tables)


def in_child(work: Callable[[], object]) -> int:
    """Does the work in a forked child and returns its exit code: 1 if it raised."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        work()
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(1)
    os._exit(0)


def sweep(folder: Path, careless: bool) -> None:
    whole = drive(folder / "whole")  # which also imports everything, once for all children

    def run(commit: int | None) -> int:
        def work() -> None:
            if commit is not None:
                die_before(commit)
            (folder / "table").write_text(drive(folder / "run", careless and commit is None))

        return in_child(work)

    for commit in itertools.count(1):
        if (code := run(commit)) != 9:
            print(f"{commit - 1} crashes, exit code {code}", flush=True)
            break
        if commit % 3 == 0:  # the recovery is killed as well
            run(commit // 3)
        if run(None) or (folder / "table").read_text() != whole:
            print(f"commit {commit}: another history", flush=True)
            if careless:
                break
        shutil.rmtree(folder / "run")


def race(folder: Path, rounds: int) -> None:
    for turn in range(rounds):
        ready, go = os.pipe(), os.pipe()
        inside, out = os.pipe(), os.pipe()
        children = []
        for _ in range(8):
            if child := os.fork():
                children.append(child)
                continue
            os.close(go[1])
            os.close(out[1])
            os.write(ready[1], b".")
            os.read(go[0], 1)  # returns when the parent closes its end
            try:
                with OptunaStore().attach(folder / str(turn), SPACE, {"seed": 0}):
                    os.write(inside[1], b"+")
                    os.read(out[0], 1)
            except InputError:
                os.write(inside[1], b"-")
            os._exit(0)
        for _ in children:
            os.read(ready[0], 1)
        os.close(go[1])
        answers = b"".join(os.read(inside[0], 1) for _ in children)
        os.close(out[1])
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(f"{answers.count(b'+')} in, {answers.count(b'-')} refused, {sum(codes)} errors", flush=True)
        for pipe in (ready[0], ready[1], go[0], inside[0], inside[1], out[0]):
            os.close(pipe)


def main(folder: Path, what: str, *rest: str) -> None:
    if what == "hold":
        with OptunaStore().attach(folder, SPACE, {"seed": 0}):
            print(os.getpid(), flush=True)
            sys.stdin.read()
    elif what == "die":
        with OptunaStore().attach(folder, SPACE, {"seed": 0}) as log:
            log.open([point(True)])
            os.kill(os.getpid(), signal.SIGKILL)
    elif what == "sweep":
        sweep(folder, "careless" in rest)
    else:
        race(folder, int(rest[0]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
