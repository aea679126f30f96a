"""Rewards: what a searcher maximises, made from what a run measured, and the one gate they all pass."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from l2l.errors import InputError, suggest_names
from l2l.types import Outcome, Reward, Status, Trial

COSTS = ("active_parameters", "flops", "train_flops", "bytes", "latency")
"""What an outcome can have beside the parameters: per token; operations forwards, of an example; of the whole training,
backwards twice as many; bytes of the training; seconds from raw examples to their logits."""
LESS = frozenset({"loss", "train_loss", "bits", "parameters", "drop_rate", *COSTS})
"""Metrics of which less is better where nothing else is said."""
LIMIT = 1e30
"""No reward is larger than this: sums and squares of rewards stay finite."""


@dataclass(frozen=True)
class Metric:
    """One metric; `name=None` is the task's own, and `maximise=None` as it has it; of others less is better of `LESS`.

    Raises: InputError if the outcome has no such metric.
    """

    name: str | None = None
    maximise: bool | None = None
    length = 1

    def __post_init__(self) -> None:
        _check_name("Metric", "name", self.name)

    def __call__(self, outcome: Outcome) -> tuple[float, ...]:
        """The metric, or its negative where less is better."""
        value = _metric(outcome, self.name)
        return (-value if self.maximise is False else value,)


@dataclass(frozen=True)
class LatencyPenalised:
    """A metric times `(cost / target) ** w`: a soft price on latency, size or any other measured cost.

    `w` is `below` up to the target and `above` beyond it; `below=0, above=-1` is the hard form. The metric
    must not be negative: a price would then pay. Where less of it is better, its reciprocal is taken.

    Raises: InputError if an argument or an outcome does not allow this.
    Source: Tan et al. 2019, MnasNet, equations 2 and 3.
    """

    target: float
    """What the cost should be, in its own unit."""
    cost: str = "parameters"
    """Metric that holds the cost."""
    name: str | None = None
    below: float = -0.07
    above: float = -0.07
    maximise: bool | None = None
    length = 1

    def __post_init__(self) -> None:
        _check_name("LatencyPenalised", "name", self.name)
        _check_cost("LatencyPenalised", self.cost)
        _check_positive("LatencyPenalised", "target", self.target)
        for name in ("below", "above"):
            value = getattr(self, name)
            if not _is_number(value) or value > 0:
                raise InputError(f"LatencyPenalised: {name} must be a number of at most 0, got {value!r}.")

    def __call__(self, outcome: Outcome) -> tuple[float, ...]:
        """The metric at its price."""
        value, cost = _metric(outcome, self.name), _metric(outcome, self.cost)
        if value < 0:
            raise InputError(f"LatencyPenalised needs a metric of at least 0, got {self.name}={value!r}.")
        if self.maximise is False:
            value = 1.0 / max(value, 1.0 / LIMIT)
        if cost <= 0:
            raise InputError(f"LatencyPenalised needs a cost above 0, got {self.cost}={cost!r}.")
        return (value * (cost / self.target) ** (self.below if cost <= self.target else self.above),)


@dataclass(frozen=True)
class Constrained:
    """A metric (its negative where less is better) under a limit on a cost.

    Beyond it the reward falls by `penalty` for every 100% of excess.

    With `penalty=None` the limit is hard: a trial beyond it fails.

    Raises: InputError if an argument does not allow this, or a hard limit is broken.
    """

    limit: float
    """What the cost may be, in its own unit."""
    cost: str = "parameters"
    """Metric that holds the cost."""
    name: str | None = None
    penalty: float | None = 1.0
    """In the unit of the metric."""
    maximise: bool | None = None
    length = 1

    def __post_init__(self) -> None:
        _check_name("Constrained", "name", self.name)
        _check_cost("Constrained", self.cost)
        _check_positive("Constrained", "limit", self.limit)
        if self.penalty is not None:
            _check_positive("Constrained", "penalty", self.penalty)

    def __call__(self, outcome: Outcome) -> tuple[float, ...]:
        """The metric, less the penalty."""
        value, cost = _metric(outcome, self.name), _metric(outcome, self.cost)
        value = -value if self.maximise is False else value
        if cost <= self.limit:
            return (value,)
        if self.penalty is None:
            raise InputError(f"{self.cost} is {cost!r}, above the limit of {self.limit!r}.")
        return (value - self.penalty * (cost / self.limit - 1),)


@dataclass(frozen=True)
class Several:
    """Several metrics, each an objective of its own: by name whether more of it is better.

    The first is the one that a single winner is chosen by.

    Raises: InputError if they are fewer than two, or the outcome lacks one.
    """

    metrics: Mapping[str, bool]

    def __post_init__(self) -> None:
        if not isinstance(self.metrics, Mapping) or len(self.metrics) < 2:
            raise InputError(f"reward.metrics must be two or more, each as NAME: true or false, got {self.metrics!r}.")
        for name, maximise in self.metrics.items():
            _check_name("Several", "metrics", name)
            if type(maximise) is not bool:
                raise InputError(
                    f"reward.metrics.{name} must be true where more is better, else false, got {maximise!r}."
                )

    @property
    def length(self) -> int:
        """As many as there are metrics."""
        return len(self.metrics)

    def __call__(self, outcome: Outcome) -> tuple[float, ...]:
        """Each metric, or its negative where less is better."""
        found = {name: _metric(outcome, name) for name in self.metrics}
        return tuple(value if self.metrics[name] else -value for name, value in found.items())


def named(reward: Reward, metric: str, maximise: bool = True) -> Reward:
    """`reward` with the task's `metric`, of which more is better or less, where it names none."""
    if not isinstance(reward, Metric | LatencyPenalised | Constrained):
        return reward
    own = reward.name in (None, metric)
    given = {"maximise": (maximise if own else reward.name not in LESS) if reward.maximise is None else reward.maximise}
    return dataclasses.replace(reward, name=reward.name or metric, **given)


