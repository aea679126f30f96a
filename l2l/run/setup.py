"""What one search is made of, and the checks before anything is written."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax

from l2l.abilities import UsesEarlierSearches
from l2l.errors import check_integer, check_part
from l2l.reward import check_metrics, complete_reward
from l2l.run import front
from l2l.run.early_stopping import EarlyStopping, require_staged
from l2l.space import SearchSpace
from l2l.store import fingerprint
from l2l.types import Executor, Objective, Outcome, Reward, Rungs, Searcher, Status, Store, Task, Tracker, Trial

_PARTS = {
    "space": ("a SearchSpace", SearchSpace),
    "task": ("a Task, such as l2l.tasks.Digits()", Task),
    "searcher": ("a Searcher, such as l2l.searchers.Random()", Searcher),
    "reward": ("a Reward, such as l2l.reward.Metric()", Reward),
    "executor": ("an Executor, such as l2l.executors.Local()", Executor),
    "store": ("a Store, such as l2l.store.OptunaStore()", Store),
}
"""By name of a part: its role in words, and its Protocol."""


@dataclass(frozen=True)
class SearchSetup:
    """The arguments of `l2l.search`, with all defaults filled in."""

    space: SearchSpace[Any]
    task: Task
    searcher: Searcher[Any]
    objective: Callable[..., Objective]
    """Makes the objective: `objective(space=, task=, seed=)`."""
    reward: Reward
    executor: Executor
    store: Store
    tracker: Mapping[str, Tracker]
    final: Callable[..., Objective] | None
    """Makes the final run, which exports the winner: `final(objective=, directory=)`."""
    rungs: Rungs | None
    trials: int
    batch: int
    seed: int
    out: str | Path | None
    group: str | None
    config: Mapping[str, Any] | None
    """Written to the run folder as it is."""


class Prepared(NamedTuple):
    """A checked search."""

    objective: Objective
    reward: Reward
    """The reward with the task's metric filled in."""
    settings: dict[str, Any]
    """What the search's history depends on, as JSON values by name."""


def prepare_search(setup: SearchSetup) -> Prepared:
    """Checks every part of a search, alone and with the others. Raises: InputError."""
    _check_parts(setup)
    reward = complete_reward(setup.reward, setup.task.metric, setup.task.maximise)
    for name, low, high in (("trials", 1, None), ("batch", 1, None), ("seed", 0, 2**32 - 1)):
        check_integer(name, getattr(setup, name), low, high)
    setup.task.check()
    objective = setup.objective(space=setup.space, task=setup.task, seed=setup.seed)
    if metrics := objective.check():
        check_metrics(reward, metrics)
    setup.executor.check(objective)
    size = min(setup.batch, setup.trials)
    if setup.rungs is not None:
        EarlyStopping(setup.rungs, require_staged(objective)).check(reward.length, size)
    rehearse(setup.searcher, setup.space, size, reward.length)
    return Prepared(objective, reward, _collect_settings(setup, objective, reward))


def rehearse(searcher: Searcher[Any], space: SearchSpace[Any], size: int, length: int) -> None:
    """Tells a searcher about an invented batch. Raises: InputError if it rejects the space or the rewards."""
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        generator = random.Random(0)
        candidates = [space.sample(generator) for _ in range(size)]
        trials = [
            Trial(number, candidate, (0, size), (number,), Status.COMPLETE, Outcome(), (0.0,) * length)
            for number, candidate in enumerate(candidates)
        ]
        searcher.tell(searcher.init(space, jax.random.key(0)), trials)


def _check_parts(setup: SearchSetup) -> None:
    """Rejects objects that cannot play their role, before they are called. Raises: InputError."""
    for name, (role, protocol) in _PARTS.items():
        check_part(name, getattr(setup, name), role, protocol)


def _collect_settings(setup: SearchSetup, objective: Objective, reward: Reward) -> dict[str, Any]:
    settings = fingerprint.collect_settings(
        searcher=setup.searcher, reward=reward, batch=setup.batch, seed=setup.seed, task=setup.task
    )
    if reward.length > 1:  # stored rewards and the winner depend on their order
        settings["reward.objectives"] = [name for name, _ in front.objective_axes(reward, reward.length)]
    settings |= fingerprint.collect_settings(objective=objective, skip=("space", "task", "seed"))
    settings |= fingerprint.collect_settings(rungs=setup.rungs) if setup.rungs is not None else {}
    digest = setup.searcher.digest(setup.space) if isinstance(setup.searcher, UsesEarlierSearches) else None
    if digest is not None:
        settings["searcher.known"] = digest  # a resumed search must learn the same from earlier searches
    return {**settings, "task.data": fingerprint.digest_data(setup.task), **fingerprint.describe_builder(setup.space)}


def with_rungs(objective: Objective, rungs: Rungs | None, directory: Path) -> Objective:
    """The objective with its checkpoints in the run folder if there are rungs."""
    return objective if rungs is None else require_staged(objective).with_checkpoints(directory.resolve() / "rungs")
