"""Which sizes are worth a program of their own: what padding costs is weighed against what a program costs."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from l2l import machine
from l2l.engine.bucket import Ladders, padded_sizes, padding, repeated
from l2l.engine.cost import operations
from l2l.space import Candidate, SearchSpace
from l2l.types import Learner, Spec

SAMPLES = 24
"""Candidates drawn to see what a space is like."""
HORIZON = 200
"""Candidates that a space's programs should pay for themselves within."""
RATES = {False: 4e10, True: 4e12}
"""Operations a second of one training on a core of a CPU, and on an accelerator, in products as small as these models
have. Constants, so that a search has the same programs at every start; the latter has not been measured."""
COMPILE = {False: 4.0, True: 10.0}
"""Seconds to trace and compile a program for either."""


def ladders(space: SearchSpace[Learner], spec: Spec) -> Ladders:
    """The sizes to pad to: padding costs operations, a further size costs a program.

    What is cheapest for `HORIZON` candidates drawn from the space; a function of space, task and kind of device.
    """
    padded = padded_sizes(space)
    draw = random.Random(0)
    drawn = [space.sample(draw) for _ in range(SAMPLES)] if padded else []
    return {pad: _ladder(space, spec, pad, steps, drawn) for pad, steps in padded.items()}


def _ladder(
    space: SearchSpace[Learner], spec: Spec, pad: str, steps: Sequence[int], drawn: Sequence[Candidate]
) -> tuple[int, ...]:
    """The ladder of one pad, by dynamic programming over where its parts end."""
    names = [name for name, choice in space.choices.items() if padding(choice) == pad]
    using = [each for each in drawn if any(name in each.values for name in names)]
    if not using:
        return tuple(steps)
    needs = [max(int(each.values[name]) for name in names if name in each.values) for each in using]  # pyright: ignore[reportArgumentType]
    steps = sorted({*needs, steps[-1]})  # a part that ends elsewhere only pads more
    if len(steps) == 1:
        return tuple(steps)
    costs = {at: found for at, each in enumerate(using) if (found := _costs(space, spec, names, steps, each))}
    share = HORIZON / len(drawn)
    accelerated = machine.accelerated()
    kinds = [_signature(space, each) for each in using]
    above: dict[int, tuple[float, tuple[int, ...]]] = {len(steps): (0.0, ())}
    for first in reversed(range(len(steps))):
        ways: list[tuple[float, tuple[int, ...]]] = []
        for last in range(first, len(steps)):
            members = [at for at in costs if steps[first] <= needs[at] <= steps[last]]
            run = share * sum(costs[at][last] for at in members) / RATES[accelerated]
            rest, larger = above[last + 1]
            programs = {kinds[i] for i in members}
            ways.append((run + COMPILE[accelerated] * max(len(programs), 1) + rest, (steps[last], *larger)))
        above[first] = min(ways)
    return above[0][1]


def _signature(space: SearchSpace[Any], candidate: Candidate) -> str:
    """What fixes a candidate's programs beside sizes."""
    return repr([
        value for name, value in space.static(candidate).items()
        if padding(space.choices[name]) is None and not repeated(space.choices[name])
    ])  # fmt: skip


def _costs(
    space: SearchSpace[Learner], spec: Spec, names: Sequence[str], steps: Sequence[int], candidate: Candidate
) -> list[float]:
    """Operations of the candidate at each size, a power law through the smallest and the largest.

    Nothing of one that cannot be built, which its own training will report.
    """
    ends: list[float] = []
    with suppress(Exception):
        for size in (steps[0], steps[-1]):
            values = {name: size if name in names else value for name, value in candidate.values.items()}
            ends.append(operations(space, values, spec))
    if len(ends) < 2:
        return []
    slope = math.log(max(ends[1], 1.0) / max(ends[0], 1.0)) / math.log(steps[-1] / steps[0])
    return [ends[1] * (step / steps[-1]) ** slope for step in steps]
