"""`l2l compare`: compares searchers with equal budgets and paired seeds."""

from __future__ import annotations

import functools
import os
import re
import shlex
from pathlib import Path
from typing import Any

from l2l.cli import config
from l2l.cli.compose import compose_part, instantiate_config, run_jobs
from l2l.cli.overrides import SWEEP_FLAGS
from l2l.errors import InputError
from l2l.machine import compilation_cache


def compare(words: list[str]) -> None:
    """Compares the searchers of searcher=[NAME,NAME] and prints the report. Raises: InputError."""
    for word in words:
        if word in SWEEP_FLAGS:
            raise InputError(f"compare takes no {word}: give the searchers as searcher=[NAME,NAME], in one comparison.")
        if word.lstrip("+~").startswith(("searcher.", "searcher/")):
            raise InputError(
                f"{word} does not say which searcher it applies to: give a searcher its arguments, "
                "'searcher=[\"NAME KEY=VALUE\"]'."
            )
    lists = [re.sub(r"^searcher=([^\[].*)", r"searcher=[\1]", word) for word in words]
    overrides = [re.sub(r"^searcher=", "searchers=", word) for word in lists]
    run_jobs("compare", overrides, functools.partial(_run_comparison, f"l2l compare {shlex.join(words)}".strip()))


def _run_comparison(command: str, plain: dict[str, Any]) -> None:
    """Runs the comparison of a configuration and prints its report up to its costs; `command` goes into the report."""
    searchers = plain.pop("searchers")
    if repeated := [text for index, text in enumerate(searchers) if text in searchers[:index]]:
        raise InputError(f"the searcher {repeated[0]!r} is given twice; each runs once with each seed.")
    plain["searcher"] = {text: _compose_searcher(text) for text in searchers}
    os.environ.update(compilation_cache())  # before JAX is imported
    config.check(plain, config.CompareConfig)
    import jax

    from l2l.compare.report import COSTS_HEADING

    call = instantiate_config(plain)
    if not call.keywords["executor"].in_process:
        jax.config.update("jax_platforms", "cpu")  # the accelerators belong to the workers
    folder = Path(plain["out"]).resolve()
    comparison = call(command=command, say=functools.partial(print, flush=True))
    print((folder / "compare.md").read_text().partition(COSTS_HEADING)[0])
    print(f"recommended: {comparison.recommended or 'none, since none is better than random'}\nresults: {folder}")


def _compose_searcher(text: str) -> dict[str, Any]:
    """The configuration of a searcher from a name, and arguments such as `population=10` or `searcher/policy=lstm`."""
    name, *words = text.split() or [""]
    for word in words:
        if "=" not in word or word.partition("=")[0] in ("trials", "batch", "seed", "seeds"):
            raise InputError(f"the searcher {text!r} may have only arguments of its own, got {word}.")
    overrides = [w if w.startswith("searcher/") else f"++searcher.{w.removeprefix('searcher.')}" for w in words]
    return compose_part(f"searcher/{name}", overrides)
