"""A tracker that fails, hangs or dawdles, and a search that does not notice."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from l2l.space import Candidate, Categorical, SearchSpace
from l2l.trackers.background import BackgroundTracker, is_any_running
from l2l.types import SearchEnd, SearchInfo, Trial

END = SearchEnd({"number": 1}, {}, {})
RUN = SearchInfo(
    "run", "group", Path(), {}, SearchSpace({"x": Categorical(options=(1, 2))}, lambda values, spec: None), 4, "a"
)
TRIALS = [Trial(number, Candidate({"x": 1}), (0, 4), (number,)) for number in range(4)]


class Recorder:
    """Writes down what it is told; `fails` names the event that raises, `gate` is what a start waits for."""

    def __init__(self, fails: str = "", gate: threading.Event | None = None) -> None:
        self.events: list[Any] = []
        self.fails = fails
        self.gate = gate

    def note(self, name: str, *what: Any) -> None:
        self.events.append((name, *what))
        if name == self.fails:
            raise SystemExit("no\nreason")

    def start(self, info: SearchInfo, finished: Iterable[Trial]) -> None:
        if self.gate is not None:
            self.gate.wait()
        self.note("start", info.name, [trial.number for trial in finished], threading.current_thread())

    def tell(self, trial: Trial, seconds: Mapping[str, float]) -> None:
        self.note("tell", trial.number, dict(seconds))

    def tell_batch(self, batch: Sequence[Trial], summary: Mapping[str, float]) -> None:
        self.note("learned", [trial.number for trial in batch], dict(summary))

    def finish(self, end: SearchEnd | None) -> None:
        self.note("finish", end)


def search(tracker: BackgroundTracker) -> None:
    tracker.start(RUN, iter(TRIALS[:1]))
    for trial in TRIALS[1:]:
        tracker.tell(trial, {"train": trial.number})
    tracker.tell_batch(TRIALS, {"baseline": 0.5})


def end(background: BackgroundTracker, gate: threading.Event) -> None:
    """Lets a hanging tracker go on and end: `l2l` ends the whole process at once while the thread of one is alive."""
    gate.set()
    background._events.put(None)  # pyright: ignore[reportPrivateUsage]
    background._thread.join()  # pyright: ignore[reportPrivateUsage]


def test_events_arrive_in_order_in_another_daemon_thread() -> None:
    lines: list[str] = []
    recorder = Recorder()
    background = BackgroundTracker(recorder, lines.append)
    search(background)
    background.finish(END)
    thread = recorder.events[0][3]
    assert thread is not threading.current_thread()
    assert thread.daemon
    assert [event[:3] for event in recorder.events] == [
        ("start", "run", [0]),
        ("tell", 1, {"train": 1}),
        ("tell", 2, {"train": 2}),
        ("tell", 3, {"train": 3}),
        ("learned", [0, 1, 2, 3], {"baseline": 0.5}),
        ("finish", END),
    ]
    assert not background.is_hanging
    assert lines == []


def test_what_the_search_writes_on_afterwards_is_not_seen() -> None:
    gate = threading.Event()
    recorder = Recorder(gate=gate)
    background = BackgroundTracker(recorder)
    background.start(RUN, [])
    ledger = {"train": 1.0}
    background.tell(TRIALS[0], ledger)
    ledger["train"] = 2.0
    gate.set()
    background.finish(None)
    assert recorder.events[1] == ("tell", 0, {"train": 1.0})


@pytest.mark.parametrize("fails", ["start", "tell", "learned", "finish"])
def test_an_exception_is_one_line_and_switches_the_tracker_off(fails: str) -> None:
    lines: list[str] = []
    recorder = Recorder(fails)
    background = BackgroundTracker(recorder, lines.append)
    search(background)
    background.finish(END)
    background.tell(TRIALS[0], {})
    assert lines == ["tracker Recorder is switched off: SystemExit: no reason"]
    assert [name for name, *_ in recorder.events].count(fails) == (2 if fails == "finish" else 1)
    # The display it may have put up is taken down.
    assert recorder.events[-1] == ("finish", None)
    assert not background.is_hanging


def test_a_hanging_tracker_drops_events_and_is_left_behind() -> None:
    lines: list[str] = []
    gate = threading.Event()
    background = BackgroundTracker(Recorder(gate=gate), lines.append, capacity=2, patience=0.05)
    search(background)
    # One event is being worked on or the first of two that wait.
    assert background.dropped in (2, 3)
    background.finish(END)
    assert background.is_hanging
    assert is_any_running()
    assert lines == [
        "tracker Recorder was left behind after 0.05 s with 2 events waiting; nothing of the search itself is lost.",
        f"tracker Recorder was too slow: {background.dropped} events were dropped.",
    ]
    end(background, gate)
    assert not is_any_running()


def test_a_tracker_that_was_never_started_finishes_at_once() -> None:
    recorder, lines = Recorder(), list[str]()
    background = BackgroundTracker(recorder, lines.append)
    background.finish(None)
    assert not background.is_hanging
    assert recorder.events == lines == []


def test_the_log_is_where_a_failure_is_told_by_default(caplog: pytest.LogCaptureFixture) -> None:
    background = BackgroundTracker(Recorder("tell"))
    search(background)
    background.finish(None)
    assert [record.name for record in caplog.records] == ["l2l"]
    assert "switched off" in caplog.text
