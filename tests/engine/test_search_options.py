"""Lanes are exact in programs that are compiled with a search's own options; other tests compile more quickly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_lanes_are_exact_in_the_programs_of_a_search() -> None:
    file = Path(__file__).with_name("test_population.py")
    exact = "neighbours or number_of_lanes or same_bits"
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", str(file), "-k", exact]
    ended = subprocess.run(
        command, env={**os.environ, "XLA_FLAGS": ""}, cwd=file.parents[2], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
