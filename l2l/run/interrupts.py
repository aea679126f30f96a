"""Interrupts: whether one can stop the current work in good order, and the one that a search passes on."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


class SearchInterrupted(KeyboardInterrupt):
    """A search was interrupted; its trials are safe in `directory`, and the same call continues it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(f"the search in {directory} was interrupted; the same call continues it")
        self.directory = directory


class _Depth(threading.local):
    """How many `interruptible` blocks the current thread is in."""

    value: int = 0


_depth = _Depth()


@contextmanager
def interruptible() -> Generator[None]:
    """Marks work that a KeyboardInterrupt may stop at any point: everything worth saving is in the store already.

    The command line's signal handler raises one inside such a block; outside it ends the process at once.
    """
    _depth.value += 1
    try:
        yield
    finally:
        _depth.value -= 1


def is_interruptible() -> bool:
    """Whether the current thread is inside an `interruptible` block. Signal handlers run in the main thread."""
    return _depth.value > 0
