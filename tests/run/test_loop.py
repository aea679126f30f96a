"""The loop with toy objectives: what it writes, how it goes on, and what it refuses."""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import math
import random
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from jax import random as keys
from kills import TOY as WORDS
from kills import Search
from toys import Failing, Hashed

from l2l.api import search
from l2l.errors import InputError, SearchError
from l2l.executors.inline import Inline
from l2l.executors.local import Local
from l2l.reward import Metric
from l2l.run.result import Result, TrialCounts
from l2l.run.session import LEDGER
from l2l.searchers.controllers.controller import Controller
from l2l.searchers.controllers.reinforce import Reinforce
from l2l.space import Candidate, Real, SearchSpace
from l2l.store.optuna_store import OptunaStore
from l2l.tasks.digits import Digits
from l2l.testing import TOY
from l2l.testing.stores import describe_bits
from l2l.trackers.background import BackgroundTracker
from l2l.types import Outcome, SearchEnd, SearchInfo, Status, Trial


def run(out: Path, **changed: Any) -> Result:
    """A search of 10 toy trials in batches of 4, but for what is changed."""
    parts = {
        "space": TOY, "task": Digits(), "searcher": Controller(), "objective": functools.partial(Hashed, rounds=1),
        "reward": Metric(), "executor": Inline(), "store": OptunaStore(), "tracker": {}, "final": None, "trials": 10,
        "batch": 4,
    }  # fmt: skip
    return search(**{**parts, "out": out, **changed})


def table(out: Path) -> list[dict[str, str]]:
    """`trials.csv` without its seconds."""
    rows = csv.DictReader((out / "trials.csv").read_text().splitlines())
    return [{name: value for name, value in row.items() if not name.startswith("seconds_")} for row in rows]


@dataclass(frozen=True)
class Chained:
    """Its next question hangs on every bit of what it was told, but for seconds."""

    def init(self, space: SearchSpace[Any], key: Any) -> tuple[SearchSpace[Any], str]:
        return space, "nothing"

    def ask(self, state: tuple[SearchSpace[Any], str], key: Any, count: int) -> list[Candidate]:
        draw = random.Random(f"{state[1]} {np.asarray(keys.key_data(key)).tolist()}")
        return [Candidate(state[0].sample(draw).values, {"draw": draw.random()}) for _ in range(count)]

    def tell(self, state: tuple[SearchSpace[Any], str], trials: Sequence[Trial]) -> tuple[SearchSpace[Any], str]:
        timeless = [replace(trial, outcome=replace(trial.outcome or Outcome(), seconds={})) for trial in trials]
        lines = [state[1], *map(describe_bits, timeless)]
        return state[0], hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def summary(self, state: tuple[SearchSpace[Any], str]) -> Mapping[str, float]:
        return {"digest": int(state[1][:12], 16)} if state[1] != "nothing" else {}


@dataclass
class Recorder:
    """A tracker that writes down what it is told."""

    events: list[Any] = field(default_factory=list)

    def start(self, info: SearchInfo, finished: Iterable[Trial]) -> None:
        self.events.append(("start", info.name, info.metric, info.trials, [trial.number for trial in finished]))

    def tell(self, trial: Trial, seconds: Mapping[str, float]) -> None:
        self.events.append(("tell", trial.number, trial.status, sorted(seconds)))

    def tell_batch(self, batch: Sequence[Trial], summary: Mapping[str, float]) -> None:
        self.events.append(("learned", [trial.number for trial in batch], dict(summary)))

    def finish(self, end: SearchEnd | None) -> None:
        self.events.append(("finish", end))

    def learnt(self) -> list[Any]:
        """What the searcher learnt, batch by batch."""
        return [event for event in self.events if event[0] == "learned"]


@dataclass(frozen=True)
class Stopping(Inline):
    """Is interrupted when it has handed over so many trials."""

    after: int = 0

    def run(self, objective: Any, trials: Sequence[Trial]) -> Iterator[Trial]:
        for trial in super().run(objective, trials):
            if trial.number == self.after:
                raise KeyboardInterrupt
            yield trial


