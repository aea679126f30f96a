"""What a peer takes, its processes' seconds from start to end and the memory of all together; and whose turn it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

INTERVAL = 0.5
"""Seconds between two looks at the memory: rare enough to cost nothing, for each process keeps its own peak."""


def time_commands(commands: Sequence[Sequence[str]], folder: Path, **environment: str) -> tuple[float, float]:
    """Wall seconds of these commands side by side, and the MiB that they and their descendants held.

    Raises: RuntimeError if one fails.
    """
    started = time.perf_counter()
    with (folder / "output.txt").open("ab") as output:
        running = [
            subprocess.Popen(list(command), cwd=folder, env={**os.environ, **environment}, stdout=output, stderr=output)
            for command in commands
        ]
        memory = Memory([process.pid for process in running])
        memory.start()
        ends = [os.wait4(process.pid, 0) for process in running]
    seconds = time.perf_counter() - started
    for process, (_, status, _) in zip(running, ends, strict=True):
        process.returncode = os.waitstatus_to_exitcode(status)
    memory.stop()
    codes = [process.returncode for process in running]
    if any(codes):
        raise RuntimeError(f"exit codes {codes}: {(folder / 'output.txt').read_text()[-2000:]}")
    # Without /proc: the largest process below each command, in bytes on macOS.
    fallback = sum(usage.ru_maxrss for _, _, usage in ends) / 2**20
    return seconds, memory.peak or fallback


def prepare_cache(folder: Path, cold: bool) -> dict[str, str]:
    """Environment variables that have JAX keep all programs in this folder, emptied if `cold`.

    Whatever the caller's own environment says of a cache, it is neither read nor written.
    """
    if cold:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def rotate_names(names: Sequence[str], at: int) -> list[str]:
    """The names from another one on, the others behind it."""
    at %= len(names)
    return [*names[at:], *names[:at]]


class Memory(threading.Thread):
    """Watches processes and all that they start: the largest sum of the peaks of those that live at a time, in MiB.

    Pages that processes share are counted in each of them. `ru_maxrss` would not do: it starts at what the parent
    held and knows a command's largest process only.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        super().__init__(daemon=True)
        self.known, self.peak = set(pids), 0.0
        self._ended = threading.Event()

    def run(self) -> None:
        """Looks every `INTERVAL` until stopped."""
        while True:
            self.look()
            if self._ended.wait(INTERVAL):
                return

    def look(self) -> None:
        """Counts what lives now; a child stays known when its parent has gone."""
        parents = {int(path.name): _parent(path) for path in Path("/proc").glob("[0-9]*")}
        while more := {pid for pid, parent in parents.items() if parent in self.known} - self.known:
            self.known |= more
        self.known &= set(parents)
        self.peak = max(self.peak, sum(map(_peak, self.known)))

    def stop(self) -> None:
        """Ends the thread."""
        self._ended.set()
        self.join()


def _parent(path: Path) -> int | None:
    try:
        return int((path / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):  # it has just ended
        return None


def _peak(pid: int) -> float:
    """MiB that the process has held at most, 0 if it has gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
