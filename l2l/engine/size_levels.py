"""Which sizes are worth a program of their own: what padding costs is weighed against what a program costs."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from l2l import machine
from l2l.engine.bucket import Ladders, bucket, numbers, padded_sizes, padding, repeated
from l2l.engine.cost import equations, operations
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
"""Seconds to trace and compile a program for either, if its model has no more than so many equations."""
EQUATIONS = 500
PROGRAMS = 4
"""The most ways in which the ladders of a space with `MANY` pads may combine."""
MANY = 3
"""Pads of a space from which on fewer candidates are counted, and the length of its programs is looked at."""


class _Drawn(NamedTuple):
    """A candidate that was drawn, in sizes alone."""

    kind: str
    """What fixes its programs beside sizes."""
    needs: Mapping[str, int]
    """The size it needs of each pad that it has."""
    base: float
    """Its operations with every pad at its largest; 0 if it cannot be built, which its own training will report."""
    slopes: Mapping[str, float]
    """The power of each pad's size that they grow with."""

    def operations(self, sizes: Mapping[str, float]) -> float:
        """At these shares of the largest sizes."""
        return self.base * math.prod(share ** self.slopes[pad] for pad, share in sizes.items() if pad in self.slopes)


def ladders(space: SearchSpace[Learner], spec: Spec) -> Ladders:
    """The sizes to pad to: padding costs operations, a further size costs a program.

    What is cheapest for `HORIZON` candidates drawn from the space; a function of space, task and kind of device. The
    pads are gone through twice, those first that most hangs on: each given what the others have.
    """
    padded = padded_sizes(space)
    draw = random.Random(0)
    drawn = [space.sample(draw) for _ in range(SAMPLES)] if padded else []
    counted = SAMPLES if len(padded) < MANY else max(SAMPLES // len(padded), 6)
    lowest = {pad: min(_needs(space, each).get(pad, steps[-1]) for each in drawn) for pad, steps in padded.items()}
    known = _measured(space, spec, drawn[:counted], lowest, padded)
    known += _likened(space, drawn[counted:], known)
    compile_ = COMPILE[machine.has_accelerator()] * (
        _length(space, spec, drawn[0], padded) if len(padded) >= MANY else 1.0
    )
    found: dict[str, tuple[int, ...]] = {pad: steps[-1:] for pad, steps in padded.items()}
    weight = {pad: sum(each.base * each.slopes.get(pad, 0.0) for each in known) for pad in padded}
    for _ in range(2 if len(padded) > 1 else 1):
        for pad in sorted(padded, key=lambda pad: -weight[pad]):
            found[pad] = _ladder(pad, padded[pad], known, found, compile_)
    few = _capped(found, known) if len(padded) >= MANY else found
    return {pad: tuple(sizes) for pad, sizes in few.items()}


def _capped(found: Mapping[str, Sequence[int]], drawn: Sequence[_Drawn]) -> dict[str, list[int]]:
    """The ladders without those sizes that cost least to do without, until they combine in few enough ways."""
    kept = {pad: list(sizes) for pad, sizes in found.items()}

    def run(pad: str, size: int) -> float:
        sizes = kept | {pad: [each for each in kept[pad] if each != size]}
        return sum(
            each.operations({name: _rung(sizes[name], need) / sizes[name][-1] for name, need in each.needs.items()})
            for each in drawn
        )

    patterns = {frozenset(each.needs) for each in drawn}
    patterns = {each for each in patterns if not any(each < other for other in patterns)}  # a part pads as the whole
    while sum(math.prod(len(kept[pad]) for pad in pattern) for pattern in patterns) > PROGRAMS:
        smaller = [(run(pad, size), pad, size) for pad, sizes in kept.items() for size in sizes[:-1]]
        if not smaller:  # as few as they can be
            break
        _, pad, size = min(smaller)
        kept[pad].remove(size)
    return kept


def _ladder(
    pad: str, steps: Sequence[int], drawn: Sequence[_Drawn], others: Ladders, compile_: float
) -> tuple[int, ...]:
    """The ladder of one pad, by dynamic programming over where its parts end, given those of the other pads."""
    using = [each for each in drawn if pad in each.needs]
    if not using:
        return tuple(steps)
    needs = [each.needs[pad] for each in using]
    steps = sorted({*needs, steps[-1]})  # a part that ends elsewhere only pads more
    if len(steps) == 1:
        return tuple(steps)
    rungs = [{name: _rung(others[name], need) for name, need in each.needs.items() if name != pad} for each in using]
    kinds = [repr((each.kind, rung)) for each, rung in zip(using, rungs, strict=True)]
    shares = [{name: size / others[name][-1] for name, size in rung.items()} for rung in rungs]
    costs = [
        [each.operations({**share, pad: step / steps[-1]}) for step in steps]
        for each, share in zip(using, shares, strict=True)
    ]
    worth = HORIZON / len(drawn)
    accelerated = machine.has_accelerator()
    above: dict[int, tuple[float, tuple[int, ...]]] = {len(steps): (0.0, ())}
    for first in reversed(range(len(steps))):
        ways: list[tuple[float, tuple[int, ...]]] = []
        for last in range(first, len(steps)):
            members = [at for at, each in enumerate(using) if each.base and steps[first] <= needs[at] <= steps[last]]
            run = worth * sum(costs[at][last] for at in members) / RATES[accelerated]
            rest, larger = above[last + 1]
            programs = {kinds[at] for at in members}
            ways.append((run + compile_ * max(len(programs), 1) + rest, (steps[last], *larger)))
        above[first] = min(ways)
    return above[0][1]


def _length(
    space: SearchSpace[Learner], spec: Spec, candidate: Candidate, padded: Mapping[str, Sequence[int]]
) -> float:
    """How many times `EQUATIONS` the model of the space's programs has, at least 1: compiling takes as much longer."""
    with suppress(Exception):
        held = bucket(space, candidate, {pad: tuple(steps[-1:]) for pad, steps in padded.items()})
        return max(equations(space, held, numbers(space, candidate, held), spec) / EQUATIONS, 1.0)
    return 1.0


def _rung(ladder: Sequence[int], need: int) -> int:
    return next(size for size in ladder if size >= need)


def _needs(space: SearchSpace[Any], candidate: Candidate) -> dict[str, int]:
    """The largest size that a candidate has of each pad."""
    found: dict[str, int] = {}
    for name, value in candidate.values.items():
        if (pad := padding(space.choices[name])) is not None:
            found[pad] = max(found.get(pad, 0), int(value))  # pyright: ignore[reportArgumentType]
    return found


def _measured(
    space: SearchSpace[Learner],
    spec: Spec,
    drawn: Sequence[Candidate],
    lowest: Mapping[str, int],
    padded: Mapping[str, Sequence[int]],
) -> list[_Drawn]:
    """Candidates' operations with all their sizes at their largest, and how these grow with each pad.

    With few pads each candidate's growth is measured, with `MANY` that of the one that has most of them stands for all.
    """
    needs = [_needs(space, each) for each in drawn]
    most = max(needs, key=len, default={})
    found: list[_Drawn] = []
    shared: Mapping[str, float] | None = None
    for candidate, need in sorted(zip(drawn, needs, strict=True), key=lambda pair: pair[1] is not most):
        base, slopes = 0.0, shared or {}
        with suppress(Exception):
            largest = {pad: padded[pad][-1] for pad in need}
            whole = _operations(space, spec, candidate, largest)
            if shared is None:
                slopes = _slopes(space, spec, candidate, whole, largest, lowest)
            base = whole
        found.append(_Drawn(_kind(space, candidate), need, base, slopes))
        if len(padded) >= MANY and base:
            shared = slopes
    return found


def _likened(space: SearchSpace[Any], drawn: Sequence[Candidate], measured: Sequence[_Drawn]) -> list[_Drawn]:
    """Candidates that are not counted: as many operations as those that were have on average."""
    known = [each for each in measured if each.base]
    found: list[_Drawn] = []
    for candidate in drawn:
        kind = _kind(space, candidate)
        like = [each for each in known if each.kind == kind] or known
        base = statistics.fmean(each.base for each in like) if like else 0.0
        found.append(_Drawn(kind, _needs(space, candidate), base, like[0].slopes if like else {}))
    return found


def _kind(space: SearchSpace[Any], candidate: Candidate) -> str:
    """What fixes a candidate's programs beside sizes."""
    return repr([
        value for name, value in space.select_static(candidate).items()
        if padding(space.choices[name]) is None and not repeated(space.choices[name])
    ])  # fmt: skip


def _slopes(
    space: SearchSpace[Learner],
    spec: Spec,
    candidate: Candidate,
    whole: float,
    largest: Mapping[str, int],
    lowest: Mapping[str, int],
) -> dict[str, float]:
    """The power of each pad's size that a candidate's `whole` operations grow with, between the two sizes."""
    found: dict[str, float] = {}
    for pad, size in largest.items():
        if (low := lowest[pad]) < size:
            less = _operations(space, spec, candidate, {**largest, pad: low})
            found[pad] = math.log(whole / less) / math.log(size / low)
    return found


def _operations(space: SearchSpace[Learner], spec: Spec, candidate: Candidate, sizes: Mapping[str, int]) -> float:
    """A candidate's operations with its pads at these sizes."""
    pads = {name: padding(space.choices[name]) for name in candidate.values}
    values = {name: value if (pad := pads[name]) is None else sizes[pad] for name, value in candidate.values.items()}
    return max(operations(space, values, spec), 1.0)
