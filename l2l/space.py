"""What may be chosen: choices, candidates and the space that holds them, in pure Python."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from l2l.errors import InputError, check_integer, check_number, check_part, is_number, suggest_names

Value: TypeAlias = bool | int | float | str | None
When: TypeAlias = Mapping[str, Any]
"""A condition: parent's name to the value, or the values, for which the choice is active."""

Built = TypeVar("Built")


def _is_same(left: object, right: object) -> bool:
    """Whether two values are equal and of one type: 1, True and 1.0 all differ, as in JSON."""
    return type(left) is type(right) and left == right


@dataclass(frozen=True, kw_only=True)
class Categorical:
    """One of a few options.

    Raises: InputError if there is no option, or one stands twice or is not a plain value.
    """

    options: tuple[Value, ...]
    when: When = field(default_factory=dict[str, Any])
    """Earlier choices, and the values for which this one is active."""
    traced: bool = False
    """Whether an option is data of the program: an `Option`, or an array if the options have fractions."""
    pad: str | None = None
    """The name of the sizes that are padded together: `build` gets a `Length`, and all sizes share a program."""

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
            if any(_is_same(option, other) for other in self.options[:position]):
                raise InputError(f"a Categorical's options must differ, {option!r} stands twice.")
        _check_padding(self.pad, self.traced, self.options)

    def count(self) -> int:
        """How many values there are."""
        return len(self.options)

    def value_at(self, quantile: float) -> Value:
        """The value at a quantile in [0, 1)."""
        return self.options[min(int(quantile * len(self.options)), len(self.options) - 1)]

    def quantile(self, value: Value) -> float:
        """The middle of the quantiles that `value_at` maps to `value`."""
        return (next(i for i, option in enumerate(self.options) if _is_same(option, value)) + 0.5) / len(self.options)

    def read(self, value: Any) -> Value:
        """`value` as this choice holds it. Raises: InputError if it is not an option."""
        for option in self.options:
            if _is_same(option, value):
                return option
        for option in self.options:
            if is_number(option) and is_number(value) and option == value:
                return option
        raise InputError(f"expected one of {list(self.options)}, got {value!r}")

    def describe(self) -> dict[str, Any]:
        """The choice as plain JSON values."""
        return {"kind": "categorical", "options": list(self.options), **_describe(self)}


