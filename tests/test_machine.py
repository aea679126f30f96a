"""Cores, memory and accelerators, as far as the control groups of this process allow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from l2l import machine


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree of control groups in place of the machine's."""
    monkeypatch.setattr(machine, "CONTROL_GROUPS", tmp_path)
    return tmp_path


def create_group(groups: Path, controller: str) -> Path:
    """The folder of this process's control group, created if it is missing."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, kinds, path = line.split(":", 2)
        if not kinds or controller in kinds.split(","):
            folder = (groups / controller if kinds else groups) / path.strip("/")
            folder.mkdir(parents=True, exist_ok=True)
            return folder
    pytest.skip("no control groups here")


@pytest.mark.skipif(not Path("/proc/self/cgroup").exists(), reason="needs control groups")
def test_memory_is_what_the_groups_allow(groups: Path) -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert machine.memory() == total
    folder = create_group(groups, "memory")
    for words, expected in (("max\n", total), ("", total), ("1000000\n", 10**6), (f"{2 * total}\n", total)):
        (folder / "memory.max").write_text(words)
        assert machine.memory() == expected
    (folder / "memory.max").unlink()
    (folder / "memory.limit_in_bytes").write_text("5000\n")
    assert machine.memory() == 5000


@pytest.mark.skipif(not Path("/proc/self/cgroup").exists(), reason="needs control groups")
def test_cores_are_those_whose_time_is_granted(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert machine.cores() == 8
    folder = create_group(groups, "cpu")
    for words, expected in (("max 100000", 8), ("250000 100000", 3), ("5000 100000", 1), ("9900000 100000", 8)):
        (folder / "cpu.max").write_text(words)
        assert machine.cores() == expected
    (folder / "cpu.max").unlink()
    (folder / "cpu.cfs_period_us").write_text("20000")
    for words, expected in (("-1", 8), ("80000", 4)):
        (folder / "cpu.cfs_quota_us").write_text(words)
        assert machine.cores() == expected


@pytest.mark.parametrize(
    ("plugin", "device", "cards"),
    [
        ("xla_cuda13", "nvidia3", ["0"]),
        ("xla_cuda12", "dxg", []),
        ("xla_rocm60", "kfd", []),
        ("libtpu", "accel0", []),
        ("xla_cuda13", "kfd", None),
        ("xla_rocm60", "nvidia0", None),
        ("other", "nvidia0", None),
        ("xla_cuda13", "nvidiactl", None),
    ],
)
def test_an_accelerator_is_a_device_and_its_plug_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: str, device: str, cards: list[str] | None
) -> None:
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine, "DEVICES", tmp_path)
    monkeypatch.setattr(machine, "plugins", lambda: [plugin])
    assert not machine.has_accelerator()
    (tmp_path / device).touch()
    assert machine.has_accelerator() == (cards is not None)
    assert machine.gpus() == (cards or [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine.has_accelerator() == (cards is not None and "cuda" not in plugin)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,GPU-7")
    assert machine.gpus() == (["0", "GPU-7"] if cards is not None and "cuda" in plugin else [])
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert not machine.has_accelerator()
    assert machine.gpus() == []


def test_plug_ins_are_found_where_they_are_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jax_plugins" / "xla_made_up").mkdir(parents=True)
    (tmp_path / "libtpu.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert {"xla_made_up", "libtpu"} <= set(machine.plugins())
