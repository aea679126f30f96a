"""What every benchmark says first."""

from __future__ import annotations

import sys

import about
import pytest


def test_the_command_the_machine_and_the_versions(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks/memory.py", "--trials", "3"])
    machine = about.announce()
    first, second = capsys.readouterr().out.splitlines()
    assert first == "command: python benchmarks/memory.py --trials 3"
    assert second.startswith(f"machine: machine {machine['machine']} python 3.")
    assert list(machine) == ["machine", "python", "jax", "flax", "optax", "optuna", "numpy"]


def test_an_interpreter_without_its_library_is_named() -> None:
    with pytest.raises(SystemExit, match="has no nowhere: give one that has with --nowhere-python"):
        about.read_versions({"nowhere": sys.executable})