def check(reward: Reward, names: Iterable[str]) -> None:
    """Refuses a reward of ours that reads another metric than `names`. Raises: InputError."""
    known = list(names)
    read: list[str | None] = []
    if isinstance(reward, Metric | LatencyPenalised | Constrained):
        read = [reward.name, getattr(reward, "cost", None)]
    elif isinstance(reward, Several):
        read = [*reward.metrics]
    for name in read:
        if name is not None and name not in known:
            words = (
                f"ask for it with objective.costs=[{name}]."
                if name in COSTS and "parameters" in known
                else suggest_names(name, known)
            )
            raise InputError(f"there is no metric {name!r}: {words}")


def gate(trial: Trial, reward: Reward, low: float = -LIMIT, high: float = LIMIT) -> Trial:
    """The finished trial: with a reward of finite numbers in `[low, high]`, or FAILED with the reason.

    Every reward passes here before it is stored, learnt from or called the best. A trial that its objective
    pruned stays pruned, without a reward.
    """
    if trial.outcome is None:
        return _failed(trial, Outcome(), "the objective gave no outcome.")
    outcome, complaint = _clean(trial.outcome)
    if outcome.error is not None or complaint is not None:
        return _failed(trial, outcome, str(complaint if outcome.error is None else outcome.error))
    if trial.status is Status.PRUNED:
        return dataclasses.replace(trial, outcome=outcome, reward=None)
    try:
        values = _rewards(reward, outcome, low, high)
    except InputError as error:
        return _failed(trial, outcome, str(error))
    return dataclasses.replace(trial, status=Status.COMPLETE, outcome=outcome, reward=values)


def by_epoch(outcome: Outcome, reward: Reward) -> dict[int, tuple[float, ...]]:
    """The reward after each epoch of an outcome that has passed the gate, counted from 1; none where it refuses."""
    found: dict[int, tuple[float, ...]] = {}
    for epoch in range(1, max(map(len, outcome.curve.values()), default=0) + 1):
        curve = {name: values[:epoch] for name, values in outcome.curve.items()}
        then = {name: values[-1] for name, values in curve.items() if len(values) == epoch}
        cut = dataclasses.replace(outcome, metrics={**outcome.metrics, **then}, curve=curve)
        with contextlib.suppress(InputError):
            found[epoch] = _rewards(reward, cut, -LIMIT, LIMIT)
    return found


