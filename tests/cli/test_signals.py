"""Ctrl-C and SIGTERM inside and outside of work that can stop in good order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from l2l.cli import signals
from l2l.run.interrupts import interruptible

OUTSIDE = """
import os, signal
from l2l.cli.signals import install_handlers
install_handlers()
print("started")
try:
    os.kill(os.getpid(), signal.SIGTERM)
except BaseException:
    print("swallowed")
print("continued")
"""


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    handlers = signals.install_handlers()
    yield
    signals.restore_handlers(handlers)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


@pytest.mark.parametrize("number", signals.EXIT_CODES)
def test_an_interruptible_block_is_left_by_an_exception_that_names_the_signal(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt) as caught, interruptible():
        os.kill(os.getpid(), number)
    assert signals.signal_number(caught.value) is number
    assert signal.getsignal(number) is signal.SIG_DFL  # a second signal ends the process


def test_python_s_own_interrupt_counts_as_sigint() -> None:
    assert signals.signal_number(KeyboardInterrupt()) is signal.SIGINT


def test_an_interrupt_inside_a_finalizer_comes_a_moment_later() -> None:
    class Finalized:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            events.append("end of the finalizer")

    def finalize_and_wait() -> None:
        item: Any = Finalized()
        with interruptible():
            del item
            events.append("after the finalizer")
            time.sleep(10)

    events: list[str] = []
    with pytest.raises(signals.Interrupt):
        finalize_and_wait()
    assert events == ["end of the finalizer", "after the finalizer"]


def test_outside_of_it_the_process_ends_at_once() -> None:
    child = subprocess.run([sys.executable, "-c", OUTSIDE], capture_output=True, text=True)
    assert (child.returncode, child.stdout) == (143, "started\n")
    assert child.stderr == "l2l: interrupted by SIGTERM; no trial was running.\n"
