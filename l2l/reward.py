"""Rewards: the numbers that a searcher maximises, computed from an outcome, and the gate that checks every reward."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from l2l.errors import InputError, check_number, suggest_names
from l2l.types import Outcome, Reward, Status, Trial

COSTS = ("active_parameters", "flops", "train_flops", "bytes", "latency")
"""What an outcome can measure besides the number of parameters: parameters active per token; operations of a forward
pass of one example; operations of the whole training, a backward pass being twice a forward one; bytes of memory in
training; seconds from raw examples to their logits."""
LOWER_IS_BETTER = frozenset({"loss", "train_loss", "bits", "parameters", "drop_rate", *COSTS})
"""Metrics that are minimised unless `maximise` is given."""
REWARD_LIMIT = 1e30
"""The largest absolute value of a reward, so that sums and squares of rewards stay finite."""


@dataclass(frozen=True)
class Metric:
    """One metric; `name=None` is the task's metric.

    `maximise=None` is the task's direction for its own metric; any other metric is minimised if it is in
    `LOWER_IS_BETTER`.

    Raises: InputError if the outcome has no such metric.
    """

    name: str | None = None
    maximise: bool | None = None
    length = 1

    def __post_init__(self) -> None:
        _check_name("Metric's name", self.name, optional=True)

    def __call__(self, outcome: Outcome) -> tuple[float, ...]:
        """The metric, or its negative if it is minimised."""
        value = _read_metric(outcome, self.name)
        return (-value if self.maximise is False else value,)


@dataclass(frozen=True)
class LatencyPenalised:
    """A metric times `(cost / target) ** w`: a soft penalty on latency, size or any other measured cost.

    `w` is `below` up to the target and `above` beyond it; `below=0, above=-1` is the hard form. The metric must not be
    negative: a high cost would then raise it. A metric that is minimised enters as its reciprocal.

    Raises: InputError if an argument or an outcome is out of its range.
    Source: Tan et al. 2019, MnasNet, equations 2 and 3.
    """

    target: float
    """The desired cost, in the unit of the cost."""
    cost: str = "parameters"
    """The metric that is the cost."""
    name: str | None = None
    below: float = -0.07
    above: float = -0.07
    maximise: bool | None = None
    length = 1

    def __post_init__(self) -> None:
        _check_name("LatencyPenalised's name", self.name, optional=True)
        _check_name("LatencyPenalised's cost", self.cost)
        check_number("LatencyPenalised's target", self.target, above=0)
        check_number("LatencyPenalised's below", self.below, high=0)
        check_number("LatencyPenalised's above", self.above, high=0)

    def __call__(self, outcome: Outcome) -> tuple[float, ...]:
        """The penalised metric."""
        value, cost = _read_metric(outcome, self.name), _read_metric(outcome, self.cost)
        if value < 0:
            raise InputError(f"LatencyPenalised needs a metric of at least 0, got {self.name}={value!r}.")
        if self.maximise is False:
            value = 1.0 / max(value, 1.0 / REWARD_LIMIT)
        if cost <= 0:
            raise InputError(f"LatencyPenalised needs a cost above 0, got {self.cost}={cost!r}.")
        return (value * (cost / self.target) ** (self.below if cost <= self.target else self.above),)


@dataclass(frozen=True)
class Constrained:
    """A metric (its negative if it is minimised) under a limit on a cost.

    Above the limit the reward falls by `penalty` for every 100% of excess. With `penalty=None` the limit is hard: a
    trial above it fails.

    Raises: InputError if an argument is out of its range, or a hard limit is exceeded.
    """

    limit: float
    """The highest allowed cost, in the unit of the cost."""
    cost: str = "parameters"
    """The metric that is the cost."""
    name: str | None = None
    penalty: float | None = 1.0
    """In the unit of the metric."""
    maximise: bool | None = None
    length = 1

    def __post_init__(self) -> None:
        _check_name("Constrained's name", self.name, optional=True)
        _check_name("Constrained's cost", self.cost)
        check_number("Constrained's limit", self.limit, above=0)
        check_number("Constrained's penalty", self.penalty, above=0, optional=True)

    def __call__(self, outcome: Outcome) -> tuple[float, ...]:
        """The metric minus the penalty."""
        value, cost = _read_metric(outcome, self.name), _read_metric(outcome, self.cost)
        value = -value if self.maximise is False else value
        if cost <= self.limit:
            return (value,)
        if self.penalty is None:
            raise InputError(f"{self.cost} is {cost!r}, above the limit of {self.limit!r}.")
        return (value - self.penalty * (cost / self.limit - 1),)


@dataclass(frozen=True)
class Several:
    """Several metrics, each an objective of its own: by name, whether it is maximised.

    The first metric decides where a single winner is needed.

    Raises: InputError if there are fewer than two, or the outcome lacks one.
    """

    metrics: Mapping[str, bool]

    def __post_init__(self) -> None:
        if not isinstance(self.metrics, Mapping) or len(self.metrics) < 2:
            raise InputError(f"reward.metrics must be two or more, each as NAME: true or false, got {self.metrics!r}.")
        for name, maximise in self.metrics.items():
            _check_name("a key of reward.metrics", name)
            if type(maximise) is not bool:
                raise InputError(
                    f"reward.metrics.{name} must be true where more is better, else false, got {maximise!r}."
                )

    @property
    def length(self) -> int:
        """The number of metrics."""
        return len(self.metrics)

    def __call__(self, outcome: Outcome) -> tuple[float, ...]:
        """The metrics, each as its negative if it is minimised."""
        values = {name: _read_metric(outcome, name) for name in self.metrics}
        return tuple(value if self.metrics[name] else -value for name, value in values.items())


def complete_reward(reward: Reward, metric: str, maximise: bool = True) -> Reward:
    """`reward` with the task's `metric` and its direction filled in where it gives none of its own."""
    if not isinstance(reward, Metric | LatencyPenalised | Constrained):
        return reward
    direction = reward.maximise
    if direction is None:
        direction = maximise if reward.name in (None, metric) else reward.name not in LOWER_IS_BETTER
    return dataclasses.replace(reward, name=reward.name or metric, maximise=direction)