def test_the_record_says_what_was_found_and_what_it_took(tmp_path: Path) -> None:
    result = run(tmp_path / "run", seed=3)
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert record == result.record.to_json()
    assert list(record) == [
        "version", "space", "task", "searcher", "seed", "trials", "best", "test", "seconds", "environment"
    ]  # fmt: skip
    assert (record["version"], record["space"], record["task"], record["seed"]) == (1, "toy", "digits", 3)
    assert record["trials"] == {"complete": 10, "failed": 0, "pruned": 0}
    assert record["test"] is None
    assert set(record["best"]) == {"number", "reward", "values", "metrics"}
    assert {"python", "machine", "jax", "flax", "optuna", "XLA_FLAGS", "executor"} <= set(record["environment"])
    rows = table(tmp_path / "run")
    top = max(rows, key=lambda row: float(row["reward"]))
    assert result.best is not None
    assert record["best"]["number"] == int(top["number"]) == result.best.number
    assert record["best"]["reward"] == float(top["reward"]) == record["best"]["metrics"]["accuracy"]
    assert record["best"]["values"] == dict(result.best.candidate.values)
    assert [int(row["number"]) for row in rows] == list(range(10))
    assert result.trials[9].batch == (8, 2)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["result.json", "study.db", "trials.csv"]


def test_the_ledger_is_whole(tmp_path: Path) -> None:
    seconds = run(tmp_path / "run").record.seconds
    assert list(seconds) == ["total", *LEDGER]
    assert all(value >= 0 for value in seconds.values())
    assert 0 < seconds["store"] < seconds["total"]
    assert sum(value for name, value in seconds.items() if name != "total") == pytest.approx(seconds["total"])


@pytest.mark.parametrize("searcher", [Controller(), Chained()], ids=["controller", "chained"])
def test_the_same_seed_gives_the_same_search_and_another_one_another(tmp_path: Path, searcher: Any) -> None:
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        run(tmp_path / name, searcher=searcher, seed=seed)
    assert table(tmp_path / "one") == table(tmp_path / "two")
    assert table(tmp_path / "one") != table(tmp_path / "other")
    run(tmp_path / "memory", searcher=searcher, store=OptunaStore("memory"))
    assert table(tmp_path / "memory") == table(tmp_path / "one")
    assert not (tmp_path / "memory" / "study.db").exists()


@pytest.mark.parametrize("stop", range(0, 11, 2))
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(tmp_path: Path, stop: int) -> None:
    whole, first, second = Recorder(), Recorder(), Recorder()
    run(tmp_path / "whole", searcher=Chained(), tracker={"r": whole})
    if stop < 10:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", searcher=Chained(), tracker={"r": first}, executor=Stopping(stop))
        assert not (tmp_path / "run" / "result.json").exists()
        assert first.events[-1] == ("finish", None)
    else:  # it had ended: the same command only tells again how
        run(tmp_path / "run", searcher=Chained(), tracker={"r": first})
    run(tmp_path / "run", searcher=Chained(), tracker={"r": second})
    assert table(tmp_path / "run") == table(tmp_path / "whole")
    assert second.events[0] == ("start", "run", "accuracy", 10, list(range(stop)))
    assert [event[1] for event in second.events if event[0] == "tell"] == list(range(stop, 10))
    # What is told again on the way is what was learnt live.
    assert len(whole.learnt()) == 3
    assert second.learnt() == whole.learnt()
    assert first.learnt() == whole.learnt()[: len(first.learnt())]


def test_more_trials_may_be_asked_for(tmp_path: Path) -> None:
    run(tmp_path / "run", searcher=Chained(), trials=8)
    run(tmp_path / "run", searcher=Chained(), trials=12)
    run(tmp_path / "at once", searcher=Chained(), trials=12)
    assert table(tmp_path / "run") == table(tmp_path / "at once")
    fewer = run(tmp_path / "run", searcher=Chained(), trials=4)
    assert len(fewer.trials) == 12


class Planned(Hashed):
    """Remembers for how many trials its programs were planned."""

    plans: ClassVar[list[int]] = []

    def plan(self, trials: int) -> None:
        self.plans.append(trials)


def test_programs_suit_the_number_of_trials_that_the_search_was_begun_with(tmp_path: Path) -> None:
    Planned.plans.clear()
    for trials in (4, 8):
        run(tmp_path / "run", trials=trials, objective=functools.partial(Planned, rounds=1))
    run(tmp_path / "other", trials=8, objective=functools.partial(Planned, rounds=1))
    assert Planned.plans == [4, 4, 8]


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"seed": 1}, r"seed 0 -> 1"),
    ({"batch": 5}, r"batch 4 -> 5"),
    ({"searcher": Controller(update=Reinforce(learning_rate=0.5))}, r"searcher\.update\.learning_rate 0\.12 -> 0\.5"),
    ({"searcher": Chained()}, r"searcher l2l\.searchers\.Controller -> test_loop\.Chained"),
    ({"objective": functools.partial(Hashed, rounds=2)}, r"objective\.rounds 1 -> 2"),
    ({"task": Digits(validation=300)}, r"task\.validation 360 -> 300"),
    ({"reward": Metric(maximise=False)}, r"reward\.maximise true -> false"),
    (
        {"space": SearchSpace({**TOY.choices, "d": Real(low=0, high=2)}, TOY.build, "toy")},
        r"choices\.d\.high 1\.0 -> 2",
    ),
]


