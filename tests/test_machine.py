"""What a machine has: as much as the control groups around this process leave of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from l2l import machine


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree of control groups in place of the machine's."""
    monkeypatch.setattr(machine, "GROUPS", tmp_path)
    return tmp_path


def own(groups: Path, controller: str) -> Path:
    """The folder of this process's own group, made if it is not there."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, kinds, path = line.split(":", 2)
        if not kinds or controller in kinds.split(","):
            found = (groups / controller if kinds else groups) / path.strip("/")
            found.mkdir(parents=True, exist_ok=True)
            return found
    pytest.skip("no control groups here")


@pytest.mark.skipif(not Path("/proc/self/cgroup").exists(), reason="needs control groups")
def test_memory_is_what_the_groups_allow(groups: Path) -> None:
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert machine.memory() == whole
    place = own(groups, "memory")
    for words, expected in (("max\n", whole), ("", whole), ("1000000\n", 10**6), (f"{2 * whole}\n", whole)):
        (place / "memory.max").write_text(words)
        assert machine.memory() == expected
    (place / "memory.max").unlink()
    (place / "memory.limit_in_bytes").write_text("5000\n")
    assert machine.memory() == 5000


@pytest.mark.skipif(not Path("/proc/self/cgroup").exists(), reason="needs control groups")
def test_cores_are_those_whose_time_is_allotted(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert machine.cores() == 8
    place = own(groups, "cpu")
    for words, expected in (("max 100000", 8), ("250000 100000", 3), ("5000 100000", 1), ("9900000 100000", 8)):
        (place / "cpu.max").write_text(words)
        assert machine.cores() == expected
    (place / "cpu.max").unlink()
    for words, expected in (("-1", 8), ("200000", 2)):
        (place / "cpu.cfs_quota_us").write_text(words)
        assert machine.cores() == expected


def test_an_accelerator_is_a_device_and_a_plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine, "DEVICES", (str(tmp_path),))
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    assert not machine.accelerated()
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: name)
    assert machine.accelerated()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert machine.gpus() == ["0", "3"]
    for name, value in (("CUDA_VISIBLE_DEVICES", ""), ("JAX_PLATFORMS", "cpu")):
        monkeypatch.setenv(name, value)
        assert not machine.accelerated()
        assert machine.gpus() == []
