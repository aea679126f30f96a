"""`result.json` as a record: what a search found and how long it took."""

from __future__ import annotations

import collections
import math
import os
import platform
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from l2l.abilities import HasTitle
from l2l.store.fingerprint import collect_settings
from l2l.types import Executor, Outcome, Status, Trial

VERSION = 1
ROUNDING = 1e-6
"""Relative difference that float32 rounding may make between the losses of one module in two programs."""


@dataclass(frozen=True)
class TrialCounts:
    """How many trials ended in which way."""

    complete: int = 0
    failed: int = 0
    pruned: int = 0


@dataclass(frozen=True)
class TestScores:
    """What the final run scores: the winner on the test split, and whether its trial was reproduced."""

    __test__ = False  # pytest collects classes of this name

    metric: str
    trial: float
    """Of the exported weights."""
    mean: float | None
    """Over trainings under further seeds; None without them."""
    std: float | None
    seeds: int
    """How many further seeds there are."""
    reproduced: bool
    """Whether the final training has exactly the trial's score on the validation split, and the reloaded module
    the same but for rounding."""


@dataclass(frozen=True)
class BestTrial:
    """A trial as `result.json` describes it: the winner, or a member of the front."""

    number: int
    reward: tuple[float, ...]
    values: Mapping[str, Any]
    metrics: Mapping[str, float | None]
    folder: str | None = None
    """Of an exported member of the front: its folder in the run folder."""
    test: float | None = None
    reproduced: bool | None = None

    @classmethod
    def from_trial(cls, trial: Trial) -> BestTrial:
        """The description of a trial with a reward."""
        assert trial.reward is not None
        metrics = (trial.outcome or Outcome()).metrics
        # JSON has no infinity; a custom objective may leave one in a metric that is not the reward.
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        return cls(trial.number, trial.reward, dict(trial.candidate.values), finite)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> BestTrial:
        """Reads what `to_json` wrote. Raises: TypeError or KeyError if it is something else."""
        reward: Any = values["reward"]
        parts: dict[str, Any] = {"reward": tuple(reward) if isinstance(reward, list) else (reward,)}
        return cls(**{**_select_fields(cls, values), **parts})

    def to_json(self) -> dict[str, Any]:
        """JSON values; a reward of one objective is a plain number."""
        export = {"folder": self.folder, "test": self.test, "reproduced": self.reproduced}
        return {
            "number": self.number,
            "reward": self.reward[0] if len(self.reward) == 1 else list(self.reward),
            "values": dict(self.values),
            "metrics": dict(self.metrics),
            **(export if self.folder is not None else {}),
        }


@dataclass(frozen=True)
class FrontRecord:
    """The trials that no other trial beats in every objective."""

    members: Sequence[BestTrial]
    """The best by the first objective first."""
    knee: int
    """Number of the member that gives up least."""
    hypervolume: float
    """Dominated share of the box between the worst and the best complete trial in each objective.

    It compares earlier and later fronts of one search and nothing else."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FrontRecord:
        """Reads what `to_json` wrote. Raises: TypeError or KeyError if it is something else."""
        parts: dict[str, Any] = {"members": [BestTrial.from_json(member) for member in values["members"]]}
        return cls(**{**_select_fields(cls, values), **parts})

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        members = [member.to_json() for member in self.members]
        return {"members": members, "knee": self.knee, "hypervolume": self.hypervolume}


@dataclass(frozen=True, kw_only=True)
class SearchRecord:
    """The content of `result.json`."""

    version: int = VERSION
    space: str
    task: str
    searcher: str
    seed: int
    trials: TrialCounts
    best: BestTrial | None
    """None if no trial was completed."""
    test: TestScores | None
    """None without a final run."""
    front: FrontRecord | None = None
    """None for a single objective."""
    seconds: Mapping[str, float]
    environment: Mapping[str, Any]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SearchRecord:
        """Reads what `to_json` wrote. Raises: TypeError or KeyError if it is something else."""
        best, test, front = values["best"], values["test"], values.get("front")
        parts: dict[str, Any] = {
            "trials": TrialCounts(**_select_fields(TrialCounts, values["trials"])),
            "best": None if best is None else BestTrial.from_json(best),
            "test": None if test is None else TestScores(**_select_fields(TestScores, test)),
            "front": None if front is None else FrontRecord.from_json(front),
        }
        return cls(**{**_select_fields(cls, values), **parts})

    def to_json(self) -> dict[str, Any]:
        """JSON values, in the order of `result.json`."""
        return {
            "version": self.version,
            "space": self.space,
            "task": self.task,
            "searcher": self.searcher,
            "seed": self.seed,
            "trials": {**vars(self.trials)},
            "best": self.best and self.best.to_json(),
            "test": self.test and {**vars(self.test)},
            **({"front": self.front.to_json()} if self.front else {}),
            "seconds": dict(self.seconds),
            "environment": dict(self.environment),
        }


@dataclass(frozen=True)
class Result:
    """How a search ended."""

    directory: Path
    best: Trial
    """The complete trial of the highest reward."""
    trials: Sequence[Trial] = field(repr=False)
    record: SearchRecord = field(repr=False)
    """The content of `result.json`."""


def _select_fields(record: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a record's fields, without those that only a newer l2l knows."""
    names = {one.name for one in fields(record)}
    return {name: value for name, value in values.items() if name in names}


def title(part: object) -> str:
    """A part's short name: its title if it has one, else its class in lower case."""
    return str(part.title) if isinstance(part, HasTitle) else type(part).__name__.lower()


def describe_environment(executor: Executor) -> dict[str, Any]:
    """What the last digits may depend on: versions, processor, XLA's options and the executor's settings."""
    versions = {name: metadata.version(name) for name in ("l2l", "jax", "flax", "optax", "optuna", "numpy")}
    machine = {"python": platform.python_version(), "platform": platform.platform(), "machine": platform.machine()}
    options = {"XLA_FLAGS": os.environ.get("XLA_FLAGS", "")}
    return {**machine, **versions, **options, **collect_settings(executor=executor)}


def count_trials(trials: Sequence[Trial]) -> TrialCounts:
    """How many of the trials ended in which way; running trials do not count."""
    counts = collections.Counter(trial.status for trial in trials)
    return TrialCounts(counts[Status.COMPLETE], counts[Status.FAILED], counts[Status.PRUNED])


def find_common_reason(reasons: Iterable[str | None]) -> str:
    """The most frequent reason, in the words of its first trial; reasons that differ in numbers only are one."""
    texts = [reason or "no reason given" for reason in reasons]
    kinds = [re.sub(r"\d+", "#", text) for text in texts]
    return texts[kinds.index(collections.Counter(kinds).most_common(1)[0][0])]


def summarise_test(metric: str, winner: Trial, scores: Mapping[str, float]) -> TestScores:
    """The test scores from the metrics of a final run: `validation`, `test`, `loaded` and `test_seed_0` and so on.

    The final training must score exactly what the trial scored. The reloaded module runs in another program, so its
    score may differ by `ROUNDING`, which is less than one example changes in an accuracy.
    """
    others = [value for name, value in scores.items() if name.startswith("test_seed_")]
    mean = statistics.fmean(others) if others else None
    std = (statistics.stdev(others) if len(others) > 1 else 0.0) if others else None
    reproduced = scores["validation"] == (winner.outcome or Outcome()).metrics[metric] and math.isclose(
        scores.get("loaded", math.nan), scores["validation"], rel_tol=ROUNDING
    )
    return TestScores(metric, scores["test"], mean, std, len(others), reproduced)