@pytest.mark.parametrize(("changed", "named"), CHANGES, ids=[named.split(" ")[0] for _, named in CHANGES])
def test_other_settings_are_refused_by_name_and_nothing_is_touched(
    tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    run(tmp_path / "run")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=f"holds another study: .*{named}"):
        run(tmp_path / "run", **changed)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("name", "value", "low"),
    [
        ("trials", 0, 1),
        ("trials", 2.0, 1),
        ("trials", True, 1),
        ("batch", 0, 1),
        ("batch", -3, 1),
        ("seed", -1, 0),
        ("seed", 2**32, 0),
    ],
)
def test_a_wrong_number_is_refused_before_anything_is_written(tmp_path: Path, name: str, value: Any, low: int) -> None:
    with pytest.raises(InputError, match=f"{name} must be an integer (of at least|from) {low}.*, got {value!r}"):
        run(tmp_path / "run", **{name: value})
    assert list(tmp_path.iterdir()) == []


def test_a_search_without_a_success_says_why_most_often(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="all 10 trials failed, most often because: out of luck"):
        run(tmp_path / "run", objective=Failing)
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (record["best"], record["trials"]["failed"]) == (None, 10)
    assert {row["error"] for row in table(tmp_path / "run")} == {
        "out of luck",
        *(f"odd thing {n}" for n in (0, 3, 6, 9)),
    }


def test_the_command_ends_with_1_then(tmp_path: Path) -> None:
    life = Search(tmp_path, [*WORDS, "objective._target_=toys.Failing"], trials=5, batch=2).start("run")
    assert life.finish() == 1
    assert (tmp_path / "run.txt").read_text() == "l2l: all 5 trials failed, most often because: out of luck\n"


@dataclass
class Mixed(Hashed):
    """The best of its numbers belong to trials that have failed."""

    def outcome(self, trial: Trial) -> Outcome:
        """One of four fates."""
        outcome = super().outcome(trial)
        fates = [outcome, replace(outcome, metrics={"accuracy": 9.0}, error="too good")]
        fates += [replace(outcome, metrics={"accuracy": math.nan}), replace(outcome, metrics={"score": 9.0})]
        return fates[trial.number % 4]


def test_a_failed_trial_is_never_the_best(tmp_path: Path) -> None:
    result = run(tmp_path / "run", objective=functools.partial(Mixed, rounds=1))
    assert result.record.trials == TrialCounts(complete=3, failed=7)
    assert result.best is not None
    assert result.best.number % 4 == 0
    assert all(trial.reward is None for trial in result.trials if trial.status is Status.FAILED)
    errors = [row["error"] for row in table(tmp_path / "run")][1:4]
    assert errors[0] == "too good"
    assert "diverged" in errors[1]
    assert "no metric 'accuracy'" in errors[2]


class Broken(Recorder):
    """Raises at everything."""

    def start(self, info: SearchInfo, finished: Iterable[Trial]) -> None:
        raise SystemExit("no display")


class Hanging(Recorder):
    """Never comes back from anything."""

    gate = threading.Event()

    def start(self, info: SearchInfo, finished: Iterable[Trial]) -> None:
        self.gate.wait()


def test_trackers_that_break_or_hang_change_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    trackers = {"broken": Broken(), "hanging": BackgroundTracker(Hanging(), patience=0.05), "good": recorder}
    result = run(tmp_path / "run", tracker=trackers)
    Hanging.gate.set()
    run(tmp_path / "quiet")
    assert table(tmp_path / "run") == table(tmp_path / "quiet")
    assert "tracker Broken is switched off: SystemExit: no display" in caplog.text
    assert "tracker Hanging was left behind" in caplog.text
    assert [event[0] for event in recorder.events].count("tell") == 10
    assert recorder.events[1] == ("tell", 0, Status.COMPLETE, sorted(["total", *LEDGER]))
    assert recorder.events[-1] == ("finish", result.record.describe_end())


def test_worker_processes_change_nothing(tmp_path: Path) -> None:
    run(tmp_path / "inline")
    run(tmp_path / "local", executor=Local(workers=2, threads=1))
    assert table(tmp_path / "local") == table(tmp_path / "inline")
