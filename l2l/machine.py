"""What this machine has, as far as this process may use it, found without starting JAX."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

LANES = 16
"""Candidates that share a call of a program on an accelerator, for each of those that a process has."""
GROUPS = Path("/sys/fs/cgroup")
DEVICES = ("nvidia0", "dxg", "kfd", "accel0", "vfio/0")
"""What an NVIDIA or AMD card, a card behind WSL, or a TPU is called in `/dev`."""


def cores() -> int:
    """CPU cores, or as many as their time is allotted for."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name in ("cpu.max", "cpu.cfs_quota_us"):
        for quota, *period in _settings("cpu", name):
            if quota.isdecimal():
                found = min(found, math.ceil(int(quota) / int(period[0] if period else 100_000)))
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
    if not accelerated():
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [each for each in visible.split(",") if each and each != "-1"]
    cards = Path("/proc/driver/nvidia/gpus")
    return [str(index) for index, _ in enumerate(cards.iterdir())] if cards.is_dir() else []


def accelerated() -> bool:
    """Whether JAX will find anything but a CPU: it has a plug-in, and there is a device for it."""
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu") or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    plugged = any(importlib.util.find_spec(name) is not None for name in ("jax_plugins", "libtpu"))
    return plugged and any((Path("/dev") / name).exists() for name in DEVICES)


def _settings(controller: str, name: str) -> Iterator[list[str]]:
    """The words of a control group's file, of this process's own group and of those around it, in either version."""
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
                        if words := (place / name).read_text().split():
                            yield words
