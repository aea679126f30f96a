"""The worker process: `python -m l2l.executors.worker FD` runs objectives that come over a pipe."""

from __future__ import annotations

import importlib
import logging
import os
import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cloudpickle

from l2l.types import Outcome, Trial

log = logging.getLogger("l2l")


def main(descriptor: int) -> None:
    """Reads objectives and chunks of trials until the driver hangs up; then it is gone at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to answer.
    logging.basicConfig(level=logging.WARNING)
    with suppress(OSError):  # Where memory runs out, the kernel ends a worker and not the driver.
        Path("/proc/self/oom_score_adj").write_text("500")
    pipe = Connection(descriptor)
    orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, orders), daemon=True).start()
    # A second's work that nearly every objective needs, done while the driver makes up the first batch.
    threading.Thread(target=_ahead, args=(("jax", "flax.nnx", "optax"),), daemon=True).start()
    objective: Any = None
    while True:
        kind, content = orders.get()
        if kind == "path":
            sys.path += [entry for entry in content if entry not in sys.path]
        elif kind == "objective":
            objective = _unpack(content)
        else:
            for trial in _answers(objective, content):
                pipe.send_bytes(cloudpickle.dumps(trial))


def _ahead(names: Sequence[str]) -> None:
    """Imports modules; one that is not there is for whoever needs it to miss."""
    for name in names:
        with suppress(ImportError):
            importlib.import_module(name)


def _unpack(content: bytes) -> Any:
    """The objective, or the exception that says why it cannot be had here."""
    try:
        return cloudpickle.loads(content)
    except Exception as error:
        log.exception("the objective could not be unpacked")
        return error


def _answers(objective: Any, trials: Sequence[Trial]) -> Iterator[Trial]:
    """Every trial with an outcome, whatever the objective does; one that has failed has failed on its own."""
    waiting = deque([list(trials)])
    while waiting:
        owed = {trial.number: trial for trial in waiting[0]}
        alone = len(waiting.popleft()) == 1
        try:
            if isinstance(objective, Exception):
                raise objective
            for trial in objective(list(owed.values())):
                owed.pop(trial.number)
                yield trial
        except Exception as error:
            log.exception("trials %s crashed", list(owed))
            if alone or isinstance(objective, Exception):
                failure = Outcome(error=f"crashed: {type(error).__name__}: {error}")
                yield from (replace(trial, outcome=failure) for trial in owed.values())
            elif owed:  # An objective goes cohort by cohort: what raised is one of the first that is owed.
                suspected = next(iter(owed.values())).cohort
                rest = [trial for trial in owed.values() if trial.cohort != suspected]
                singles = [[trial] for trial in owed.values() if trial.cohort == suspected]
                waiting.extendleft(reversed([*singles, rest] if rest else singles))
        else:
            yield from owed.values()  # without an outcome, which is one too


def _listen(pipe: Connection, orders: queue.SimpleQueue[Any]) -> None:
    """Hands orders over; a driver that is gone, however it went, ends the worker in the middle of its work."""
    try:
        while True:
            orders.put(cloudpickle.loads(pipe.recv_bytes()))
    except (EOFError, OSError):
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
