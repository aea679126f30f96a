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
    """Runs objectives and trials that come over the pipe until the driver closes it; then ends at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to answer.
    logging.basicConfig(level=logging.WARNING)
    with suppress(OSError):  # Where memory runs out, the kernel ends a worker and not the driver.
        Path("/proc/self/oom_score_adj").write_text("500")
    pipe = Connection(descriptor)
    orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, orders), daemon=True).start()
    # Takes a second and nearly every objective needs it; done while the driver proposes the first batch.
    threading.Thread(target=_import_modules, args=(("jax", "flax.nnx", "optax"),), daemon=True).start()
    objective: Any = None
    while True:
        kind, content = orders.get()
        if kind == "path":
            sys.path += [entry for entry in content if entry not in sys.path]
        elif kind == "objective":
            objective = _unpack(content)
        else:
            for trial in _run_trials(objective, content):
                pipe.send_bytes(cloudpickle.dumps(trial))


def _import_modules(names: Sequence[str]) -> None:
    """Imports modules ahead of their use; a missing one raises only where it is used."""
    for name in names:
        with suppress(ImportError):
            importlib.import_module(name)


def _unpack(content: bytes) -> Any:
    """The objective, or the exception that says why it cannot be unpickled here."""
    try:
        return cloudpickle.loads(content)
    except Exception as error:
        log.exception("the objective could not be unpacked")
        return error


def _run_trials(objective: Any, trials: Sequence[Trial]) -> Iterator[Trial]:
    """Every trial with an outcome, whatever the objective does; a trial that fails does not fail its companions."""
    waiting = deque([list(trials)])
    while waiting:
        unfinished = {trial.number: trial for trial in waiting[0]}
        alone = len(waiting.popleft()) == 1
        try:
            if isinstance(objective, Exception):
                raise objective
            for trial in objective(list(unfinished.values())):
                unfinished.pop(trial.number)
                yield trial
        except Exception as error:
            log.exception("trials %s crashed", list(unfinished))
            if alone or isinstance(objective, Exception):
                failure = Outcome(error=f"crashed: {type(error).__name__}: {error}")
                yield from (replace(trial, outcome=failure) for trial in unfinished.values())
            elif unfinished:  # An objective runs cohort by cohort, so the first unfinished cohort raised.
                suspected = next(iter(unfinished.values())).cohort
                rest = [trial for trial in unfinished.values() if trial.cohort != suspected]
                singles = [[trial] for trial in unfinished.values() if trial.cohort == suspected]
                waiting.extendleft(reversed([*singles, rest] if rest else singles))
        else:
            yield from unfinished.values()  # without an outcome


def _listen(pipe: Connection, orders: queue.SimpleQueue[Any]) -> None:
    """Passes orders on; when the driver is gone, however it ended, the worker ends in the middle of its work."""
    try:
        while True:
            orders.put(cloudpickle.loads(pipe.recv_bytes()))
    except (EOFError, OSError):
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
