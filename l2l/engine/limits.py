"""What candidates may cost: the limits of the user, and the memory of the devices."""

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
from l2l.engine.cost import Cost, measure_cost
from l2l.engine.devices import BATCH_AXIS, DeviceLayout, count_batch_devices, count_lane_devices
from l2l.engine.trace_files import NO_FILES, TraceFiles
from l2l.errors import InputError, check_number, suggest_names
from l2l.space import Candidate, Categorical, Choice, Real, SearchSpace, Value
from l2l.types import Learner, Spec

CACHED_COSTS = 4096
"""Shapes whose cost is remembered."""
SHAPES_PER_CLEARING = 100
"""Shapes measured between two clearings of JAX's caches, where each leaves a tenth of a MiB or more."""


@dataclass(frozen=True)
class Limits:
    """The most that a candidate may cost, in the terms of `Cost`; None: as much as the machine has.

    Raises: InputError if a limit is not above 0.
    """

    parameters: float | None = None
    bytes: float | None = None
    flops: float | None = None
    active_parameters: float | None = None
    train_flops: float | None = None

    def __post_init__(self) -> None:
        for name in Cost._fields:
            check_number(f"objective.limits.{name}", getattr(self, name), above=0, optional=True)

    @staticmethod
    def read(limits: Any) -> Limits:
        """The limits themselves, or those of a configuration's mapping. Raises: InputError if they are invalid."""
        if isinstance(limits, Limits):
            return limits
        if not isinstance(limits, Mapping):
            raise InputError(f"objective.limits must be given as objective.limits.NAME=NUMBER, got {limits!r}.")
        for name in limits:
            if name not in Cost._fields:
                raise InputError(f"objective.limits.{name} is unknown: {suggest_names(str(name), Cost._fields)}")
        return Limits(**{str(name): limit for name, limit in limits.items()})

    @property
    def is_set(self) -> bool:
        """Whether there is any limit."""
        return any(getattr(self, name) is not None for name in Cost._fields)

    def find_violation(self, cost: Cost) -> str | None:
        """The first limit that the cost exceeds, in words; None if it exceeds none."""
        for name, value in cost._asdict().items():
            limit = getattr(self, name)
            if limit is not None and value > limit:
                return f"{value:.10g} {name}, objective.limits.{name} is {limit:.10g}"
        return None


class Capacity:
    """Which candidates of a space the limits and the devices allow; the cost of each shape is measured once."""

    def __init__(self, space: SearchSpace[Learner], spec: Spec, limits: Limits, files: TraceFiles = NO_FILES) -> None:
        self.space, self.spec, self.limits, self.files = space, spec, limits, files
        self._costs: dict[str, Cost | None] = {}
        self._measured = 0

    def measure(self, values: Mapping[str, Any], share: int = 1) -> Cost | None:
        """The cost of the candidate of these values, or of one of `share` devices that its batches are split among.

        None if the candidate cannot be traced; its training will report why.
        """
        numbers = {name for name, choice in self.space.choices.items() if isinstance(choice, Real) and choice.traced}
        shape = json.dumps([share, {name: value for name, value in values.items() if name not in numbers}])
        if shape in self._costs:
            return self._costs[shape]
        cost: Cost | None = None
        with suppress(Exception):
            cost = self.files.remember(
                lambda: measure_cost(self.space, values, self.spec, share), "cost", self.spec, shape
            )
        while len(self._costs) >= CACHED_COSTS:
            self._costs.pop(next(iter(self._costs)))
        self._costs[shape] = cost
        self._measured += 1
        if self._measured % SHAPES_PER_CLEARING == 0:
            jax_caches.clear()
        return cost

    def has_memory(self, bucket: Bucket, lanes: int = 1, share: int = 1) -> bool:
        """Whether one device has the memory for so many of the bucket's largest candidate, or a share of its batch."""
        cost = self.measure(select_largest(self.space, bucket), share)
        return cost is None or lanes * cost.bytes <= device_memory()

    def choose_layout(self, bucket: Bucket, lanes: int = 1) -> DeviceLayout | None:
        """The devices for so many lanes of a bucket, as many as can be busy; None if they have not the memory."""
        count = jax.local_device_count()
        layout = DeviceLayout(count_lane_devices(lanes, count))
        if self.has_memory(bucket, layout.pad_lanes(lanes) // layout.devices):
            return layout
        if lanes > 1 or count == 1:
            return None
        learner = self.space.build(select_largest(self.space, bucket), self.spec)
        share = count_batch_devices(int(learner.microbatch or learner.batch_size), count)
        return DeviceLayout(share, BATCH_AXIS) if share > 1 and self.has_memory(bucket, share=share) else None

    def refusal(self, candidate: Candidate, bucket: Bucket) -> str | None:
        """Why the candidate must not begin: its space, a limit or the memory forbids it; None if it may."""
        try:
            self.space.build(candidate.values, self.spec)
        except InputError as error:
            return str(error)
        except Exception:  # its training will report it
            pass
        cost = self.measure(candidate.values) if self.limits.is_set else None
        if cost is not None and (violation := self.limits.find_violation(cost)) is not None:
            return violation
        if self.choose_layout(bucket) is not None:
            return None
        cost = self.measure(select_largest(self.space, bucket))
        assert cost is not None
        return f"{cost.bytes:.6g} bytes, the machine has {device_memory():.6g}"


def select_largest(space: SearchSpace[Any], bucket: Bucket) -> dict[str, Any]:
    """The values of a bucket's largest candidate: full padded sizes, and the largest value of each traced choice."""
    return {
        name: bucket.fixed[name] if name in bucket.fixed else bucket.sizes.get(name, _find_largest(choice))
        for name, choice in space.choices.items()
        if name in bucket.fixed or name in bucket.sizes or name in bucket.traced
    }


def _find_largest(choice: Choice) -> Value:
    """The choice's largest value; the last one if not all are numbers."""
    if isinstance(choice, Categorical):
        numbers = [option for option in choice.options if isinstance(option, int | float) and type(option) is not bool]
        return max(numbers) if len(numbers) == len(choice.options) else choice.options[-1]
    return choice.value_at(1.0)


@functools.cache
def device_memory() -> int:
    """Bytes that a program may take on a device: the accelerator's memory, or an equal share of the host's.

    This is the total and not what is free at the moment, so that the same candidates are refused at every start.
    """
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"]
    return machine.memory() // jax.local_device_count()
