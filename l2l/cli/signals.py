"""Ctrl-C and SIGTERM: a running search stops in good order, anything else stops at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
import types
from typing import Any

from l2l.run.interrupts import SearchInterrupted, is_interruptible

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
FINALIZERS = {"_xla_gc_callback", "__del__"}
"""Functions that the garbage collector calls; Python discards any exception that is raised in them."""
RETRY_SECONDS = 0.02


class Interrupt(KeyboardInterrupt):
    """A signal that stops a running search in good order."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = signal.Signals(number)


def signal_number(interrupt: KeyboardInterrupt) -> signal.Signals:
    """The signal behind the exception; SIGINT for one that Python itself raised."""
    cause = interrupt.__cause__ if isinstance(interrupt, SearchInterrupted) else interrupt
    return cause.number if isinstance(cause, Interrupt) else signal.SIGINT


def install_handlers() -> dict[signal.Signals, Any]:
    """Handles SIGINT and SIGTERM, and returns the earlier handlers."""
    handlers = {number: signal.getsignal(number) for number in EXIT_CODES}
    for number in EXIT_CODES:
        signal.signal(number, handle_signal)
    return handlers


def restore_handlers(handlers: dict[signal.Signals, Any]) -> None:
    """Puts the earlier handlers back."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


def handle_signal(number: int, frame: types.FrameType | None) -> None:
    """Raises `Interrupt` if the current work can stop in good order, otherwise ends the process at once."""
    signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once
    if _is_in_finalizer(frame):
        signal.signal(signal.SIGALRM, lambda _, later_frame: handle_signal(number, later_frame))
        signal.setitimer(signal.ITIMER_REAL, RETRY_SECONDS)
        return
    if is_interruptible():
        raise Interrupt(number)
    # An exception would not do: some imports swallow it. A process that is killed here loses nothing either.
    with contextlib.suppress(Exception):  # the signal may have come in the middle of a write
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, f"l2l: interrupted by {signal.Signals(number).name}; no trial was running.\n".encode())
    os._exit(EXIT_CODES[signal.Signals(number)])


def _is_in_finalizer(frame: types.FrameType | None) -> bool:
    """Whether the signal arrived inside a finalizer, where an exception would be discarded.

    Walks the call stack by function name: Python has no other way to ask whether a finalizer is running.
    """
    return not FINALIZERS.isdisjoint(frame.f_code.co_name for frame, _ in traceback.walk_stack(frame))
