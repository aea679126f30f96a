"""`l2l search`: composes the configuration, calls `l2l.search` and prints how to use the best model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from l2l.cli import config
from l2l.cli.compose import instantiate_config, run_jobs
from l2l.machine import compilation_cache


def search(words: list[str]) -> None:
    """Runs one search, or with -m one search for each combination of values."""
    run_jobs("search", words, _run_job)


def _run_job(plain: dict[str, Any]) -> None:
    """Runs the search of one configuration; in a sweep the run folder and the group are named after the sweep."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    job = HydraConfig.get()
    if job.mode == RunMode.MULTIRUN:
        choices = "-".join(str(job.runtime.choices[group]) for group in ("space", "task", "searcher"))
        plain["out"] = plain["out"] or f"{job.sweep.dir}/{job.job.num}-{choices}"
        plain["group"] = plain["group"] or Path(job.sweep.dir).name
    run_configuration(config.resolve_paths(plain))


def run_configuration(plain: dict[str, Any]) -> None:
    """Checks and instantiates a resolved configuration, runs its search and prints how to use the best model."""
    os.environ.update(compilation_cache())  # before JAX is imported
    config.check(plain)
    call = instantiate_config(plain)
    if not call.keywords["executor"].in_process:
        import jax

        jax.config.update("jax_platforms", "cpu")  # the accelerators belong to the workers
    print(_describe_result(call(config=plain), plain))


def _describe_result(result: Any, plain: dict[str, Any]) -> str:
    """Where the best model is, and three lines of Python that load and score it."""
    from l2l.run.front import FIGURE
    from l2l.store.builtin_spaces import BUILT_IN

    test = result.record.test
    best = (result.directory / "best").resolve()
    front = result.record.front
    members = front and f"front: {len(front.members)} trials, knee {front.knee}: {result.directory / FIGURE}\n"
    if test is None:
        return f"{members or ''}results: {result.directory.resolve()}"
    space_module, task = plain["space"]["_target_"].rpartition(".")[0], plain["task"]
    is_custom = space_module not in BUILT_IN.values()
    modules = ["l2l", task["_target_"].rpartition(".")[0], *([space_module] if is_custom else [])]
    space = f", space={_write_call(plain['space'])}" if is_custom else ""
    seeds = f", {test.mean:.4f} ± {test.std:.4f} over {test.seeds} seeds" if test.seeds else ""
    warning = (
        ""
        if test.reproduced
        else "\nTraining the best candidate again gave other scores here; best/ has the scores above."
    )
    return f"""\
{members or ""}test {test.metric} {test.trial:.4f} (trial {result.best.number}{seeds})
best: {best}{warning}

    import {", ".join(modules)}
    model = l2l.load({str(best)!r}{space})
    print(l2l.evaluate(model, {_write_call(task)}))"""


def _write_call(node: dict[str, Any]) -> str:
    """The Python call that a node of the configuration stands for."""
    arguments = ", ".join(f"{name}={value!r}" for name, value in node.items() if name != "_target_")
    return f"{node['_target_']}({arguments})"