def check_metrics(reward: Reward, names: Iterable[str]) -> None:
    """Rejects a built-in reward that reads a metric not in `names`. Raises: InputError."""
    names = list(names)
    metrics: list[str | None] = []
    if isinstance(reward, Metric | LatencyPenalised | Constrained):
        metrics = [reward.name, None if isinstance(reward, Metric) else reward.cost]
    elif isinstance(reward, Several):
        metrics = [*reward.metrics]
    for metric in metrics:
        if metric is not None and metric not in names:
            is_cost = metric in COSTS and "parameters" in names
            advice = f"ask for it with objective.costs=[{metric}]." if is_cost else suggest_names(metric, names)
            raise InputError(f"there is no metric {metric!r}: {advice}")


def gate(trial: Trial, reward: Reward, low: float = -REWARD_LIMIT, high: float = REWARD_LIMIT) -> Trial:
    """The finished trial: with a reward of finite numbers in `[low, high]`, or FAILED with the reason.

    Every reward passes this gate before it is stored, learnt from or called the best. A trial that its objective
    pruned stays pruned, without a reward.
    """
    if trial.outcome is None:
        return _fail_trial(trial, Outcome(), "the objective gave no outcome.")
    outcome, complaint = _clean_outcome(trial.outcome)
    if outcome.error is not None or complaint is not None:
        return _fail_trial(trial, outcome, str(complaint if outcome.error is None else outcome.error))
    if trial.status is Status.PRUNED:
        return dataclasses.replace(trial, outcome=outcome, reward=None)
    try:
        values = _compute_reward(reward, outcome, low, high)
    except InputError as error:
        return _fail_trial(trial, outcome, str(error))
    return dataclasses.replace(trial, status=Status.COMPLETE, outcome=outcome, reward=values)


def compute_epoch_rewards(outcome: Outcome, reward: Reward) -> dict[int, tuple[float, ...]]:
    """The reward after each epoch, counted from 1, of an outcome that has passed the gate; none where it is invalid."""
    rewards: dict[int, tuple[float, ...]] = {}
    for epoch in range(1, max(map(len, outcome.curve.values()), default=0) + 1):
        curve = {name: values[:epoch] for name, values in outcome.curve.items()}
        metrics = {name: values[-1] for name, values in curve.items() if len(values) == epoch}
        shortened = dataclasses.replace(outcome, metrics={**outcome.metrics, **metrics}, curve=curve)
        with contextlib.suppress(InputError):
            rewards[epoch] = _compute_reward(reward, shortened, -REWARD_LIMIT, REWARD_LIMIT)
    return rewards


