"""What this machine has, as far as this process may use it, found without starting JAX."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

LANES = 16
"""Candidates that share a call of a program on an accelerator, for each of those that a process has."""
GROUPS = Path("/sys/fs/cgroup")
DEVICES = Path("/dev")
CUDA = "xla_cuda"
ACCELERATORS = {CUDA: ("nvidia[0-9]*", "dxg"), "xla_rocm": ("kfd",), "libtpu": ("accel[0-9]*", "vfio/[0-9]*")}
"""How the names of JAX's plug-ins begin, and what the devices are called that each of them drives (dxg: behind WSL)."""


def cores() -> int:
    """CPU cores, or as many as their time is allotted for."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        for quota, period, *_ in _settings("cpu", *names):
            if quota.isdecimal():
                found = min(found, math.ceil(int(quota) / int(period)))
    return max(found, 1)


def memory() -> int:
    """Bytes of host memory: all there is, and not what is free at the moment."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("memory.max", "memory.limit_in_bytes"):
        for limit, *_ in _settings("memory", name):
            if limit.isdecimal():
                found = min(found, int(limit))
    return found


def gpus() -> list[str]:
    """The NVIDIA GPUs that JAX may use, by the names that `CUDA_VISIBLE_DEVICES` has for them."""
    if not _driven(CUDA):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [each for each in visible.split(",") if each]
    return [str(index) for index, _ in enumerate(DEVICES.glob(ACCELERATORS[CUDA][0]))]


def accelerated() -> bool:
    """Whether JAX will find anything but a CPU: it has a plug-in, and there is a device for it."""
    return any(map(_driven, ACCELERATORS))


def compilation_cache() -> dict[str, str]:
    """Environment variables that give JAX a persistent compilation cache; what is set already stays."""
    # A program compiled for one processor must not be loaded on another that shares the home folder.
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        processor = platform.processor()
    mark = hashlib.sha256(f"{platform.machine()} {processor}".encode()).hexdigest()[:8]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    wanted = {
        "JAX_COMPILATION_CACHE_DIR": str(home / "l2l" / f"programs-{mark}"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        # Programs run on the threads that call them, several at a time.
        "JAX_CPU_ENABLE_ASYNC_DISPATCH": "0",
    }
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def _driven(plugin: str) -> bool:
    hidden = plugin == CUDA and os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if hidden or os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return False
    there = any(next(DEVICES.glob(name), None) is not None for name in ACCELERATORS[plugin])
    return there and any(name.startswith(plugin) for name in plugins())


def plugins() -> list[str]:
    """The names of JAX's plug-ins that are installed."""
    spec = importlib.util.find_spec("jax_plugins")
    places = spec.submodule_search_locations or () if spec else ()
    found = [path.name for place in places for path in Path(place).iterdir()]
    return [*found, "libtpu"] if importlib.util.find_spec("libtpu") else found


def _settings(controller: str, *names: str) -> Iterator[list[str]]:
    """The words of a control group's files, of this process's own group and of those around it, in either version."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, own = line.split(":", 2)
            if kinds and controller not in kinds.split(","):
                continue
            root = GROUPS / controller if kinds else GROUPS
            group = root / own.strip("/")
            for place in (group, *group.parents):
                if place.is_relative_to(root):
                    with suppress(OSError):
                        if words := [word for name in names for word in (place / name).read_text().split()]:
                            yield words
