"""`l2l.search`: the command without Hydra, with the command's defaults."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from l2l.executors.local import Local
from l2l.objectives.final import Final
from l2l.objectives.trained import Trained
from l2l.reward import Metric
from l2l.run.loop import run_search
from l2l.run.result import Result
from l2l.run.setup import SearchSetup
from l2l.searchers.controllers.controller import Controller
from l2l.space import SearchSpace
from l2l.store.optuna_store import OptunaStore
from l2l.tasks.digits import Digits
from l2l.trackers.console import Console
from l2l.trackers.wandb import Wandb
from l2l.types import Executor, Objective, Reward, Rungs, Searcher, Store, Task, Tracker


def search(
    space: SearchSpace[Any],
    task: Task | None = None,
    searcher: Searcher[Any] | None = None,
    *,
    objective: Callable[..., Objective] = Trained,
    reward: Reward | None = None,
    executor: Executor | None = None,
    store: Store | None = None,
    tracker: Mapping[str, Tracker] | None = None,
    final: Callable[..., Objective] | None = Final,
    rungs: Rungs | None = None,
    trials: int = 64,
    batch: int = 8,
    seed: int = 0,
    out: str | Path | None = None,
    group: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> Result:
    """Searches `space` for the candidate with the highest reward on `task`, or continues the search in `out`.

    Args:
        space: What may be chosen.
        task: Data, loss and metric; the digits by default.
        searcher: Proposes candidates; REINFORCE by default.
        objective: Called as `objective(space=, task=, seed=)`, makes what runs a trial;
            `functools.partial(Trained, epochs=5)` sets an argument.
        reward: Turns an outcome into what is maximised; the task's metric by default.
        executor: Where trials run; one worker process per accelerator, or several on the CPU, by default.
        store: Where trials are stored; `study.db` in the run folder by default.
        tracker: What watches the search, by name; the console and wandb (offline without a key) by default.
        final: Called as `final(objective=, directory=)`, makes what trains the winner again, scores it on the test
            split and exports it to `best/`; None: nothing is exported.
        rungs: Early stopping; None: every candidate trains to the end.
        trials: The total number of trials.
        batch: Trials that the searcher proposes at once.
        seed: Determines every random decision, from 0 to 2**32 - 1.
        out: The run folder; a new one below `runs` by default.
        group: The group of the run in wandb; the run's name by default.
        config: Written to `config.yaml` in the run folder.

    Raises: InputError for bad input, before anything is written. SearchError if no trial succeeds.
    """
    platforms = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
    if config is None and platforms != "cpu":  # the command line decides for itself
        # The accelerators belong to the workers: this process must not take their memory if it looks at one.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    setup = SearchSetup(
        space=space, task=Digits() if task is None else task, searcher=Controller() if searcher is None else searcher,
        objective=objective, reward=Metric() if reward is None else reward, executor=executor or Local(),
        store=OptunaStore() if store is None else store,
        tracker={"console": Console(), "wandb": Wandb()} if tracker is None else tracker, final=final, rungs=rungs,
        trials=trials, batch=batch, seed=seed, out=out, group=group, config=config,
    )  # fmt: skip
    return run_search(setup)
