"""The space of a define-by-run study: Optuna's distributions as choices, and which of them depend on which."""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from l2l.encoding import MAX_CODES
from l2l.errors import InputError
from l2l.space import Candidate, Categorical, Choice, Integer, Real, SearchSpace, Value, When

FINEST = 2**53
"""A float with more steps than this counts as continuous: floats are no finer."""


def create_choice(distribution: BaseDistribution, when: When | None = None) -> Choice:
    """A distribution as a choice of encoded values: an option's index, a number's step on its grid or its quantile."""
    when = when or {}
    if isinstance(distribution, CategoricalDistribution):
        offset = _hash_options(distribution)
        return Categorical(options=tuple(range(offset, offset + len(distribution.choices))), when=when)
    if isinstance(distribution, IntDistribution) and distribution.log:
        return Integer(low=distribution.low, high=distribution.high, log=True, when=when)
    if isinstance(distribution, IntDistribution):
        return Integer(low=0, high=(distribution.high - distribution.low) // distribution.step, when=when)
    if isinstance(distribution, FloatDistribution):
        steps = _count_steps(distribution)
        return Real(low=0.0, high=1.0, when=when) if steps is None else Integer(low=0, high=steps, when=when)
    raise InputError(f"expected a float, int or categorical distribution, got {distribution!r}.")


def _hash_options(distribution: CategoricalDistribution) -> int:
    """What the index of an option is counted from: equal lists of options give equal choices, other lists do not.

    Indices stand for options, which may be of any type, and of which Optuna takes True for 1.
    """
    return zlib.crc32(repr(distribution.choices).encode()) << 16


def encode_value(distribution: BaseDistribution, value: Any) -> Value:
    """A parameter's value as one of its choice; a number outside the distribution becomes its nearest end."""
    if isinstance(distribution, CategoricalDistribution):
        return _hash_options(distribution) + int(distribution.to_internal_repr(value))
    if isinstance(distribution, IntDistribution):
        clipped = min(max(int(value), distribution.low), distribution.high)
        return clipped if distribution.log else (clipped - distribution.low) // distribution.step
    assert isinstance(distribution, FloatDistribution)
    low, high = distribution.low, distribution.high
    clipped = min(max(float(value), low), high)
    if distribution.step is not None and (steps := _count_steps(distribution)) is not None:
        return min(round((clipped - low) / distribution.step), steps)
    if low == high:
        return 0.0
    if distribution.log:
        return (math.log(clipped) - math.log(low)) / (math.log(high) - math.log(low))
    # Halves: the difference of two large floats may overflow.
    return (clipped / 2 - low / 2) / (high / 2 - low / 2)


def decode_value(distribution: BaseDistribution, encoded: Any) -> Any:
    """The parameter's value that a value of its choice stands for."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[encoded - _hash_options(distribution)]
    if isinstance(distribution, IntDistribution):
        return _make_storable(
            distribution, encoded if distribution.log else distribution.low + encoded * distribution.step
        )
    assert isinstance(distribution, FloatDistribution)
    low, high = distribution.low, distribution.high
    if distribution.step is not None and isinstance(encoded, int):
        value = low + encoded * distribution.step
    elif distribution.log:
        value = math.exp(math.log(low) + encoded * (math.log(high) - math.log(low)))
    else:
        value = low * (1 - encoded) + high * encoded
    return min(max(value, low), high)


def _count_steps(distribution: FloatDistribution) -> int | None:
    """How many steps lie between the ends of a float; None if it is continuous."""
    if distribution.step is None:
        return None
    steps = (distribution.high - distribution.low) / distribution.step
    return round(steps) if steps < FINEST else None


def _make_storable(distribution: IntDistribution, value: int) -> int:
    """The value itself if Optuna, which stores floats, can store it; otherwise one nearby that it can."""
    neighbours = (math.nextafter(float(value), end) for end in (-math.inf, math.inf))
    for integer in (value, int(float(value)), *map(int, neighbours), distribution.low, distribution.high):
        stored = float(integer)
        if distribution.low <= stored <= distribution.high and (stored - distribution.low) % distribution.step == 0:
            return integer
    return value


class InferredSpace(NamedTuple):
    """Parameters that are proposed together, and which of them depend on which."""

    distributions: Mapping[str, BaseDistribution]
    conditions: Mapping[str, When]
    """When each parameter is active; a parent stands before its children."""

    def create_space(self) -> SearchSpace[Any]:
        """The space of the encoded values."""
        choices = {name: create_choice(self.distributions[name], when) for name, when in self.conditions.items()}
        return SearchSpace(choices, lambda values, spec: values)

    def encode_trial(self, space: SearchSpace[Any], trial: FrozenTrial) -> Candidate | None:
        """A trial as a candidate of that space; None if it has no value in the range of a choice that is active."""
        try:
            return space.complete(lambda name, _: self._encode_parameter(name, trial))
        except LookupError:
            return None

    def decode_candidate(self, candidate: Candidate) -> dict[str, Any]:
        """The parameters that a candidate stands for."""
        return {name: decode_value(self.distributions[name], encoded) for name, encoded in candidate.values.items()}

    def _encode_parameter(self, name: str, trial: FrozenTrial) -> Value:
        distribution, trial_distribution = self.distributions[name], trial.distributions[name]
        value = trial.params[name]
        if trial_distribution != distribution:
            # A range may change from trial to trial: a value that lies in both counts.
            if isinstance(distribution, CategoricalDistribution) or type(trial_distribution) is not type(distribution):
                raise LookupError(name)
            assert isinstance(distribution, FloatDistribution | IntDistribution)
            if not distribution.low <= value <= distribution.high:
                raise LookupError(name)
        return encode_value(distribution, value)


class ParameterHistory(NamedTuple):
    """The parameters that complete trials asked for; the order in which trials are added does not matter."""

    distributions: Mapping[str, BaseDistribution | None] = {}
    """None where it was not always the same."""
    kinds: Mapping[frozenset[str], Mapping[str, frozenset[Value]]] = {}
    """The kinds of trials: for each set of names that a trial asked for, the encoded values of its countable names."""

    def add_trial(self, trial: FrozenTrial) -> ParameterHistory:
        """The history with one more trial. Only complete trials count: others may have ended before their last ask."""
        if trial.state is not TrialState.COMPLETE:
            return self
        distributions = dict(self.distributions)
        for name, distribution in trial.distributions.items():
            is_same = distributions.get(name, distribution) == distribution
            distributions[name] = distribution if is_same else None
        names = frozenset(trial.params)
        values = dict(self.kinds.get(names, {}))
        for name, distribution in trial.distributions.items():
            if _is_countable(distribution):
                values[name] = values.get(name, frozenset()) | {encode_value(distribution, trial.params[name])}
        return ParameterHistory(distributions, {**self.kinds, names: values})

    def select_joint(self) -> dict[str, BaseDistribution]:
        """Parameters to propose together: those with one range, of several values, whose presence is explained."""
        entries = sorted(self.distributions.items())
        unchanged = {name: distribution for name, distribution in entries if distribution is not None}
        names = {name for name, distribution in unchanged.items() if not distribution.single()}
        conditions = self.infer_conditions(names)
        return {name: distribution for name, distribution in unchanged.items() if name in conditions}

    def infer_conditions(self, names: Collection[str]) -> dict[str, When]:
        """When each of these is asked for, a parent before its children; without those that nothing explains.

        A parameter that was not in every trial depends on a countable one if no value that the countable one had in
        the trials with the parameter was seen in a trial without it. Of several such parents, the one with the fewest
        values is taken. A value of the parent that was never seen does not activate the parameter, until a trial
        shows that it does.
        """
        conditions: dict[str, When] = {}
        depths: dict[str, int] = {}
        # Names of more kinds of trials come first, so that parents are known before their children.
        for name in sorted(names, key=lambda name: (-len(self._kinds_with(name)), name)):
            if name not in self.distributions or len(self._kinds_with(name)) == len(self.kinds):
                conditions[name], depths[name] = {}, 0
            elif parents := [(rank, other) for other in conditions if (rank := self._rank_parent(name, other))]:
                parent = min(parents)[1]
                values = self._collect_values(parent, self._kinds_with(name))
                conditions[name], depths[name] = (
                    {parent: tuple(sorted(values, key=_require_integer))},
                    depths[parent] + 1,
                )
        return {name: conditions[name] for name in sorted(conditions, key=lambda name: (depths[name], name))}

    def _kinds_with(self, name: str) -> list[frozenset[str]]:
        return [kind for kind in self.kinds if name in kind]

    def _collect_values(self, name: str, kinds: Iterable[frozenset[str]]) -> frozenset[Value]:
        """The values that a parameter had in trials of these kinds."""
        return frozenset[Value]().union(*(self.kinds[kind].get(name, ()) for kind in kinds))

    def _rank_parent(self, name: str, parent: str) -> tuple[bool, float] | None:
        """How well `parent` explains when `name` is active, the least is best; None if it does not."""
        distribution = self.distributions.get(parent)
        kinds_with = self._kinds_with(name)
        if distribution is None or not _is_countable(distribution) or any(parent not in kind for kind in kinds_with):
            return None
        kinds_without = [kind for kind in self._kinds_with(parent) if name not in kind]
        if not kinds_without:
            return None
        if self._collect_values(parent, kinds_with) & self._collect_values(parent, kinds_without):
            return None
        return not isinstance(distribution, CategoricalDistribution), create_choice(distribution).count()


def _require_integer(value: Value) -> int:
    assert isinstance(value, int)
    return value


def _is_countable(distribution: BaseDistribution) -> bool:
    """Whether other parameters may depend on it: each of its values has a code of its own."""
    if not isinstance(distribution, CategoricalDistribution | IntDistribution):
        return False
    return create_choice(distribution).count() <= MAX_CODES
