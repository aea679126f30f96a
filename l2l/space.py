"""What may be chosen: choices, candidates and the space that holds them, in pure Python."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from l2l.errors import InputError, suggest_names

Value: TypeAlias = bool | int | float | str | None
When: TypeAlias = Mapping[str, Any]
"""A condition: parent's name to the value, or the values, for which the choice is active."""

Built = TypeVar("Built")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _same(left: object, right: object) -> bool:
    """Equality that tells 1 from True and from 1.0, as JSON does."""
    return type(left) is type(right) and left == right


@dataclass(frozen=True, kw_only=True)
class Categorical:
    """One of a few named options.

    Raises: InputError if there is no option, or one stands twice or is not a plain value.
    """

    options: tuple[Value, ...]
    when: When = field(default_factory=dict[str, Any])
    traced: bool = False
    pad: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.options, str) or not isinstance(self.options, Sequence):
            raise InputError(f"a Categorical's options must be a list of values, got {self.options!r}.")
        object.__setattr__(self, "options", tuple(self.options))
        if not self.options:
            raise InputError("a Categorical needs at least one option, got an empty list.")
        for position, option in enumerate(self.options):
            if option is not None and not isinstance(option, bool | int | float | str):
                raise InputError(f"a Categorical's options are bool, int, float, str or None, got {option!r}.")
            if isinstance(option, float) and not math.isfinite(option):
                raise InputError(f"a Categorical's options must be finite, got {option!r}.")
            if any(_same(option, other) for other in self.options[:position]):
                raise InputError(f"a Categorical's options must differ, {option!r} stands twice.")
        _check_padding(self.pad, self.traced, self.options)

    def count(self) -> int:
        """How many values there are."""
        return len(self.options)

    def at(self, quantile: float) -> Value:
        """The value at a quantile in [0, 1)."""
        return self.options[min(int(quantile * len(self.options)), len(self.options) - 1)]

    def quantile(self, value: Value) -> float:
        """The middle of the quantiles that `at` maps to `value`."""
        return (next(i for i, each in enumerate(self.options) if _same(each, value)) + 0.5) / len(self.options)

    def read(self, value: Any) -> Value:
        """`value` as this choice holds it. Raises: InputError if it is not an option."""
        for option in self.options:
            if _same(option, value):
                return option
        for option in self.options:
            if _is_number(option) and _is_number(value) and option == value:
                return option
        raise InputError(f"expected one of {list(self.options)}, got {value!r}")

    def describe(self) -> dict[str, Any]:
        """The choice as plain JSON values."""
        return {"kind": "categorical", "options": list(self.options), **_describe(self)}