@dataclass(frozen=True, kw_only=True)
class Integer:
    """An integer from `low` to `high` (both included) in steps of `step`, uniform or, with `log`, log-uniform.

    Raises: InputError if the range is empty or the logarithm does not exist.
    """

    low: int
    high: int
    step: int = 1
    log: bool = False
    when: When = field(default_factory=dict[str, Any])
    """Earlier choices, and the values for which this one is active."""
    traced: bool = False
    """Whether the number is data of the program: `build` gets an array to compute with."""
    pad: str | None = None
    """The name of the sizes that are padded together: `build` gets a `Length`, and all sizes share a program."""
    repeats: bool = False
    """Whether it counts layers of one kind: `build` gets a `Length`, and all depths share a program."""

    def __post_init__(self) -> None:
        for name in ("low", "high", "step"):
            check_integer(f"an Integer's {name}", getattr(self, name))
        if self.low > self.high:
            raise InputError(f"an Integer needs low <= high, got low={self.low} and high={self.high}.")
        if self.step < 1:
            raise InputError(f"an Integer's step must be at least 1, got {self.step}.")
        if self.log and (self.low < 1 or self.step != 1):
            raise InputError(f"a logarithmic Integer needs low >= 1 and step 1, got low={self.low}, step={self.step}.")
        _check_padding(self.pad, self.traced, (self.low,))
        if self.repeats and (self.traced or self.pad is not None or self.low < 1):
            raise InputError("an Integer that repeats is at least 1 and neither traced nor padded.")
        # Lowered to the highest value that the steps reach, so that `high` itself is a value.
        object.__setattr__(self, "high", self.low + (self.high - self.low) // self.step * self.step)

    def count(self) -> int:
        """How many values there are."""
        return (self.high - self.low) // self.step + 1

    def value_at(self, quantile: float) -> int:
        """The value at a quantile in [0, 1)."""
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return min(max(round(math.exp(low + quantile * (high - low))), self.low), self.high)
        return self.low + self.step * min(int(quantile * self.count()), self.count() - 1)

    def quantile(self, value: Value) -> float:
        """The middle of the quantiles that `value_at` maps to `value`."""
        assert isinstance(value, int)
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return (math.log(value) - low) / (high - low)
        return ((value - self.low) // self.step + 0.5) / self.count()

    def read(self, value: Any) -> int:
        """`value` as this choice holds it. Raises: InputError if it is out of range or off the step."""
        if not is_number(value) or value != int(value):
            raise InputError(f"expected an integer, got {value!r}")
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
    """A number from `low` to `high`, uniform or, with `log`, log-uniform.

    Raises: InputError if the range is empty or the logarithm does not exist.
    """

    low: float
    high: float
    log: bool = False
    when: When = field(default_factory=dict[str, Any])
    """Earlier choices, and the values for which this one is active."""
    traced: bool = True
    """Whether the number is data of the program: `build` gets an array to compute with."""

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            check_number(f"a Real's {name}", getattr(self, name))
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.low > self.high:
            raise InputError(f"a Real needs low <= high, got low={self.low} and high={self.high}.")
        if self.log and self.low <= 0:
            raise InputError(f"a logarithmic Real needs low > 0, got low={self.low}.")

    def count(self) -> float:
        """How many values there are: infinitely many, or one."""
        return math.inf if self.low < self.high else 1

    def value_at(self, quantile: float) -> float:
        """The value at a quantile in [0, 1)."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            value = math.exp(low + quantile * (high - low))
        else:
            value = self.low + quantile * (self.high - self.low)
        return min(max(value, self.low), self.high)

    def quantile(self, value: Value) -> float:
        """The quantile that `value_at` maps to `value`."""
        assert isinstance(value, float)
        if self.low == self.high:
            return 0.5
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def read(self, value: Any) -> float:
        """`value` as this choice holds it. Raises: InputError if it is out of range."""
        if not is_number(value) or not self.low <= value <= self.high:
            raise InputError(f"expected a number from {self.low} to {self.high}, got {value!r}")
        return float(value)

    def describe(self) -> dict[str, Any]:
        """The choice as plain JSON values."""
        return {"kind": "real", "low": self.low, "high": self.high, "log": self.log, **_describe(self)}


Choice: TypeAlias = Categorical | Integer | Real


def _describe(choice: Choice) -> dict[str, Any]:
    when = {parent: list(list_allowed_values(choice.when, parent)) for parent in choice.when}
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
        raise InputError(f"a choice that is padded (pad={pad!r}) needs integers of at least 1.")


def list_allowed_values(when: When, parent: str) -> tuple[Value, ...]:
    """The values of `parent` for which a choice with the condition `when` is active."""
    values = when[parent]
    return tuple(values) if isinstance(values, list | tuple) else (values,)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One point of a space: the values of the active choices in space order, and the searcher's metadata."""

    values: Mapping[str, Value]
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    key: str = field(init=False, default="")
    """Digest of the values; equal for equal candidates."""

    def __post_init__(self) -> None:
        canonical = json.dumps(dict(self.values), sort_keys=True, allow_nan=False)
        object.__setattr__(self, "key", hashlib.sha256(canonical.encode()).hexdigest()[:16])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True)
class SearchSpace(Generic[Built]):
    """Choices by name, a parent before its children, and the function that builds a model from their values.

    `build(values, spec)` gets the active values and the task's `Spec` (see `l2l.types`) and returns a `Learner`. It may
    branch on static values only; docs/one-program-for-many-candidates.md says how it gets the others.

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
            check_part(f"choice {name!r}", choice, "a Categorical, Integer or Real", Categorical | Integer | Real)
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
        values = list_allowed_values(choice.when, parent)
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
            and any(_is_same(values[parent], self.choices[parent].read(v)) for v in list_allowed_values(when, parent))
            for parent in when
        )

    def complete(self, pick: Callable[[str, Choice], Value], metadata: Mapping[str, Any] | None = None) -> Candidate:
        """The candidate whose active choices get their values from `pick`, in space order, once per choice."""
        values: dict[str, Value] = {}
        for name, choice in self.choices.items():
            if self.is_active(name, values):
                values[name] = pick(name, choice)
        return Candidate(values, metadata or {})

    def sample(self, rng: random.Random) -> Candidate:
        """A candidate sampled uniformly, choice by choice."""
        return self.complete(lambda name, choice: choice.value_at(rng.random()))

    def candidate(self, values: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> Candidate:
        """The candidate with these values. Raises: InputError if one is missing, unknown, inactive or out of range."""

        def pick(name: str, choice: Choice) -> Value:
            if name not in values:
                raise InputError(f"space {self.name!r}: the active choice {name!r} has no value.")
            try:
                return choice.read(values[name])
            except InputError as error:
                raise InputError(f"space {self.name!r}, choice {name!r}: {error}.") from None

        candidate = self.complete(pick, metadata)
        for name in values:
            if name not in self.choices:
                raise InputError(f"space {self.name!r} has no choice {name!r}: {suggest_names(name, self.choices)}")
            if name not in candidate.values:
                raise InputError(f"space {self.name!r}: the choice {name!r} is not active here; leave it out.")
        return candidate

    def select_static(self, candidate: Candidate) -> dict[str, Value]:
        """The values that fix the compiled program; candidates that agree in them can share a program."""
        return {name: value for name, value in candidate.values.items() if not self.choices[name].traced}

    def select_traced(self, candidate: Candidate) -> dict[str, Value]:
        """The values that are only numbers in the program."""
        return {name: value for name, value in candidate.values.items() if self.choices[name].traced}

    def count(self, discrete: bool = False) -> float:
        """How many candidates there are: infinity if a Real has a range, unless `discrete` leaves Reals out."""
        # Candidates are counted in groups that agree in the parents that later choices depend on.
        last_child = {parent: index for index, choice in enumerate(self.choices.values()) for parent in choice.when}
        groups: dict[Any, tuple[dict[str, Value], float]] = {(): ({}, 1)}
        for index, (name, choice) in enumerate(self.choices.items()):
            next_groups: dict[Any, tuple[dict[str, Value], float]] = {}
            for values, count in groups.values():
                branches: list[dict[str, Value]] = [{}]
                if self.is_active(name, values):
                    if isinstance(choice, Real):
                        count = count if discrete else count * choice.count()
                    elif name in last_child:
                        branches = [{name: value} for value in options(choice)]
                    else:
                        count *= choice.count()
                for branch in branches:
                    parents = {parent: v for parent, v in (values | branch).items() if last_child[parent] > index}
                    key = tuple((parent, repr(value)) for parent, value in parents.items())
                    next_groups[key] = parents, count + next_groups.get(key, (parents, 0))[1]
            groups = next_groups
        return sum(count for _, count in groups.values())

    def cover(self) -> Iterator[Candidate]:
        """A few candidates in which every option, and both ends of every range, appear where they can."""
        for seed, (name, choice) in enumerate(self.choices.items()):
            ends = options(choice) if isinstance(choice, Categorical) else (choice.value_at(0.0), choice.value_at(1.0))
            for value in ends:
                yield self._sample_with(name, value, random.Random(seed))

    def _sample_with(self, target: str, value: Value, rng: random.Random) -> Candidate:
        """A random candidate in which `target` is active and has `value`."""
        parent_values: dict[str, list[Value]] = {}
        pending = [target]
        while pending:
            when = self.choices[pending.pop()].when
            for parent in when:
                values = [self.choices[parent].read(v) for v in list_allowed_values(when, parent)]
                if parent in parent_values:  # Several choices depend on this parent: only values that suit all of them.
                    values = [v for v in parent_values[parent] if any(_is_same(v, other) for other in values)]
                else:
                    pending.append(parent)
                parent_values[parent] = values
        fixed = {name: values[0] for name, values in parent_values.items() if values} | {target: value}
        return self.complete(lambda name, choice: fixed.get(name, choice.value_at(rng.random())))

    def describe(self) -> dict[str, Any]:
        """The choices as plain JSON values, in order."""
        return {name: choice.describe() for name, choice in self.choices.items()}


def options(choice: Categorical | Integer) -> tuple[Value, ...]:
    """Every value of a countable choice, in order."""
    if isinstance(choice, Categorical):
        return choice.options
    return tuple(range(choice.low, choice.high + 1, choice.step))
