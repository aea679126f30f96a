"""`result.json`: what a search found and what it took, as plain JSON values."""

from __future__ import annotations

import collections
import math
import platform
import re
import statistics
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

from l2l.store.fingerprint import settings
from l2l.types import Executor, Outcome, Trial

VERSION = 1


def title(part: object) -> str:
    """A part's short name: what it calls itself, else its class in lower case."""
    return str(getattr(part, "title", type(part).__name__.lower()))


def environment(executor: Executor) -> dict[str, Any]:
    """What the last digits may depend on: versions, processor and the executor's settings."""
    versions = {name: metadata.version(name) for name in ("l2l", "jax", "flax", "optax", "optuna", "numpy")}
    machine = {"python": platform.python_version(), "platform": platform.platform(), "machine": platform.machine()}
    return {**machine, **versions, **settings(executor=executor)}


def describe(trial: Trial) -> dict[str, Any]:
    """The best trial as `result.json` names it."""
    assert trial.reward is not None
    return {
        "number": trial.number,
        "reward": trial.reward[0] if len(trial.reward) == 1 else list(trial.reward),
        "values": dict(trial.candidate.values),
        # JSON has no infinity; an objective of one's own may leave one in a metric that is not the reward.
        "metrics": {n: v if math.isfinite(v) else None for n, v in (trial.outcome or Outcome()).metrics.items()},
    }


def common_reason(reasons: Iterable[str | None]) -> str:
    """The reason that stands most often, in the words of its first trial; numbers in it do not tell two apart."""
    texts = [reason or "no reason given" for reason in reasons]
    kinds = [re.sub(r"\d+", "#", text) for text in texts]
    return texts[kinds.index(collections.Counter(kinds).most_common(1)[0][0])]


ROUNDING = 1e-6
"""Share by which a module by itself may miss a loss that was summed in another program: float32's last digits."""


def held_out(metric: str, winner: Trial, scores: Mapping[str, float]) -> dict[str, Any]:
    """The test scores: of the winner's own weights, and the mean and standard deviation over further seeds.

    `reproduced` says that the training came out as the trial's bit by bit, and that the module that was written and
    loaded again scores the same: a share of examples exactly, a loss to float32's last digits.
    """
    others = [value for name, value in scores.items() if name.startswith("test_seed_")]
    mean = statistics.fmean(others) if others else None
    spread = (statistics.stdev(others) if len(others) > 1 else 0.0) if others else None
    return {
        "metric": metric,
        "trial": scores["test"],
        "mean": mean,
        "std": spread,
        "seeds": len(others),
        "reproduced": scores["validation"] == (winner.outcome or Outcome()).metrics[metric]
        and math.isclose(scores.get("loaded", math.nan), scores["validation"], rel_tol=ROUNDING),
    }
