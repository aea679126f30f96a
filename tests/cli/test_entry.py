"""The entry point: --help, --version and unknown commands, in this process and as an installed script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from commands import Run

import l2l
from l2l.cli import entry

CHILD = """
import sys
from l2l.cli import main
main(["--help"])
print([name for name in ("jax", "hydra", "optuna", "wandb", "numpy", "flax", "rich", "yaml") if name in sys.modules])
"""


def test_help_and_version_need_nothing(run: Run) -> None:
    for words in ((), ("--help",), ("-h",), ("help",)):
        ended = run(*words)
        assert (ended.code, ended.out, ended.err) == (0, entry.HELP, "")
    assert run("--version") == (0, f"l2l {l2l.__version__}\n", "")
    process = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[-1] == "[]"


def test_the_installed_command(folder: Path) -> None:
    script = Path(sys.executable).with_name("l2l")
    process = subprocess.run([script, "serch"], capture_output=True, text=True, env=dict(os.environ))
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr == "l2l: there is no command 'serch': did you mean 'search'?\n"
