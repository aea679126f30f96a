"""Shell completion, as in any Hydra program: `eval "$(l2l -sc install=bash)"`; Hydra completes the overrides."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from l2l.cli.compose import run_jobs

ROOTS = {"search": "search", "show": "search", "compare": "compare"}
"""The commands that take overrides, each with the root of its configuration."""


def complete(words: list[str], commands: Iterable[str]) -> None:
    """Answers `l2l -sc WORDS`: installs the completion, or prints what can follow the line in `COMP_LINE`."""
    root = "search"
    if words and words[0].startswith("query="):
        program, _, typed = os.environ.get("COMP_LINE", "").partition(" ")
        command, has_more, overrides = typed.lstrip().partition(" ")
        if not has_more:
            print(" ".join(sorted(name for name in commands if name.startswith(command))))
            return
        if command not in ROOTS:
            return  # the shell completes file names
        root = ROOTS[command]
        os.environ["COMP_LINE"] = f"{program} {overrides}"  # where Hydra expects no command
    run_jobs(root, ["--shell-completion", *words], _refuse_job, program="l2l")


def _refuse_job(plain: dict[str, Any]) -> None:
    raise AssertionError("Hydra runs no job when it completes a line")
