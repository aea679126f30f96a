"""Runs a tracker in a background thread behind a bounded queue, so that it can neither slow nor stop a search."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from l2l.errors import flatten_message
from l2l.types import SearchEnd, SearchInfo, Tracker, Trial

Event: TypeAlias = Callable[[], None]

_LOG = logging.getLogger("l2l")
_THREADS: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
"""The threads of all trackers, while they run or somebody else holds them."""


def is_any_running() -> bool:
    """Whether the thread of a tracker still runs, which would hold up the interpreter's normal end."""
    return any(thread.is_alive() for thread in _THREADS)


class BackgroundTracker:
    """A `Tracker` that passes every event to another one, which runs in a daemon thread.

    An exception there is reported once, as one line, and switches that tracker off. When `capacity` events
    wait, further ones are dropped and counted. `finish` waits at most `patience` seconds and then abandons the
    tracker; `is_hanging` is then true, and the process should end with `os._exit`.
    """

    def __init__(
        self,
        tracker: Tracker,
        report: Callable[[str], None] = _LOG.warning,
        capacity: int = 10_000,
        patience: float = 10.0,
    ) -> None:
        self.dropped = 0
        """Events that never reached the tracker."""
        self._tracker = tracker
        self._name = type(tracker).__name__
        self._report = report
        self._patience = patience
        self._events: queue.Queue[Event | None] = queue.Queue(capacity)
        self._failed = threading.Event()
        self._abandoned = False
        self._thread = threading.Thread(target=self._work, name=f"tracker {self._name}", daemon=True)
        _THREADS.add(self._thread)

    @property
    def is_hanging(self) -> bool:
        """Whether the tracker is still at work after `finish` has abandoned it."""
        return self._abandoned and self._thread.is_alive()

    def start(self, info: SearchInfo, finished: Iterable[Trial]) -> None:
        """Starts the thread; `finished` is read here, since its database may be bound to this thread."""
        trials = tuple(finished)
        self._thread.start()
        self._put(lambda: self._tracker.start(info, trials))

    def tell(self, trial: Trial, seconds: Mapping[str, float]) -> None:
        """Passes the event on with a copy of `seconds`, to which the search continues to write."""
        totals = dict(seconds)
        self._put(lambda: self._tracker.tell(trial, totals))

    def tell_batch(self, batch: Sequence[Trial], summary: Mapping[str, float]) -> None:
        """Passes the event on."""
        trials, figures = tuple(batch), dict(summary)
        self._put(lambda: self._tracker.tell_batch(trials, figures))

    def finish(self, end: SearchEnd | None) -> None:
        """Passes the event on and waits at most `patience` seconds for the tracker."""
        if self._thread.ident is None or self._failed.is_set():
            return
        deadline = time.monotonic() + self._patience
        with contextlib.suppress(queue.Full):
            self._events.put(lambda: self._tracker.finish(end), timeout=self._patience)
            self._events.put(None, timeout=max(0.0, deadline - time.monotonic()))
        self._thread.join(max(0.0, deadline - time.monotonic()))
        self._abandoned = self._thread.is_alive()
        if self._abandoned:
            self._report(
                f"tracker {self._name} was left behind after {self._patience:g} s with {self._events.qsize()} events "
                "waiting; nothing of the search itself is lost."
            )
        if self.dropped:
            self._report(f"tracker {self._name} was too slow: {self.dropped} events were dropped.")

    def _put(self, event: Event) -> None:
        if self._failed.is_set():
            return
        try:
            self._events.put_nowait(event)
        except queue.Full:
            self.dropped += 1

    def _work(self) -> None:
        while (event := self._events.get()) is not None:
            try:
                event()
            # A tracker may raise anything, SystemExit included: here it ends this thread and nothing else.
            except BaseException as error:
                self._failed.set()
                reason = flatten_message(error) or "no reason given"
                self._report(f"tracker {self._name} is switched off: {type(error).__name__}: {reason[:300]}")
                # So that a broken display gives the terminal back.
                with contextlib.suppress(BaseException):
                    self._tracker.finish(None)
                return
