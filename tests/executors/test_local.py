"""Worker processes that die, fail or are left: every trial gets its outcome, and nothing stays behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from l2l.errors import InputError
from l2l.executors import local as local_executor
from l2l.executors.local import Local
from l2l.space import Candidate
from l2l.types import Outcome, Trial

DIED = "crashed: the worker process died"
HINT = "log.txt has its last words"


@dataclass
class Acts:
    """Does what the candidate says; a file in `folder` is made the first time that something is done once."""

    folder: Path

    def check(self) -> None:
        """All is well."""

    def __call__(self, trials: Sequence[Trial]) -> Iterator[Trial]:
        for trial in trials:
            act = trial.candidate.values["act"]
            if act == "crowded":
                act = "leave" if len(trial.cohort) > 1 else "ok"
            if act == "nothing":
                continue
            yield replace(trial, outcome=self.act(str(act), trial.number))

    def act(self, act: str, number: int) -> Outcome:
        if act == "raise":
            raise ValueError(f"boom {number}")
        if act == "leave":
            os._exit(3)
        if act == "exit":
            sys.exit("no more")
        if act.startswith("SIG"):
            os.kill(os.getpid(), signal.Signals[act])
        if act == "once":
            marker = self.folder / f"{number}"
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        if act == "often":  # four times
            count = sum(1 for _ in self.folder.glob(f"{number}-*"))
            if count < 4:
                (self.folder / f"{number}-{count}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        if act == "hog":  # dies at first, and then bears nobody beside it
            marker, busy = self.folder / f"{number}", self.folder / "busy"
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            busy.touch(exist_ok=False)
            threading.Event().wait(0.1)
            busy.unlink()
        if act == "score":
            return Outcome({"score": int(Path("/proc/self/oom_score_adj").read_text())})
        if act == "print":
            print("seen by nobody but the log", flush=True)
        return Outcome({"number": number, "pid": os.getpid()})


class Unreadable:
    """Can be packed, and cannot be unpacked."""

    def __reduce__(self) -> Any:
        return (_refuse, ())


def _refuse() -> None:
    raise ImportError("not on this side")


class Locked:
    """Cannot be packed."""

    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle a lock")


def trials(*acts: str, together: bool = False) -> list[Trial]:
    """A batch of trials, each in a cohort of its own, or all in one."""
    size = len(acts)
    groups = [tuple(range(size))] * size if together else [(number,) for number in range(size)]
    return [Trial(n, Candidate({"act": act}), (0, size), groups[n]) for n, act in enumerate(acts)]


def run(executor: Local, objective: Any, asked: Sequence[Trial]) -> dict[int, Outcome]:
    """The outcome of every trial, each of which comes exactly once."""
    came = [(trial.number, trial.outcome or Outcome(error="none")) for trial in executor.run(objective, asked)]
    assert sorted(number for number, _ in came) == [trial.number for trial in asked]
    return dict(came)


def errors(outcomes: dict[int, Outcome]) -> dict[int, str]:
    return {number: outcome.error for number, outcome in sorted(outcomes.items()) if outcome.error is not None}


def numbers(outcomes: dict[int, Outcome]) -> dict[int, float | None]:
    return {number: outcome.metrics.get("number") for number, outcome in sorted(outcomes.items())}


def children() -> set[int]:
    """The living processes that this one has started, zombies included."""
    return {int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def executor() -> Iterator[Local]:
    """One worker; afterwards no process and no open file of it is left."""
    before = children(), descriptors()
    local = Local(workers=1, threads=1)
    yield local
    local.close()
    assert (children(), descriptors()) == before


def test_a_worker_that_is_killed_in_a_cohort_is_replaced_and_the_cohort_is_run_again(
    executor: Local, tmp_path: Path
) -> None:
    outcomes = run(executor, Acts(tmp_path), trials("ok", "once", "ok", together=True))
    assert errors(outcomes) == {}
    # The first one had come back before; the other two come from the new worker.
    pids = [outcomes[number].metrics["pid"] for number in range(3)]
    assert pids[0] != pids[1] == pids[2]
    assert len(children()) == 1


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        ("SIGKILL", "10 times (signal 9, SIGKILL)"),
        ("SIGSEGV", "twice (signal 11, SIGSEGV)"),
        ("SIGTERM", "twice (signal 15, SIGTERM)"),
        ("leave", "twice (exit code 3)"),
        ("exit", "twice (exit code 1)"),
    ],
)
def test_a_candidate_that_always_kills_its_worker_fails_with_the_reason_and_alone(
    executor: Local, tmp_path: Path, act: str, reason: str
) -> None:
    outcomes = run(executor, Acts(tmp_path), trials("ok", act, "ok", "ok"))
    assert errors(outcomes) == {1: f"{DIED} {reason}; {HINT}"}
    assert numbers(outcomes) == {0: 0, 1: None, 2: 2, 3: 3}
    assert errors(run(executor, Acts(tmp_path), trials("ok"))) == {}


def test_several_killers_fail_one_by_one(executor: Local, tmp_path: Path) -> None:
    before = descriptors()
    outcomes = run(executor, Acts(tmp_path), trials("SIGSEGV", "ok", "once", "leave", "ok"))
    assert errors(outcomes) == {
        0: f"{DIED} twice (signal 11, SIGSEGV); {HINT}",
        3: f"{DIED} twice (exit code 3); {HINT}",
    }
    # Six workers have died: what is open is that of the one which lives.
    assert len(children()) == 1
    assert descriptors() <= before + 2


def test_a_worker_that_is_killed_from_outside_is_no_fault_of_its_trial(executor: Local, tmp_path: Path) -> None:
    assert errors(run(executor, Acts(tmp_path), trials("ok", "often", "ok"))) == {}
    assert len(list(tmp_path.iterdir())) == 4


def test_the_kernels_kills_for_want_of_memory_are_the_cohorts_own(
    executor: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter(range(100))  # one more at each look
    monkeypatch.setattr(local_executor, "_count_memory_kills", lambda: next(counts))
    outcomes = run(executor, Acts(tmp_path), trials("ok", "SIGKILL"))
    assert errors(outcomes) == {1: f"{DIED} twice (signal 9, SIGKILL); {HINT}"}


def test_a_cohort_that_kills_its_worker_is_run_one_by_one_and_keeps_its_program(
    executor: Local, tmp_path: Path
) -> None:
    ended = list(executor.run(Acts(tmp_path), trials("ok", "SIGSEGV", "ok", "crowded", together=True)))
    assert {trial.number: (trial.outcome or Outcome()).error for trial in ended} == {
        0: None,
        1: f"{DIED} 4 times (signal 11, SIGSEGV); {HINT}",
        2: None,
        3: None,
    }
    # Only one that dies alone gets a program of its own, and says so.
    whole = (0, 1, 2, 3)
    assert {trial.number: trial.cohort for trial in ended} == {0: whole, 1: (1,), 2: whole, 3: (3,)}


def test_where_memory_ran_out_a_trial_is_run_again_beside_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter(range(100))
    monkeypatch.setattr(local_executor, "_count_memory_kills", lambda: next(counts))
    with closing(Local(workers=3, threads=1)) as executor:
        assert errors(run(executor, Acts(tmp_path), trials("hog", "ok", "hog", "hog", "ok"))) == {}
    assert {path.name for path in tmp_path.iterdir()} == {"0", "2", "3"}


def test_where_memory_runs_out_each_gets_a_program_of_its_own(
    executor: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter(range(100))
    monkeypatch.setattr(local_executor, "_count_memory_kills", lambda: next(counts))
    ended = list(executor.run(Acts(tmp_path), trials("crowded", "crowded", together=True)))
    assert {trial.number: (trial.cohort, (trial.outcome or Outcome()).error) for trial in ended} == {
        0: ((0,), None),
        1: ((1,), None),
    }


def test_the_kernel_ends_a_worker_before_the_driver(executor: Local, tmp_path: Path) -> None:
    outcomes = run(executor, Acts(tmp_path), trials("score"))
    assert outcomes[0].metrics["score"] == 500


def test_a_worker_that_dies_between_two_batches_is_no_loss(executor: Local, tmp_path: Path) -> None:
    first = run(executor, Acts(tmp_path), trials("ok"))
    (worker,) = children()
    assert first[0].metrics["pid"] == worker
    os.kill(worker, signal.SIGKILL)
    assert errors(run(executor, Acts(tmp_path), trials("ok", "ok"))) == {}


@pytest.mark.parametrize("together", [False, True])
def test_what_raises_fails_with_its_exception_and_alone(executor: Local, tmp_path: Path, together: bool) -> None:
    outcomes = run(executor, Acts(tmp_path), trials("ok", "raise", "ok", "raise", "ok", together=together))
    assert errors(outcomes) == {1: "crashed: ValueError: boom 1", 3: "crashed: ValueError: boom 3"}
    assert len({outcomes[number].metrics["pid"] for number in (0, 2, 4)}) == 1


def test_a_trial_that_the_objective_leaves_out_comes_back_without_an_outcome(executor: Local, tmp_path: Path) -> None:
    assert errors(run(executor, Acts(tmp_path), trials("ok", "nothing", "ok"))) == {1: "none"}


def test_an_objective_that_cannot_be_unpacked_fails_every_trial_with_that_reason(executor: Local) -> None:
    asked = trials("ok", "ok")
    assert errors(run(executor, Unreadable(), asked)) == dict.fromkeys((0, 1), "crashed: ImportError: not on this side")


def test_an_objective_that_cannot_be_packed_is_refused(executor: Local) -> None:
    with pytest.raises(InputError, match=r"cannot be handed to a worker process .*cannot pickle a lock.*inline"):
        run(executor, Locked(), trials("ok"))


def test_two_workers_give_what_one_gives(executor: Local, tmp_path: Path) -> None:
    acts = ["ok", "raise", "ok", "once", "ok", "nothing", "leave", "ok", "ok", "ok", "raise", "ok"]
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = run(executor, Acts(tmp_path / "one"), trials(*acts))
    with closing(Local(workers=2, threads=1)) as both:
        two = run(both, Acts(tmp_path / "two"), trials(*acts))
    assert errors(two) == errors(one)
    assert numbers(two) == numbers(one)
    assert len({outcome.metrics["pid"] for outcome in two.values() if outcome.metrics}) > 1


def test_what_is_printed_goes_to_the_log(executor: Local, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    executor.start(tmp_path)
    run(executor, Acts(tmp_path), trials("print", "raise"))
    log = (tmp_path / "log.txt").read_text()
    assert "seen by nobody but the log" in log
    assert "ValueError: boom 1" in log
    assert capfd.readouterr() == ("", "")


def test_close_in_the_middle_leaves_nothing_and_it_can_start_again(executor: Local, tmp_path: Path) -> None:
    running = executor.run(Acts(tmp_path), trials("ok", "ok", "ok"))
    next(running)
    executor.close()
    running.close()
    assert children() == set()
    executor.close()
    assert errors(run(executor, Acts(tmp_path), trials("ok", "ok", "ok"))) == {}


def test_threads_are_fixed_for_the_worker(tmp_path: Path) -> None:
    assert Local(workers=3, threads=2)._make_environment(0)["NPROC"] == "2"
    assert Local(workers=10_000).threads == 1
    for wrong in (0, -1, True, 1.0, "2"):
        with pytest.raises(InputError, match=r"executor\.threads must be an integer of at least 1"):
            Local(threads=wrong)  # pyright: ignore[reportArgumentType]


def test_a_space_of_a_script_works(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(textwrap.dedent(SCRIPT))
    process = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert process.stdout.splitlines()[-1] == "2 complete, reproduced: True, loaded: Mine", process.stderr


SCRIPT = """
    import functools
    import l2l, optax
    from flax import nnx
    from l2l.objectives.final import Final
    from l2l.objectives.trained import Trained

    class Mine(nnx.Module):
        def __init__(self, width, rngs):
            self.hidden = nnx.Linear(64, width, rngs=rngs)
            self.head = nnx.Linear(width, 10, rngs=rngs)

        def __call__(self, x):
            return self.head(nnx.relu(self.hidden(x.reshape(x.shape[0], -1))))

    def build(values, spec):
        return l2l.Learner(lambda rngs: Mine(values["width"], rngs), optax.adam(values["rate"]))

    def space():
        choices = {"width": l2l.Categorical(options=(8,)), "rate": l2l.Real(low=1e-3, high=1e-1, log=True)}
        return l2l.SearchSpace(choices, build, name="mine")

    if __name__ == "__main__":
        result = l2l.search(
            space(), objective=functools.partial(Trained, epochs=1), final=functools.partial(Final, seeds=0),
            tracker={}, trials=2, batch=2, out="run",
        )
        counts, test = result.record.trials, result.record.test
        model = l2l.load("run/best", space=space())
        inner = next(type(part).__name__ for _, part in nnx.iter_modules(model) if isinstance(part, Mine))
        print(f"{counts.complete} complete, reproduced: {test.reproduced}, loaded: {inner}")
"""