def best(trials: Iterable[Trial]) -> Trial | None:
    """The complete trial with the largest first reward, the earliest of equals; None if none is complete.

    A pruned trial's reward is that of a rung, so it is not compared.
    """
    complete = [
        (trial.reward[0], -trial.number, trial)
        for trial in trials
        if trial.reward is not None and trial.status is not Status.PRUNED
    ]
    return max(complete, key=lambda each: each[:2])[2] if complete else None


def _failed(trial: Trial, outcome: Outcome, reason: str) -> Trial:
    return dataclasses.replace(
        trial, status=Status.FAILED, outcome=dataclasses.replace(outcome, error=reason), reward=None
    )


def _rewards(reward: Reward, outcome: Outcome, low: float, high: float) -> tuple[float, ...]:
    try:
        raw = reward(outcome)
    except InputError:
        raise
    except Exception as error:  # a user's own reward: one bad formula must not end a search
        raise InputError(f"the reward raised {type(error).__name__}: {error}") from error
    if not isinstance(raw, tuple | list) or len(raw) != reward.length:
        raise InputError(f"the reward must be a tuple of {reward.length} numbers, got {raw!r}.")
    # Plus zero: a negative zero would not survive every database.
    values = tuple(_number("the reward", value) + 0.0 for value in raw)
    for value in values:
        if not math.isfinite(value):
            raise InputError(f"the reward is {value!r}: the run diverged.")
        if not low <= value <= high:
            raise InputError(f"the reward {value!r} is outside {low!r} to {high!r}.")
    return values


def _number(what: str, value: Any) -> float:
    """`value` as a float; may be infinite or NaN. Raises: InputError if it is no single real number."""
    kind = str(getattr(value, "dtype", ""))
    scalar = getattr(value, "shape", None) == () and kind.startswith(("float", "int", "uint", "bfloat"))
    if isinstance(value, bool) or not (scalar or isinstance(value, numbers.Real)):
        raise InputError(f"{what} is {str(value)[:80]!r}, not a number.")
    try:
        return float(value)
    except OverflowError:
        return math.inf  # a whole number beyond every float


def _clean(outcome: Outcome) -> tuple[Outcome, str | None]:
    """The outcome as plain floats, without what is none, and a complaint about the first such thing."""
    complaints: list[str] = []

    def numbers_of(what: str, values: Mapping[str, Any], many: bool = False) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for name, value in values.items():
            try:
                label = f"{what} {name!r}"
                kept[name] = [_number(label, each) for each in value] if many else _number(label, value)
            except InputError as error:
                complaints.append(str(error))
        return kept

    metrics, seconds = numbers_of("metric", outcome.metrics), numbers_of("seconds of", outcome.seconds)
    curve = numbers_of("curve", outcome.curve, many=True)
    return Outcome(metrics, seconds, curve, outcome.error), complaints[0] if complaints else None


def _metric(outcome: Outcome, name: str | None) -> float:
    if name is None and len(outcome.metrics) == 1:
        return next(iter(outcome.metrics.values()))
    if name is None:
        raise InputError(f"the reward's metric has no name: {suggest_names('', outcome.metrics)}")
    if name not in outcome.metrics:
        raise InputError(f"there is no metric {name!r}: {suggest_names(name, outcome.metrics)}")
    return outcome.metrics[name]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_name(owner: str, field: str, name: object) -> None:
    if name is not None and (not isinstance(name, str) or not name):
        raise InputError(f"{owner}: {field} must be a metric's name or null, got {name!r}.")


def _check_cost(owner: str, name: object) -> None:
    if not isinstance(name, str) or not name:
        raise InputError(f"{owner}: cost must be a metric's name, got {name!r}.")


def _check_positive(owner: str, field: str, value: object) -> None:
    if not _is_number(value) or not value > 0:  # pyright: ignore[reportOperatorIssue]
        raise InputError(f"{owner}: {field} must be a number above 0, got {value!r}.")
