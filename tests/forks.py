"""Not a test: searches and their workers as forks of a process that has already imported JAX; `kills.py` starts them.

Python, JAX and the rest take seconds to import, and a search that is killed thirty times needs them ninety times over.
Here a server imports them once, initialises nothing, and forks itself for each command. A fork is a real process in a
session of its own: it runs the command's `main`, ends as the interpreter ends, and dies of SIGKILL as any process does.
Its workers are forks too, of a process that the command forks from itself before it does anything else.

    python tests/forks.py FD    # the server
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import types
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

NUMBER = struct.Struct("q")
PATIENCE = 300.0  # seconds for the server to import what it needs
IMPORTED = (
    *("jax", "jaxlib.mlir.dialects.mhlo", "flax.nnx", "optax", "hydra.main"),
    *("optuna", "alembic.command", "alembic.config", "sqlalchemy.orm", "sqlalchemy.dialects.postgresql"),
    *("l2l.cli.entry", "l2l.cli.search", "l2l.cli.compose", "l2l.api", "l2l.run.loop"),
    *("l2l.run.early_stopping", "l2l.store.log"),
    *("l2l.objectives.trained", "l2l.objectives.final", "l2l.executors.local", "l2l.executors.worker"),
    *("l2l.tasks.digits", "l2l.searchers.controllers.reinforce", "search_spaces.mlp", "toys"),
)
WORKER = "l2l worker"
"""What the system calls a fork that is a worker."""


class Fork:
    """A process that somebody else has forked, as `subprocess.Popen` would show it."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self.returncode: int | None = None
        number = self._read(PATIENCE)
        if number is None:
            raise RuntimeError("the process was not forked")
        self.pid = number

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        if self.returncode is None:
            self.returncode = self._read(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises: TimeoutExpired if the process goes on for longer than `timeout` seconds."""
        if self.returncode is None:
            self.returncode = self._read(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("fork", timeout or 0.0)
        return self.returncode

    def kill(self) -> None:
        """Kills it, if it runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # as `Popen.kill` does
                os.kill(self.pid, signal.SIGKILL)

    def _read(self, timeout: float | None) -> int | None:
        """The next number from whoever forked it: the process id, then the exit code."""
        if not select.select([self._pipe], [], [], timeout)[0]:
            return None
        if not (content := os.read(self._pipe, NUMBER.size)):  # its parent was killed with it
            return -signal.SIGKILL
        return NUMBER.unpack(content)[0]

    def __del__(self) -> None:
        os.close(self._pipe)


def order(channel: socket.socket, content: Mapping[str, Any], descriptors: Sequence[int]) -> Fork:
    """Orders a fork that has these descriptors."""
    reader, writer = os.pipe()
    socket.send_fds(channel, [json.dumps(content).encode()], [writer, *descriptors])
    os.close(writer)
    return Fork(reader)


class Server:
    """The process whose forks are searches; `environment` is what JAX sees while it is imported."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def start(self, words: Sequence[str], folder: Path, environment: Mapping[str, str], output: int) -> Fork:
        """The command, in a session of its own."""
        content = {"words": list(words), "folder": str(folder), "environment": dict(environment)}
        return order(self._channel, content, [output])

    def close(self) -> None:
        """Ends the server; searches go on without it."""
        self._channel.close()
        self._process.wait()


def serve(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Forks for every order until nobody is left to order: returns in the forks alone, with the order's content."""
    parent, children = os.getpid(), dict[int, int]()
    sleep, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends when its channel does
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    while True:
        ready, _, _ = select.select([channel, sleep], [], [])
        if sleep in ready:
            os.read(sleep, 4096)
            for child in list(children):
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    with suppress(BrokenPipeError):
                        os.write(children[child], NUMBER.pack(os.waitstatus_to_exitcode(status)))
                    os.close(children.pop(child))
        if channel in ready:
            content, descriptors, *_ = socket.recv_fds(channel, 2**20, 8)
            if not content:
                os._exit(0)
            pipe, *rest = descriptors
            child = os.fork()
            if os.getpid() == parent:
                children[child] = pipe
                for descriptor in rest:
                    os.close(descriptor)
                continue
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            channel.close()
            for descriptor in (sleep, wake, *children.values()):
                os.close(descriptor)
            return json.loads(content), descriptors


def become(output: int, environment: Mapping[str, str]) -> None:
    """Gives this process its environment, and a file for what it prints. JAX has read its own variables already."""
    different = {name for name in {*environment, *os.environ} if environment.get(name) != os.environ.get(name)}
    assert not any(name.startswith("JAX_") for name in different), different
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)


def fork_workers() -> None:
    """Has the executor's workers forked from a copy of this process as it is now."""
    from l2l.executors import local, worker

    driver_end, nursery_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nursery = os.fork()
    if not nursery:
        driver_end.close()
        content, (pipe, descriptor, output) = serve(nursery_end)
        become(output, content["environment"])
        Path("/proc/self/comm").write_text(WORKER)
        os.write(pipe, NUMBER.pack(os.getpid()))
        os.close(pipe)
        worker.main(descriptor)
    nursery_end.close()

    def start(command: Sequence[str], pass_fds: tuple[int], env: Mapping[str, str], **streams: Any) -> Fork:
        assert list(command) == [sys.executable, "-P", "-m", "l2l.executors.worker", str(pass_fds[0])]
        return order(driver_end, {"environment": dict(env)}, [pass_fds[0], streams["stdout"].fileno()])

    def end() -> None:
        driver_end.close()
        os.waitpid(nursery, 0)

    atexit.register(end)
    local.subprocess = types.SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL)


def main(descriptor: int) -> None:
    """Serves; in a fork, runs the command."""
    sys.path[0] = ""  # as in `python -c`
    for name in IMPORTED:
        importlib.import_module(name)
    from jax._src import xla_bridge

    assert not xla_bridge.backends_are_initialized()
    content, (pipe, output) = serve(socket.socket(fileno=descriptor))
    os.setsid()
    os.chdir(content["folder"])
    become(output, content["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    fork_workers()
    os.write(pipe, NUMBER.pack(os.getpid()))
    os.close(pipe)
    sys.argv = ["-c", *content["words"]]
    from l2l.cli import main as run_command

    run_command()


if __name__ == "__main__":
    main(int(sys.argv[1]))
