"""The space of a define-by-run study: Optuna's distributions as choices, and which of them hang on which."""

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
"""A float with more steps than this is one without: floats are no finer."""


def choice(distribution: BaseDistribution, when: When | None = None) -> Choice:
    """A distribution as a choice of places: an option's position, a number's on its grid or in its range."""
    when = when or {}
    if isinstance(distribution, CategoricalDistribution):
        first = _first(distribution)
        return Categorical(options=tuple(range(first, first + len(distribution.choices))), when=when)
    if isinstance(distribution, IntDistribution) and distribution.log:
        return Integer(low=distribution.low, high=distribution.high, log=True, when=when)
    if isinstance(distribution, IntDistribution):
        return Integer(low=0, high=(distribution.high - distribution.low) // distribution.step, when=when)
    if isinstance(distribution, FloatDistribution):
        steps = _steps(distribution)
        return Real(low=0.0, high=1.0, when=when) if steps is None else Integer(low=0, high=steps, when=when)
    raise InputError(f"expected a float, int or categorical distribution, got {distribution!r}.")


def _first(distribution: CategoricalDistribution) -> int:
    """What the first option's position is called: equal lists of options are the same choices, others are not.

    Positions stand for options, which may be of any type, and of which Optuna takes True for 1.
    """
    return zlib.crc32(repr(distribution.choices).encode()) << 16


def place(distribution: BaseDistribution, value: Any) -> Value:
    """Where a parameter's value stands in its choice."""
    if isinstance(distribution, CategoricalDistribution):
        return _first(distribution) + int(distribution.to_internal_repr(value))
    if isinstance(distribution, IntDistribution):
        inside = min(max(int(value), distribution.low), distribution.high)
        return inside if distribution.log else (inside - distribution.low) // distribution.step
    assert isinstance(distribution, FloatDistribution)
    low, high = distribution.low, distribution.high
    inside = min(max(float(value), low), high)
    if distribution.step is not None and (steps := _steps(distribution)) is not None:
        return min(round((inside - low) / distribution.step), steps)
    if low == high:
        return 0.0
    if distribution.log:
        return (math.log(inside) - math.log(low)) / (math.log(high) - math.log(low))
    # Halves: the difference of two large floats may be none.
    return (inside / 2 - low / 2) / (high / 2 - low / 2)


def value(distribution: BaseDistribution, place: Any) -> Any:
    """The parameter's value at a place of its choice."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[place - _first(distribution)]
    if isinstance(distribution, IntDistribution):
        return _held(distribution, place if distribution.log else distribution.low + place * distribution.step)
    assert isinstance(distribution, FloatDistribution)
    low, high = distribution.low, distribution.high
    if distribution.step is not None and isinstance(place, int):
        found = low + place * distribution.step
    elif distribution.log:
        found = math.exp(math.log(low) + place * (math.log(high) - math.log(low)))
    else:
        found = low * (1 - place) + high * place
    return min(max(found, low), high)


def _steps(distribution: FloatDistribution) -> int | None:
    """How many steps a float has from end to end; None if it has none to speak of."""
    if distribution.step is None:
        return None
    steps = (distribution.high - distribution.low) / distribution.step
    return round(steps) if steps < FINEST else None


def _held(distribution: IntDistribution, value: int) -> int:
    """The value itself, or where Optuna, which stores floats, would lose it, one nearby that it keeps."""
    near = (math.nextafter(float(value), end) for end in (-math.inf, math.inf))
    for each in (value, int(float(value)), *map(int, near), distribution.low, distribution.high):
        stored = float(each)
        if distribution.low <= stored <= distribution.high and (stored - distribution.low) % distribution.step == 0:
            return each
    return value


class Defined(NamedTuple):
    """Parameters that are proposed together, and which of them hang on which."""

    distributions: Mapping[str, BaseDistribution]
    conditions: Mapping[str, When]
    """In an order in which a parent stands before its children."""

    def space(self) -> SearchSpace[Any]:
        """The same as a space of places."""
        choices = {name: choice(self.distributions[name], when) for name, when in self.conditions.items()}
        return SearchSpace(choices, lambda values, spec: values)

    def candidate(self, space: SearchSpace[Any], trial: FrozenTrial) -> Candidate | None:
        """What a trial is in that space; None if a choice that ought to be active has no value of its range there."""
        try:
            return space.complete(lambda name, _: self._place(name, trial))
        except LookupError:
            return None

    def values(self, candidate: Candidate) -> dict[str, Any]:
        """The parameters that a candidate stands for."""
        return {name: value(self.distributions[name], place) for name, place in candidate.values.items()}

    def _place(self, name: str, trial: FrozenTrial) -> Value:
        given, wanted, found = trial.distributions[name], self.distributions[name], trial.params[name]
        if given != wanted:
            # A range may change from trial to trial: what lies in both counts.
            if isinstance(wanted, CategoricalDistribution) or type(given) is not type(wanted):
                raise LookupError(name)
            assert isinstance(wanted, FloatDistribution | IntDistribution)
            if not wanted.low <= found <= wanted.high:
                raise LookupError(name)
        return place(wanted, found)


class Asked(NamedTuple):
    """What complete trials asked for: a value that grows trial by trial, in whichever order they come."""

    distributions: Mapping[str, BaseDistribution | None] = {}
    """None where it was not always the same."""
    kinds: Mapping[frozenset[str], Mapping[str, frozenset[Value]]] = {}
    """For each set of names that was asked for, the places that its countable ones have taken."""

    def after(self, trial: FrozenTrial) -> Asked:
        """With one more trial. Only complete ones count: others may have ended before they asked for all they would."""
        if trial.state is not TrialState.COMPLETE:
            return self
        distributions = dict(self.distributions)
        for name, each in trial.distributions.items():
            distributions[name] = each if distributions.get(name, each) == each else None
        names = frozenset(trial.params)
        kind = dict(self.kinds.get(names, {}))
        for name, each in trial.distributions.items():
            if _countable(each):
                kind[name] = kind.get(name, frozenset()) | {place(each, trial.params[name])}
        return Asked(distributions, {**self.kinds, names: kind})

    def joint(self) -> dict[str, BaseDistribution]:
        """What can be proposed together: parameters whose presence is explained, that have one range of many values."""
        fixed = {name: each for name, each in sorted(self.distributions.items()) if each is not None}
        names = {name for name, each in fixed.items() if not each.single()}
        kept = self.conditions(names)
        return {name: each for name, each in fixed.items() if name in kept}

    def conditions(self, names: Collection[str]) -> dict[str, When]:
        """When each of these is asked for, a parent before its children; without those that nothing explains.

        A parameter that was not in every trial hangs on a countable one, if no value that this had in the trials with
        it was seen in one without it. Of several such parents the one with the fewest values is taken. A value of
        the parent that was never seen does not ask for it, until a trial does.
        """
        found: dict[str, When] = {}
        depth: dict[str, int] = {}
        # What is asked for in more kinds of trials comes first, so that parents are known before their children.
        for name in sorted(names, key=lambda name: (-len(self._with(name)), name)):
            if name not in self.distributions or len(self._with(name)) == len(self.kinds):
                found[name], depth[name] = {}, 0
            elif parents := [(rank, each) for each in found if (rank := self._rank(name, each)) is not None]:
                parent = min(parents)[1]
                places = self._places(parent, self._with(name))
                found[name], depth[name] = {parent: tuple(sorted(places, key=_number))}, depth[parent] + 1
        return {name: found[name] for name in sorted(found, key=lambda name: (depth[name], name))}

    def _with(self, name: str) -> list[frozenset[str]]:
        return [kind for kind in self.kinds if name in kind]

    def _places(self, name: str, kinds: Iterable[frozenset[str]]) -> frozenset[Value]:
        return frozenset[Value]().union(*(self.kinds[kind].get(name, ()) for kind in kinds))

    def _rank(self, name: str, parent: str) -> tuple[bool, float] | None:
        """How good an explanation of `name` a parent is, least is best; None if it is none."""
        distribution = self.distributions.get(parent)
        inside = self._with(name)
        if distribution is None or not _countable(distribution) or any(parent not in kind for kind in inside):
            return None
        outside = [kind for kind in self._with(parent) if name not in kind]
        if not outside or self._places(parent, inside) & self._places(parent, outside):
            return None
        return not isinstance(distribution, CategoricalDistribution), choice(distribution).count()


def _number(place: Value) -> int:
    assert isinstance(place, int)
    return place


def _countable(distribution: BaseDistribution) -> bool:
    """Whether others may hang on it: each of its values has a code of its own."""
    return (
        isinstance(distribution, CategoricalDistribution | IntDistribution)
        and choice(distribution).count() <= MAX_CODES
    )
