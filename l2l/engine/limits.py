"""What a candidate needs, counted before anything is allocated, and what it may need."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import jax

from l2l import machine
from l2l.engine import jax_caches
from l2l.engine.bucket import Bucket
from l2l.engine.cost import Size, measure
from l2l.engine.devices import BATCH, Place, dealt, spread
from l2l.errors import InputError, suggest_names
from l2l.space import Candidate, Categorical, Choice, Real, SearchSpace, Value
from l2l.types import Learner, Spec

REMEMBERED = 4096
"""Shapes whose size is remembered."""
CLEARED = 100
"""Shapes counted between two clearings of JAX's caches, where each leaves a tenth of a MiB or more."""


@dataclass(frozen=True)
class Limits:
    """The most that a candidate may need, in the terms of `Size`; None: as much as the machine has.

    Raises: InputError if a limit is not above 0.
    """

    parameters: float | None = None
    bytes: float | None = None
    flops: float | None = None
    active_parameters: float | None = None
    train_flops: float | None = None

    def __post_init__(self) -> None:
        for name in Size._fields:
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and value > 0):
                raise InputError(f"objective.limits.{name} must be a number above 0 or null, got {value!r}.")

    @staticmethod
    def read(given: Any) -> Limits:
        """Limits as they are, or by name as a configuration has them. Raises: InputError if they are none."""
        if isinstance(given, Limits):
            return given
        if not isinstance(given, Mapping):
            raise InputError(f"objective.limits must be given as objective.limits.NAME=NUMBER, got {given!r}.")
        for name in given:
            if name not in Size._fields:
                raise InputError(f"objective.limits.{name} is unknown: {suggest_names(str(name), Size._fields)}")
        return Limits(**{str(name): value for name, value in given.items()})

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return any(getattr(self, name) is not None for name in Size._fields)

    def broken(self, size: Size) -> str | None:
        """The first limit that is broken, in words; None if all are kept."""
        for name, value in size._asdict().items():
            limit = getattr(self, name)
            if limit is not None and value > limit:
                return f"{value:.10g} {name}, objective.limits.{name} is {limit:.10g}"
        return None


class Sizes:
    """What the candidates of a space need; each shape is counted once."""

    def __init__(self, space: SearchSpace[Learner], spec: Spec, limits: Limits) -> None:
        self.space, self.spec, self.limits = space, spec, limits
        self._known: dict[str, Size | None] = {}
        self._counted = 0

    def size(self, values: Mapping[str, Any], share: int = 1) -> Size | None:
        """What the candidate of these values needs, or one of `share` devices that its batches are dealt to.

        None if it cannot be traced, which its training will report.
        """
        numbers = {name for name, choice in self.space.choices.items() if isinstance(choice, Real) and choice.traced}
        shape = json.dumps([share, {name: value for name, value in values.items() if name not in numbers}])
        if shape in self._known:
            return self._known[shape]
        found: Size | None = None
        with suppress(Exception):
            found = measure(self.space, values, self.spec, share)
        while len(self._known) >= REMEMBERED:
            self._known.pop(next(iter(self._known)))
        self._known[shape] = found
        self._counted += 1
        if self._counted % CLEARED == 0:
            jax_caches.clear()
        return found

    def fits(self, held: Bucket, lanes: int = 1, share: int = 1) -> bool:
        """Whether a device has the memory for so many of the bucket's largest candidate, or a share of its batches."""
        size = self.size(largest(self.space, held), share)
        return size is None or lanes * size.bytes <= memory()

    def place(self, held: Bucket, lanes: int = 1) -> Place | None:
        """The devices for so many lanes of a bucket, all that can be busy; None if these have not the memory."""
        count = jax.local_device_count()
        place = Place(spread(lanes, count))
        if self.fits(held, place.filled(lanes) // place.devices):
            return place
        if lanes > 1 or count == 1:
            return None
        learner = self.space.build(largest(self.space, held), self.spec)
        share = dealt(int(learner.microbatch or learner.batch_size), count)
        return Place(share, BATCH) if share > 1 and self.fits(held, share=share) else None

    def refusal(self, candidate: Candidate, held: Bucket) -> str | None:
        """Why the candidate must not begin, None if it may: its space, a limit or the machine does not allow it."""
        try:
            self.space.build(candidate.values, self.spec)
        except InputError as error:
            return str(error)
        except Exception:  # its training will report it
            pass
        own = self.size(candidate.values) if self.limits.any else None
        if own is not None and (broken := self.limits.broken(own)) is not None:
            return broken
        if self.place(held) is not None:
            return None
        size = self.size(largest(self.space, held))
        assert size is not None
        return f"{size.bytes:.6g} bytes, the machine has {memory():.6g}"


def largest(space: SearchSpace[Any], held: Bucket) -> dict[str, Any]:
    """The values of a bucket's largest candidate: padded sizes in full, of what data choose the largest number."""
    return {
        name: held.fixed[name] if name in held.fixed else held.sizes.get(name, _last(choice))
        for name, choice in space.choices.items()
        if name in held.fixed or name in held.sizes or name in held.traced
    }


def _last(choice: Choice) -> Value:
    """The largest value where all are numbers, else the last one."""
    if isinstance(choice, Categorical):
        numbers = [each for each in choice.options if isinstance(each, int | float) and not isinstance(each, bool)]
        return max(numbers) if len(numbers) == len(choice.options) else choice.options[-1]
    return choice.value_at(1.0)


@functools.cache
def memory() -> int:
    """Bytes of memory that a program may take on a device: the accelerator's, or an equal share of the host's.

    All there is and not what is free at the moment, so that the same candidates are refused at every start.
    """
    held = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in held:
        return held["bytes_limit"]
    return machine.memory() // jax.local_device_count()
