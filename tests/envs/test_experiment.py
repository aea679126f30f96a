"""The experiment with another library's agent runs and keeps its record; only where that library is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "experiments/gym/run.py"


@pytest.mark.skipif(
    importlib.util.find_spec("stable_baselines3") is None, reason="needs stable-baselines3: pip install -e '.[rl]'"
)
def test_an_agent_of_another_library_plays(folder: Path) -> None:
    command = [
        sys.executable,
        str(RUN),
        "--evaluations",
        "200",
        "--seeds",
        "2",
        "--json",
        "r.json",
        "--figure",
        "f.svg",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "L2L_DATA"}
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stderr
    record = json.loads(Path("r.json").read_text())
    assert (record["table"], record["optimum"]) == ("landscape", 1.0)
    for curves in record["rows"].values():
        assert [curve["evaluations"] for curve in curves] == [[50, 100, 150, 200]] * 2
        assert all(curve["best"] == sorted(curve["best"]) for curve in curves)
    assert Path("f.svg").stat().st_size
