"""Which candidates share a program: a bucket fixes what is static and pads what may be padded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeGuard

import jax.numpy as jnp
import numpy as np

from l2l.nn.padded import Padded, Picked
from l2l.space import Candidate, Categorical, Choice, Integer, Real, SearchSpace, Value, list_allowed_values, options

Ladders = Mapping[str, tuple[int, ...]]
"""Sizes to pad to, ascending, by the name that padded choices share; the largest covers every option."""


class Bucket(NamedTuple):
    """What the candidates of one program have in common."""

    fixed: Mapping[str, Value]
    """Values that are compiled in."""
    sizes: Mapping[str, int]
    """Padded choices and the size that they are padded to."""
    traced: tuple[str, ...]
    """Choices that are data."""

    @property
    def name(self) -> str:
        """The same text for equal buckets."""
        return json.dumps([dict(self.fixed), dict(self.sizes), self.traced])


def padding(choice: Choice) -> str | None:
    """The name of a choice's pad, None if it has none."""
    return None if isinstance(choice, Real) else choice.pad


def repeated(choice: Choice) -> TypeGuard[Integer]:
    """Whether a choice is how often a part is repeated."""
    return isinstance(choice, Integer) and choice.repeats


def padded_sizes(space: SearchSpace[Any]) -> dict[str, tuple[int, ...]]:
    """Every size that padded choices can have, by the name of their pad."""
    found: dict[str, set[int]] = {}
    for choice in space.choices.values():
        if (pad := padding(choice)) is not None:
            found.setdefault(pad, set()).update(int(each) for each in options(choice))  # pyright: ignore
    return {name: tuple(sorted(each)) for name, each in found.items()}


def exact(candidate: Candidate) -> Bucket:
    """The bucket of this candidate alone: everything is compiled in."""
    return Bucket(candidate.values, {}, ())


def plain(space: SearchSpace[Any], candidate: Candidate) -> Bucket:
    """The bucket of all candidates of this one's true shape: only numbers are data."""
    data = tuple(name for name in space.select_traced(candidate) if not is_picked(space.choices[name]))
    return Bucket({name: value for name, value in candidate.values.items() if name not in data}, {}, data)


def bucket(space: SearchSpace[Any], candidate: Candidate, ladders: Ladders) -> Bucket:
    """The bucket of a candidate, a function of the candidate alone.

    It also holds the choices that are inactive in this candidate but active in another one of the bucket.
    """
    values = candidate.values
    needed: dict[str, int] = {}
    for name, value in values.items():
        if (pad := padding(space.choices[name])) is not None:
            needed[pad] = max(needed.get(pad, 0), int(value))  # pyright: ignore[reportArgumentType]
    padded = {pad: next(size for size in ladders[pad] if size >= need) for pad, need in needed.items()}
    fixed: dict[str, Value] = {}
    sizes: dict[str, int] = {}
    traced: list[str] = []
    for name, choice in space.choices.items():
        if not all(
            _possible(space, parent, list_allowed_values(choice.when, parent), fixed, sizes, traced)
            for parent in choice.when
        ):
            continue
        pad = padding(choice)
        if repeated(choice):
            sizes[name] = choice.high
        elif pad is not None:
            sizes[name] = padded.get(pad, ladders[pad][0])
        elif choice.traced:
            traced.append(name)
        else:
            fixed[name] = values[name] if name in values else choice.value_at(0.0)
    return Bucket(fixed, sizes, tuple(traced))


def _possible(
    space: SearchSpace[Any],
    parent: str,
    wanted: Iterable[Value],
    fixed: Mapping[str, Value],
    sizes: Mapping[str, int],
    traced: Iterable[str],
) -> bool:
    """Whether some candidate of the bucket has one of the wanted values of `parent`."""
    wanted = [space.choices[parent].read(each) for each in wanted]
    if parent in fixed:
        return any(type(each) is type(fixed[parent]) and each == fixed[parent] for each in wanted)
    if parent in sizes:
        return any(int(each) <= sizes[parent] for each in wanted)  # pyright: ignore[reportArgumentType]
    return parent in traced


def numbers(space: SearchSpace[Any], candidate: Candidate, held: Bucket) -> dict[str, np.generic]:
    """The candidate's data in the programs of its bucket: each `[]`, float32 for a number and int32 for the others."""
    found: dict[str, np.generic] = {}
    for name in (*held.sizes, *held.traced):
        choice = space.choices[name]
        value = candidate.values[name] if name in candidate.values else choice.value_at(0.0)
        if name in held.sizes:
            found[name] = np.int32(min(int(value), held.sizes[name]))  # pyright: ignore
        elif is_picked(choice):
            found[name] = np.int32(int(choice.quantile(value) * len(choice.options)))
        else:
            found[name] = np.float32(value)  # pyright: ignore
    return found


def is_picked(choice: Choice) -> TypeGuard[Categorical]:
    """Whether a traced choice reaches `build` as a `Picked`: it has options, not all of them numbers with a fraction.

    Whole numbers are options too: a kernel is chosen from, a rate is computed with.
    """
    if not isinstance(choice, Categorical):
        return False
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in choice.options)
    return not (numbers and any(isinstance(each, float) for each in choice.options))


def assemble(space: SearchSpace[Any], held: Bucket, data: Mapping[str, Any]) -> dict[str, Any]:
    """What `build` gets inside a program: plain values, `Padded`, `Picked` and traced numbers, in space order."""
    made: dict[str, Any] = {}
    for name, choice in space.choices.items():
        if name in held.fixed:
            made[name] = held.fixed[name]
        elif name in held.sizes:
            made[name] = Padded(held.sizes[name], data[name])
        elif name in data:
            made[name] = Picked(choice.options, data[name]) if is_picked(choice) else data[name]
    return made


def alone(space: SearchSpace[Any], candidate: Candidate, held: Bucket) -> dict[str, Any]:
    """What `build` gets for the candidate by itself: its own values, traced numbers as arrays."""
    return {
        name: jnp.float32(value) if name in held.traced and not is_picked(space.choices[name]) else value
        for name, value in candidate.values.items()
    }