def find_best(trials: Iterable[Trial]) -> Trial | None:
    """The complete trial with the largest first reward, the earliest of equals; None if none is complete.

    A pruned trial does not count: its reward is that of a rung.
    """
    complete = [
        (trial.reward[0], -trial.number, trial)
        for trial in trials
        if trial.reward is not None and trial.status is not Status.PRUNED
    ]
    return max(complete, key=lambda entry: entry[:2])[2] if complete else None


def _fail_trial(trial: Trial, outcome: Outcome, reason: str) -> Trial:
    return dataclasses.replace(
        trial, status=Status.FAILED, outcome=dataclasses.replace(outcome, error=reason), reward=None
    )


def _compute_reward(reward: Reward, outcome: Outcome, low: float, high: float) -> tuple[float, ...]:
    """The reward of an outcome as finite floats within the bounds. Raises: InputError."""
    try:
        raw = reward(outcome)
    except InputError:
        raise
    except Exception as error:  # a custom reward: one bad formula must not end a search
        raise InputError(f"the reward raised {type(error).__name__}: {error}") from error
    if not isinstance(raw, tuple | list) or len(raw) != reward.length:
        raise InputError(f"the reward must be a tuple of {reward.length} numbers, got {raw!r}.")
    # Plus zero: a negative zero would not survive every database.
    values = tuple(_read_float("the reward", value) + 0.0 for value in raw)
    for value in values:
        if not math.isfinite(value):
            raise InputError(f"the reward is {value!r}: the run diverged.")
        if not low <= value <= high:
            raise InputError(f"the reward {value!r} is outside {low!r} to {high!r}.")
    return values


def _read_float(label: str, value: Any) -> float:
    """`value` as a float, which may be infinite or NaN. Raises: InputError if it is not a single real number."""
    dtype = str(getattr(value, "dtype", ""))
    is_scalar_array = getattr(value, "shape", None) == () and dtype.startswith(("float", "int", "uint", "bfloat"))
    if isinstance(value, bool) or not (is_scalar_array or isinstance(value, numbers.Real)):
        raise InputError(f"{label} is {str(value)[:80]!r}, not a number.")
    try:
        return float(value)
    except OverflowError:
        return math.inf  # an integer beyond every float


def _clean_outcome(outcome: Outcome) -> tuple[Outcome, str | None]:
    """The outcome as plain floats, without values that are not numbers, and a complaint about the first of those."""
    complaints: list[str] = []

    def read_floats(kind: str, values: Mapping[str, Any], are_lists: bool = False) -> dict[str, Any]:
        floats: dict[str, Any] = {}
        for name, value in values.items():
            try:
                label = f"{kind} {name!r}"
                floats[name] = [_read_float(label, item) for item in value] if are_lists else _read_float(label, value)
            except InputError as error:
                complaints.append(str(error))
        return floats

    metrics, seconds = read_floats("metric", outcome.metrics), read_floats("seconds of", outcome.seconds)
    curve = read_floats("curve", outcome.curve, are_lists=True)
    return Outcome(metrics, seconds, curve, outcome.error), complaints[0] if complaints else None


def _read_metric(outcome: Outcome, name: str | None) -> float:
    if name is None and len(outcome.metrics) == 1:
        return next(iter(outcome.metrics.values()))
    if name is None:
        raise InputError(f"the reward's metric has no name: {suggest_names('', outcome.metrics)}")
    if name not in outcome.metrics:
        raise InputError(f"there is no metric {name!r}: {suggest_names(name, outcome.metrics)}")
    return outcome.metrics[name]


def _check_name(label: str, value: object, optional: bool = False) -> None:
    if not (isinstance(value, str) and value) and not (optional and value is None):
        raise InputError(f"{label} must be a metric's name{' or null' * optional}, got {value!r}.")
