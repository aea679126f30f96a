"""What every benchmark says first: the command that was given, the machine, and the versions."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from l2l import machine

CORES = machine.cores()


def read_command() -> str:
    """The command that was given."""
    return " ".join(["python", *sys.argv])


def announce(pythons: Mapping[str, str] | None = None) -> dict[str, str]:
    """Prints the command and what `versions` gives, for the benchmark's record."""
    print("command:", read_command())
    about = read_versions(pythons or {})
    print("machine:", *(f"{name} {value}" for name, value in about.items()), flush=True)
    return about


def read_versions(pythons: Mapping[str, str]) -> dict[str, str]:
    """The machine and the versions, those of a peer's library as its own interpreter has them.

    Raises: SystemExit if an interpreter does not have the library that it is named for.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    about = {"machine": f"{processor}, {CORES} cores", "python": platform.python_version()}
    about |= {name: version(name) for name in ("jax", "flax", "optax", "optuna", "numpy")}
    for name, python in pythons.items():
        question = [python, "-c", f"import importlib.metadata as m; print(m.version({name!r}))"]
        answer = subprocess.run(question, capture_output=True, text=True)
        if answer.returncode:
            raise SystemExit(f"{python} has no {name}: give one that has with --{name}-python.")
        about[name] = answer.stdout.strip()
    return about