@dataclass(frozen=True, kw_only=True)
class Integer:
    """A whole number in `low..high` (both included), every `step`, spread evenly or in the logarithm.

    Raises: InputError if the range is empty or the logarithm does not exist.
    """

    low: int
    high: int
    step: int = 1
    log: bool = False
    when: When = field(default_factory=dict[str, Any])
    traced: bool = False
    pad: str | None = None
    repeats: bool = False

    def __post_init__(self) -> None:
        for name in ("low", "high", "step"):
            if type(getattr(self, name)) is not int:
                raise InputError(f"an Integer's {name} must be a whole number, got {getattr(self, name)!r}.")
        if self.low > self.high:
            raise InputError(f"an Integer needs low <= high, got low={self.low} and high={self.high}.")
        if self.step < 1:
            raise InputError(f"an Integer's step must be at least 1, got {self.step}.")
        if self.log and (self.low < 1 or self.step != 1):
            raise InputError(f"a logarithmic Integer needs low >= 1 and step 1, got low={self.low}, step={self.step}.")
        _check_padding(self.pad, self.traced, (self.low,))
        if self.repeats and (self.traced or self.pad is not None or self.low < 1):
            raise InputError("an Integer that repeats is at least 1 and neither traced nor padded.")
        # The highest value that a step reaches, so that `high` itself is always a value.
        object.__setattr__(self, "high", self.low + (self.high - self.low) // self.step * self.step)

    def count(self) -> int:
        """How many values there are."""
        return (self.high - self.low) // self.step + 1

    def at(self, quantile: float) -> int:
        """The value at a quantile in [0, 1)."""
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return min(max(round(math.exp(low + quantile * (high - low))), self.low), self.high)
        return self.low + self.step * min(int(quantile * self.count()), self.count() - 1)

    def quantile(self, value: Value) -> float:
        """The middle of the quantiles that `at` maps to `value`."""
        assert isinstance(value, int)
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return (math.log(value) - low) / (high - low)
        return ((value - self.low) // self.step + 0.5) / self.count()

    def read(self, value: Any) -> int:
        """`value` as this choice holds it. Raises: InputError if it is out of range or off the step."""
        if not _is_number(value) or value != int(value):
            raise InputError(f"expected a whole number, got {value!r}")
        if not self.low <= value <= self.high or (int(value) - self.low) % self.step:
            raise InputError(f"expected {self.low} to {self.high} in steps of {self.step}, got {value!r}")
        return int(value)

    def describe(self) -> dict[str, Any]:
        """The choice as plain JSON values."""
        return {
            "kind": "integer", "low": self.low, "high": self.high, "step": self.step, "log": self.log,
            **({"repeats": True} if self.repeats else {}), **_describe(self),
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Real:
    """A number in `[low, high]`, spread evenly or in the logarithm; traced unless said otherwise.

    Raises: InputError if the range is empty or the logarithm does not exist.
    """

    low: float
    high: float
    log: bool = False
    when: When = field(default_factory=dict[str, Any])
    traced: bool = True

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            if not _is_number(getattr(self, name)):
                raise InputError(f"a Real's {name} must be a finite number, got {getattr(self, name)!r}.")
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.low > self.high:
            raise InputError(f"a Real needs low <= high, got low={self.low} and high={self.high}.")
        if self.log and self.low <= 0:
            raise InputError(f"a logarithmic Real needs low > 0, got low={self.low}.")

    def count(self) -> float:
        """How many values there are: infinitely many, or one."""
        return math.inf if self.low < self.high else 1

    def at(self, quantile: float) -> float:
        """The value at a quantile in [0, 1)."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            value = math.exp(low + quantile * (high - low))
        else:
            value = self.low + quantile * (self.high - self.low)
        return min(max(value, self.low), self.high)

    def quantile(self, value: Value) -> float:
        """The quantile that `at` maps to `value`."""
        assert isinstance(value, float)
        if self.low == self.high:
            return 0.5
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def read(self, value: Any) -> float:
        """`value` as this choice holds it. Raises: InputError if it is out of range."""
        if not _is_number(value) or not self.low <= value <= self.high:
            raise InputError(f"expected a number from {self.low} to {self.high}, got {value!r}")
        return float(value)

    def describe(self) -> dict[str, Any]:
        """The choice as plain JSON values."""
        return {"kind": "real", "low": self.low, "high": self.high, "log": self.log, **_describe(self)}


Choice: TypeAlias = Categorical | Integer | Real


def _describe(choice: Choice) -> dict[str, Any]:
    when = {parent: list(allowed(choice.when, parent)) for parent in choice.when}
    pad = {} if isinstance(choice, Real) or choice.pad is None else {"pad": choice.pad}
    return {"traced": choice.traced, "when": when, **pad}


def _check_padding(pad: str | None, traced: bool, sizes: Sequence[Value]) -> None:
    if pad is None:
        return
    if not isinstance(pad, str) or not pad:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"pad must be the name of the sizes that are padded together, got {pad!r}.")
    if traced:
        raise InputError(f"a choice is padded (pad={pad!r}) or traced, not both: a size is not traced.")
    if any(type(size) is not int or size < 1 for size in sizes):
        raise InputError(f"a choice that is padded (pad={pad!r}) needs whole numbers of at least 1.")


def allowed(when: When, parent: str) -> tuple[Value, ...]:
    """The values of `parent` for which a choice with the condition `when` is active."""
    values = when[parent]
    return tuple(values) if isinstance(values, list | tuple) else (values,)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One point of a space: the active choices in space order, and the searcher's remark."""

    values: Mapping[str, Value]
    note: Mapping[str, Any] = field(default_factory=dict[str, Any])
    key: str = field(init=False, default="")
    """Digest of the canonical values: what two equal candidates share."""

    def __post_init__(self) -> None:
        canonical = json.dumps(dict(self.values), sort_keys=True, allow_nan=False)
        object.__setattr__(self, "key", hashlib.sha256(canonical.encode()).hexdigest()[:16])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True)
class SearchSpace(Generic[Built]):
    """Named choices, a parent before its children, and what a set of values builds.

    `build(values, spec)` gets the active values and the task's `Spec` (see `l2l.types`) and returns a
    `Learner`. Only static values may be branched on: a traced number arrives as an array, any
    other traced option as a `Picked`.

    Raises: InputError if a condition names a later or unknown choice, or a value it cannot have.
    """

    choices: Mapping[str, Choice]
    build: Callable[[Mapping[str, Any], Any], Built]
    name: str = "space"

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", dict(self.choices))
        if not self.choices:
            raise InputError(f"space {self.name!r} has no choices; give it at least one.")
        for position, (name, choice) in enumerate(self.choices.items()):
            if not isinstance(choice, Categorical | Integer | Real):
                raise InputError(f"choice {name!r} must be a Categorical, Integer or Real, got {choice!r}.")
            for parent in choice.when:
                self._check_condition(name, choice, parent, list(self.choices)[:position])

    def _check_condition(self, name: str, choice: Choice, parent: str, before: list[str]) -> None:
        if parent not in before:
            reason = (
                "stands after it; put the parent first." if parent in self.choices else suggest_names(parent, before)
            )
            raise InputError(f"choice {name!r} is conditional on {parent!r}, which is unknown or later: {reason}")
        if isinstance(self.choices[parent], Real):
            raise InputError(f"choice {name!r} is conditional on the Real {parent!r}; use a Categorical or an Integer.")
        values = allowed(choice.when, parent)
        if not values:
            raise InputError(f"choice {name!r} is conditional on no value of {parent!r}, so it could never be active.")
        for value in values:
            try:
                self.choices[parent].read(value)
            except InputError as error:
                raise InputError(f"choice {name!r} is conditional on {parent!r}: {error}.") from None

    def is_active(self, name: str, values: Mapping[str, Value]) -> bool:
        """Whether the choice `name` is active, given the values of the active choices before it."""
        when = self.choices[name].when
        return all(
            parent in values
            and any(_same(values[parent], self.choices[parent].read(each)) for each in allowed(when, parent))
            for parent in when
        )

    def complete(self, pick: Callable[[str, Choice], Value], note: Mapping[str, Any] | None = None) -> Candidate:
        """The candidate whose active choices are picked in space order, each exactly once."""
        values: dict[str, Value] = {}
        for name, choice in self.choices.items():
            if self.is_active(name, values):
                values[name] = pick(name, choice)
        return Candidate(values, note or {})

    def sample(self, draw: random.Random) -> Candidate:
        """A candidate drawn uniformly, choice by choice."""
        return self.complete(lambda name, choice: choice.at(draw.random()))

    def candidate(self, values: Mapping[str, Any], note: Mapping[str, Any] | None = None) -> Candidate:
        """The candidate with these values. Raises: InputError if one is missing, unknown, inactive or out of range."""

        def pick(name: str, choice: Choice) -> Value:
            if name not in values:
                raise InputError(f"space {self.name!r}: the active choice {name!r} has no value.")
            try:
                return choice.read(values[name])
            except InputError as error:
                raise InputError(f"space {self.name!r}, choice {name!r}: {error}.") from None

        found = self.complete(pick, note)
        for name in values:
            if name not in self.choices:
                raise InputError(f"space {self.name!r} has no choice {name!r}: {suggest_names(name, self.choices)}")
            if name not in found.values:
                raise InputError(f"space {self.name!r}: the choice {name!r} is not active here; leave it out.")
        return found

    def static(self, candidate: Candidate) -> dict[str, Value]:
        """The values that fix the compiled program: candidates that agree in them can share one."""
        return {name: value for name, value in candidate.values.items() if not self.choices[name].traced}

    def traced(self, candidate: Candidate) -> dict[str, Value]:
        """The values that are only numbers in the program."""
        return {name: value for name, value in candidate.values.items() if self.choices[name].traced}

    def count(self, discrete: bool = False) -> float:
        """How many candidates there are: infinity where a Real is free, unless only what is `discrete` counts."""
        # Only the parents that later choices ask for can still change the count.
        last = {parent: place for place, choice in enumerate(self.choices.values()) for parent in choice.when}
        ways: dict[Any, tuple[dict[str, Value], float]] = {(): ({}, 1)}
        for place, (name, choice) in enumerate(self.choices.items()):
            found: dict[Any, tuple[dict[str, Value], float]] = {}
            for values, times in ways.values():
                branches: list[dict[str, Value]] = [{}]
                if self.is_active(name, values):
                    if isinstance(choice, Real):
                        times = times if discrete else times * choice.count()
                    elif name in last:
                        branches = [{name: value} for value in options(choice)]
                    else:
                        times *= choice.count()
                for branch in branches:
                    held = {parent: value for parent, value in (values | branch).items() if last[parent] > place}
                    known = tuple((parent, repr(value)) for parent, value in held.items())
                    found[known] = held, times + found.get(known, (held, 0))[1]
            ways = found
        return sum(times for _, times in ways.values())

    def cover(self) -> Iterator[Candidate]:
        """A few candidates in which every option, and both ends of every range, appear where they can."""
        for seed, (name, choice) in enumerate(self.choices.items()):
            ends = options(choice) if isinstance(choice, Categorical) else (choice.at(0.0), choice.at(1.0))
            for value in ends:
                yield self._with(name, value, random.Random(seed))

    def _with(self, target: str, value: Value, draw: random.Random) -> Candidate:
        """A random candidate in which `target` is active and has `value`."""
        fits: dict[str, list[Value]] = {}
        pending = [target]
        while pending:
            when = self.choices[pending.pop()].when
            for parent in when:
                values = [self.choices[parent].read(each) for each in allowed(when, parent)]
                if parent in fits:  # Several choices on the way ask for this parent: what suits them all.
                    fits[parent] = [each for each in fits[parent] if any(_same(each, other) for other in values)]
                else:
                    fits[parent] = values
                    pending.append(parent)
        wanted = {name: values[0] for name, values in fits.items() if values} | {target: value}
        return self.complete(lambda name, choice: wanted.get(name, choice.at(draw.random())))

    def describe(self) -> dict[str, Any]:
        """The choices as plain JSON values, in order."""
        return {name: choice.describe() for name, choice in self.choices.items()}


def options(choice: Categorical | Integer) -> tuple[Value, ...]:
    """Every value of a countable choice, in order."""
    if isinstance(choice, Categorical):
        return choice.options
    return tuple(range(choice.low, choice.high + 1, choice.step))
