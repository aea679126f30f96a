"""The cores, memory and accelerators that this process may use, read without starting JAX."""

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
"""Lanes per accelerator: how many candidates share one call of a program there."""
CONTROL_GROUPS = Path("/sys/fs/cgroup")
"""The folder in which Linux tells the limits of groups of processes."""
DEVICES = Path("/dev")
"""The folder of the device files."""
CUDA = "xla_cuda"
"""The prefix of the name of JAX's plug-in for NVIDIA GPUs."""
ACCELERATORS = {CUDA: ("nvidia[0-9]*", "dxg"), "xla_rocm": ("kfd",), "libtpu": ("accel[0-9]*", "vfio/[0-9]*")}
"""Prefixes of the names of JAX's plug-ins, each with the device files that it drives (dxg: under WSL)."""


def cores() -> int:
    """CPU cores that this process may use; fewer if its control group limits CPU time."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        for quota, period, *_ in _group_settings("cpu", *names):
            if quota.isdecimal():
                count = min(count, math.ceil(int(quota) / int(period)))
    return max(count, 1)


def memory() -> int:
    """Bytes of host memory in total, free or not; fewer if the control group limits them."""
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("memory.max", "memory.limit_in_bytes"):
        for limit, *_ in _group_settings("memory", name):
            if limit.isdecimal():
                size = min(size, int(limit))
    return size


def gpus() -> list[str]:
    """The NVIDIA GPUs that JAX may use, named as in `CUDA_VISIBLE_DEVICES`."""
    if not _has_device(CUDA):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    return [str(index) for index, _ in enumerate(DEVICES.glob(ACCELERATORS[CUDA][0]))]


def has_accelerator() -> bool:
    """Whether JAX will use anything but the CPU: it has a plug-in and a device for it."""
    return any(map(_has_device, ACCELERATORS))


def compilation_cache() -> dict[str, str]:
    """Environment variables that give JAX a persistent compilation cache; those already set keep their values."""
    # A program compiled for one processor must not be loaded on another that shares the home folder.
    digest = hashlib.sha256(describe_processor().encode()).hexdigest()[:8]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    variables = {
        "JAX_COMPILATION_CACHE_DIR": str(home / "l2l" / f"programs-{digest}"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        # So that a program runs on the thread that calls it, and several run at a time.
        "JAX_CPU_ENABLE_ASYNC_DISPATCH": "0",
    }
    return {name: os.environ.get(name, value) for name, value in variables.items()}


def describe_processor() -> str:
    """The processor's architecture and the instructions that it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        processor = platform.processor()
    return f"{platform.machine()} {processor}"


def plugins() -> list[str]:
    """The names of JAX's plug-ins that are installed."""
    spec = importlib.util.find_spec("jax_plugins")
    folders = spec.submodule_search_locations or () if spec else ()
    names = [path.name for folder in folders for path in Path(folder).iterdir()]
    return [*names, "libtpu"] if importlib.util.find_spec("libtpu") else names


def _has_device(plugin: str) -> bool:
    """Whether the plug-in is installed, has a device and is not switched off by an environment variable."""
    is_hidden = plugin == CUDA and os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if is_hidden or os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return False
    has_file = any(next(DEVICES.glob(pattern), None) is not None for pattern in ACCELERATORS[plugin])
    return has_file and any(name.startswith(plugin) for name in plugins())


def _group_settings(controller: str, *names: str) -> Iterator[list[str]]:
    """The words of these files in this process's control group and in every group around it, version 1 or 2."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            root = CONTROL_GROUPS / controller if controllers else CONTROL_GROUPS
            group = root / name.strip("/")
            for folder in (group, *group.parents):
                if folder.is_relative_to(root):
                    with suppress(OSError):
                        if words := [word for name in names for word in (folder / name).read_text().split()]:
                            yield words
