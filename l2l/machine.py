"""What this machine has, as far as this process may use it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def cores() -> int:
    """CPU cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """Bytes of host memory: all there is, and not what is free at the moment."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for place in ("memory.max", "memory/memory.limit_in_bytes"):  # what a container may take, in either version
        with suppress(OSError, ValueError):
            found.append(int((Path("/sys/fs/cgroup") / place).read_text()))
    return min(found)
