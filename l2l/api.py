"""`l2l.search`: the command without Hydra. Whatever is not given is what the command would take."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from l2l.executors.local import Local
from l2l.objectives.final import Final
from l2l.objectives.trained import Trained
from l2l.reward import Metric
from l2l.run import loop
from l2l.run.loop import Result
from l2l.searchers.controllers.controller import Controller
from l2l.space import SearchSpace
from l2l.store.log import Store
from l2l.tasks.digits import Digits
from l2l.trackers.console import Console
from l2l.trackers.wandb import Wandb
from l2l.types import Executor, Objective, Reward, Rungs, Searcher, Task, Tracker


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
    """Searches `space` on `task` (the digits) with `searcher` (REINFORCE), or continues the search in `out`.

    The arguments are those of `l2l.search`; `functools.partial(Trained, epochs=5)` sets an objective's.

    Raises: InputError for bad input, before anything is written. SearchError if no trial succeeds.
    """
    # The accelerators belong to the workers: this process must not take their memory if it looks at one.
    executor = executor or Local()
    if not executor.in_process:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return loop.search(
        space,
        task or Digits(),
        searcher or Controller(),
        objective,
        reward or Metric(),
        executor,
        store or Store(),
        {"console": Console(), "wandb": Wandb()} if tracker is None else tracker,
        final,
        rungs,
        trials=trials,
        batch=batch,
        seed=seed,
        out=out,
        group=group,
        config=config,
    )
