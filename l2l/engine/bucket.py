"""Which candidates share a program, and what `build` gets there.

| who calls `build` | bucket | values that `build` gets |
|---|---|---|
| a training program (`fit`, `cost`) | `make_shared_bucket` | `make_program_values`: `Length`, `Option`, arrays |
| the host: initial weights of a lane (`population`) | the same one | `make_own_values`: plain; numbers as arrays |
| both, without memory for padding | `make_unpadded_bucket` | as above, without `Length` and `Option` |
| both, if a model needs plain numbers | `make_exact_bucket` | `candidate.values`: plain |
| limits, export, `l2l.load`, users | none | `candidate.values`: plain |
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeGuard

import jax.numpy as jnp
import numpy as np

from l2l.nn.length import Length
from l2l.nn.option import Option
from l2l.space import Candidate, Categorical, Choice, Integer, Real, SearchSpace, Value, list_allowed_values, options

SizeLevels = Mapping[str, tuple[int, ...]]
"""Sizes to pad to, ascending, by the name that padded choices share; the largest covers every option."""


class Bucket(NamedTuple):
    """What the candidates of one program have in common."""

    fixed: Mapping[str, Value]
    """Values that are compiled in."""
    sizes: Mapping[str, int]
    """Choices that become a padded `Length`, and its size."""
    traced: tuple[str, ...]
    """Choices that are data: numbers, and options that data choose."""

    @property
    def name(self) -> str:
        """The same text for equal buckets."""
        return json.dumps([dict(self.fixed), dict(self.sizes), self.traced])


def get_pad(choice: Choice) -> str | None:
    """The name of the sizes that a choice is padded with, None if it is not padded."""
    return None if isinstance(choice, Real) else choice.pad


def is_depth(choice: Choice) -> TypeGuard[Integer]:
    """Whether a choice says how often a part is repeated."""
    return isinstance(choice, Integer) and choice.repeats


def is_option(choice: Choice) -> TypeGuard[Categorical]:
    """Whether a traced choice reaches `build` as an `Option`: its options are not numbers with a fraction.

    Integers are options too: a kernel is chosen from, a rate is computed with.
    """
    if not isinstance(choice, Categorical):
        return False
    are_numbers = all(isinstance(option, int | float) and not isinstance(option, bool) for option in choice.options)
    return not (are_numbers and any(isinstance(option, float) for option in choice.options))


def list_padded_sizes(space: SearchSpace[Any]) -> dict[str, tuple[int, ...]]:
    """Every size that padded choices can have, by the name of their pad."""
    sizes: dict[str, set[int]] = {}
    for choice in space.choices.values():
        if (pad := get_pad(choice)) is not None:
            sizes.setdefault(pad, set()).update(int(size) for size in options(choice))  # pyright: ignore
    return {pad: tuple(sorted(values)) for pad, values in sizes.items()}


def make_exact_bucket(candidate: Candidate) -> Bucket:
    """The bucket of this candidate alone: everything is compiled in."""
    return Bucket(candidate.values, {}, ())


def make_unpadded_bucket(space: SearchSpace[Any], candidate: Candidate) -> Bucket:
    """The bucket of all candidates of this one's true shape: only numbers are data."""
    data = tuple(name for name in space.select_traced(candidate) if not is_option(space.choices[name]))
    return Bucket({name: value for name, value in candidate.values.items() if name not in data}, {}, data)


def make_shared_bucket(space: SearchSpace[Any], candidate: Candidate, levels: SizeLevels) -> Bucket:
    """The bucket of all candidates that may share a program with this one, a function of the candidate alone.

    It also has the choices that are inactive in this candidate but active in another one of the bucket.
    """
    values = candidate.values
    needs: dict[str, int] = {}
    for name, value in values.items():
        if (pad := get_pad(space.choices[name])) is not None:
            needs[pad] = max(needs.get(pad, 0), int(value))  # pyright: ignore[reportArgumentType]
    padded = {pad: next(size for size in levels[pad] if size >= need) for pad, need in needs.items()}
    fixed: dict[str, Value] = {}
    sizes: dict[str, int] = {}
    traced: list[str] = []
    for name, choice in space.choices.items():
        if not all(
            _can_be(space, parent, list_allowed_values(choice.when, parent), fixed, sizes, traced)
            for parent in choice.when
        ):
            continue
        pad = get_pad(choice)
        if is_depth(choice):
            sizes[name] = choice.high
        elif pad is not None:
            sizes[name] = padded.get(pad, levels[pad][0])
        elif choice.traced:
            traced.append(name)
        else:
            fixed[name] = values[name] if name in values else choice.value_at(0.0)
    return Bucket(fixed, sizes, tuple(traced))


def _can_be(
    space: SearchSpace[Any],
    parent: str,
    allowed: Iterable[Value],
    fixed: Mapping[str, Value],
    sizes: Mapping[str, int],
    traced: Iterable[str],
) -> bool:
    """Whether some candidate of the bucket has one of the allowed values of `parent`."""
    values = [space.choices[parent].read(value) for value in allowed]
    if parent in fixed:
        return any(type(value) is type(fixed[parent]) and value == fixed[parent] for value in values)
    if parent in sizes:
        return any(int(value) <= sizes[parent] for value in values)  # pyright: ignore[reportArgumentType]
    return parent in traced


def make_lane_data(space: SearchSpace[Any], candidate: Candidate, bucket: Bucket) -> dict[str, np.generic]:
    """The candidate's inputs of its bucket's programs: `[]` each, float32 for a number, int32 for the others."""
    data: dict[str, np.generic] = {}
    for name in (*bucket.sizes, *bucket.traced):
        choice = space.choices[name]
        value = candidate.values[name] if name in candidate.values else choice.value_at(0.0)
        if name in bucket.sizes:
            data[name] = np.int32(min(int(value), bucket.sizes[name]))  # pyright: ignore
        elif is_option(choice):
            data[name] = np.int32(int(choice.quantile(value) * len(choice.options)))
        else:
            data[name] = np.float32(value)  # pyright: ignore
    return data


def make_program_values(space: SearchSpace[Any], bucket: Bucket, data: Mapping[str, Any]) -> dict[str, Any]:
    """What `build` gets in a program of the bucket, in space order; `data` as `make_lane_data` gives it, traced."""
    values: dict[str, Any] = {}
    for name, choice in space.choices.items():
        if name in bucket.fixed:
            values[name] = bucket.fixed[name]
        elif name in bucket.sizes:
            values[name] = Length(bucket.sizes[name], data[name])
        elif name in data:
            values[name] = Option(choice.options, data[name]) if is_option(choice) else data[name]
    return values


def make_own_values(space: SearchSpace[Any], candidate: Candidate, bucket: Bucket) -> dict[str, Any]:
    """What `build` gets for the candidate in its true shape: plain values, but numbers that are data as arrays."""
    return {
        name: jnp.float32(value) if name in bucket.traced and not is_option(space.choices[name]) else value
        for name, value in candidate.values.items()
    }


class TrackedValues(Mapping[str, Any]):
    """Values that record which of them were read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values, self.read = values, set[str]()

    def __getitem__(self, name: str) -> Any:
        value = self._values[name]
        self.read.add(name)  # only after the lookup: a missing value has not been read
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)
