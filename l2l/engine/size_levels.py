"""Size levels: the sizes that padded choices are padded to, and so the number of programs that a space needs.

Padding costs operations, but every further level costs the compilation of a program. A worked example: four sampled
candidates need the widths 16, 32, 32 and 64. Each stands for 50 of the search's 200 candidates. At width
64 a candidate runs for 0.1 s (4e9 operations at 4e10 a second), at narrower widths for proportionally less, and a
program takes 4 s to compile:

    levels        seconds to run, width by width               to compile   in all
    64            50 * (0.1   + 0.1  + 0.1  + 0.1) = 20         4           24
    16, 64        50 * (0.025 + 0.1  + 0.1  + 0.1) = 16.25      8           24.25
    32, 64        50 * (0.05  + 0.05 + 0.05 + 0.1) = 12.5       8           20.5    <- chosen
    16, 32, 64    50 * (0.025 + 0.05 + 0.05 + 0.1) = 11.25     12           23.25

A level of its own for width 16 would save 1.25 s of running and cost 4 s of compiling. `find_cheapest_levels` finds
this minimum by dynamic programming. Where a space has several pads (names that padded choices share, as "width"),
`choose_size_levels` does so for one pad at a time, given the levels of the others: coordinate descent.

Compiling with fewer optimisations is a like bargain, for all programs of a search at once (`plan_programs`).
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from l2l import machine
from l2l.engine.bucket import SizeLevels, get_pad, is_depth, list_padded_sizes, make_lane_data, make_shared_bucket
from l2l.engine.cost import count_model_equations, count_training_operations
from l2l.space import Candidate, SearchSpace
from l2l.types import Learner, Spec

SAMPLES = 24
"""Candidates sampled from a space to see which sizes they need."""
HORIZON = 200
"""Candidates of a search, where nobody says how many there will be."""
RATES = {False: 4e10, True: 4e12}
"""Operations a second of one training: on one core of a CPU, and on an accelerator (True).

The CPU's was measured with the built-in spaces, whose matrix products are small; the accelerator's is an assumption.
These are constants, so that a search has the same programs at every start."""
COMPILE_SECONDS = {False: 4.0, True: 10.0}
"""Seconds to trace and compile a program of up to `EQUATIONS` equations: on a CPU, measured with the built-in spaces
on two cores; on an accelerator (True), an assumption."""
QUICK_COMPILE, QUICK_RUN = 0.65, 1.3
"""How many times longer compiling and running take with fewer optimisations: on a CPU, measured with the built-in
spaces on the digits (compiling 0.63 to 0.7, running 1.0 for perceptrons, 1.2 to 1.35 for the others)."""
EQUATIONS = 500
"""Equations of a model above which compiling takes proportionally longer."""
MANY_PADS = 3
"""Pads from which on a space is large: fewer candidates are measured, and the number of its programs is limited."""
MAX_COMBINATIONS = 4
"""The most combinations of levels in a space with `MANY_PADS` pads: its programs take longest to compile."""


class ProgramPlan(NamedTuple):
    """What a search's programs have in common."""

    levels: SizeLevels
    compiles_quickly: bool = False
    """Whether XLA compiles them with fewer optimisations, since little is trained."""


class SampledCandidate(NamedTuple):
    """A sampled candidate, as far as its programs and their sizes matter."""

    kind: str
    """What fixes its programs, apart from sizes."""
    needs: Mapping[str, int]
    """The largest size that it has of each of its pads."""
    operations: float
    """Of its training with every pad at its largest size; 0 if it cannot be built, which its training will report."""
    exponents: Mapping[str, float]
    """Its operations grow with each pad's size to this power."""

    def estimate_operations(self, shares: Mapping[str, float]) -> float:
        """Its operations with each pad at a share of its largest size."""
        powers = (share ** self.exponents[pad] for pad, share in shares.items() if pad in self.exponents)
        return self.operations * math.prod(powers)


class Demand(NamedTuple):
    """What a sampled candidate asks of the levels of one pad."""

    size: int
    """The size that it needs."""
    program: str
    """What fixes its program, apart from this pad."""
    operations: Sequence[float]
    """Of its training at each size that may become a level, ascending."""


def plan_programs(space: SearchSpace[Learner], spec: Spec, trials: int = HORIZON) -> ProgramPlan:
    """The programs of a search of so many trials: a function of these, the task and the kind of device.

    Of a space that has no sizes to choose from nothing is measured.
    """
    sizes = list_padded_sizes(space)
    if all(len(pad_sizes) == 1 for pad_sizes in sizes.values()):
        return ProgramPlan(sizes)
    rng = random.Random(0)
    candidates = [space.sample(rng) for _ in range(SAMPLES)]
    samples = _sample_costs(space, spec, candidates, sizes)
    compile_seconds = COMPILE_SECONDS[machine.has_accelerator()]
    if len(sizes) >= MANY_PADS:
        compile_seconds *= _compare_length(space, spec, candidates[0], sizes)
    levels = _choose_all_levels(sizes, samples, trials, compile_seconds)
    if machine.has_accelerator():
        return ProgramPlan(levels)
    programs = {
        repr((sample.kind, {pad: _round_up(need, levels[pad]) for pad, need in sample.needs.items()}))
        for sample in samples
    }
    run = trials * statistics.fmean(_count_padded(sample, levels) for sample in samples) / RATES[False]
    saved = (1.0 - QUICK_COMPILE) * compile_seconds * min(len(programs), trials)
    return ProgramPlan(levels, (QUICK_RUN - 1.0) * run < saved)


def choose_size_levels(space: SearchSpace[Learner], spec: Spec, trials: int = HORIZON) -> SizeLevels:
    """The levels of each pad that are cheapest for so many trials: a function of space, task and kind of device."""
    return plan_programs(space, spec, trials).levels


def _choose_all_levels(
    sizes: Mapping[str, Sequence[int]], samples: Sequence[SampledCandidate], trials: int, compile_seconds: float
) -> SizeLevels:
    """The levels of all pads.

    Two passes over the pads, those first whose size costs most operations; in a large space, levels that save least
    are then removed until few combinations are left.
    """
    levels: dict[str, tuple[int, ...]] = {pad: tuple(pad_sizes[-1:]) for pad, pad_sizes in sizes.items()}
    weights = {pad: sum(sample.operations * sample.exponents.get(pad, 0.0) for sample in samples) for pad in sizes}
    for _ in range(2 if len(sizes) > 1 else 1):
        for pad in sorted(sizes, key=lambda pad: -weights[pad]):
            levels[pad] = _choose_levels(pad, sizes[pad], samples, levels, trials, compile_seconds)
    return _limit_combinations(levels, samples) if len(sizes) >= MANY_PADS else levels


def _choose_levels(
    pad: str,
    sizes: Sequence[int],
    samples: Sequence[SampledCandidate],
    levels: SizeLevels,
    trials: int,
    compile_seconds: float,
) -> tuple[int, ...]:
    """The cheapest levels of one pad, given those of the other pads."""
    users = [sample for sample in samples if pad in sample.needs]
    if not users:
        return tuple(sizes)
    sizes = sorted({*(sample.needs[pad] for sample in users), sizes[-1]})  # a level that nobody needs only pads more
    demands: list[Demand] = []
    for sample in users:
        others = {name: _round_up(need, levels[name]) for name, need in sample.needs.items() if name != pad}
        shares = {name: size / levels[name][-1] for name, size in others.items()}
        operations = [sample.estimate_operations({**shares, pad: size / sizes[-1]}) for size in sizes]
        if sample.operations:
            demands.append(Demand(sample.needs[pad], repr((sample.kind, others)), operations))
    rate = RATES[machine.has_accelerator()]
    return find_cheapest_levels(sizes, demands, trials / len(samples), rate, compile_seconds)


def find_cheapest_levels(
    sizes: Sequence[int], demands: Sequence[Demand], weight: float, rate: float, compile_seconds: float
) -> tuple[int, ...]:
    """The levels among `sizes`, ascending, with the fewest seconds to run and to compile; the largest is one of them.

    `weight` is how many candidates each demand stands for, `rate` the operations of a second. Dynamic programming:
    `cheapest[first]` holds the seconds and the levels of all candidates that need `sizes[first]` or more.
    """
    cheapest: dict[int, tuple[float, tuple[int, ...]]] = {len(sizes): (0.0, ())}
    for first in reversed(range(len(sizes))):
        choices: list[tuple[float, tuple[int, ...]]] = []
        for last in range(first, len(sizes)):  # candidates that need `sizes[first]` to `sizes[last]` share a level
            members = [demand for demand in demands if sizes[first] <= demand.size <= sizes[last]]
            run = weight * sum(demand.operations[last] for demand in members) / rate
            programs = {demand.program for demand in members}
            rest, levels = cheapest[last + 1]
            choices.append((run + compile_seconds * max(len(programs), 1) + rest, (sizes[last], *levels)))
        cheapest[first] = min(choices)
    return cheapest[0][1]


def _limit_combinations(levels: SizeLevels, samples: Sequence[SampledCandidate]) -> SizeLevels:
    """The levels without those that save least, until they combine in at most `MAX_COMBINATIONS` ways."""
    remaining = dict(levels)

    def remove(pad: str, size: int) -> dict[str, tuple[int, ...]]:
        return remaining | {pad: tuple(level for level in remaining[pad] if level != size)}

    def count_operations(levels: SizeLevels) -> float:
        return sum(_count_padded(sample, levels) for sample in samples)

    patterns = {frozenset(sample.needs) for sample in samples}
    # A candidate with only some of another's pads is padded as the other one.
    patterns = {pattern for pattern in patterns if not any(pattern < other for other in patterns)}
    while sum(math.prod(len(remaining[pad]) for pad in pattern) for pattern in patterns) > MAX_COMBINATIONS:
        removable = [(pad, size) for pad, pad_levels in remaining.items() for size in pad_levels[:-1]]
        if not removable:
            break
        _, pad, size = min((count_operations(remove(pad, size)), pad, size) for pad, size in removable)
        remaining = remove(pad, size)
    return remaining


def _compare_length(
    space: SearchSpace[Learner], spec: Spec, candidate: Candidate, sizes: Mapping[str, Sequence[int]]
) -> float:
    """How many times `EQUATIONS` the model of the candidate's largest program has, at least 1."""
    with suppress(Exception):
        largest = make_shared_bucket(space, candidate, {pad: tuple(pad_sizes[-1:]) for pad, pad_sizes in sizes.items()})
        equations = count_model_equations(space, largest, make_lane_data(space, candidate, largest), spec)
        return max(equations / EQUATIONS, 1.0)
    return 1.0


def _count_padded(sample: SampledCandidate, levels: SizeLevels) -> float:
    """The operations of a sampled candidate's training, padded to these levels."""
    shares = {pad: _round_up(need, levels[pad]) / levels[pad][-1] for pad, need in sample.needs.items()}
    return sample.estimate_operations(shares)


def _round_up(need: int, levels: Sequence[int]) -> int:
    """The smallest level that is large enough."""
    return next(level for level in levels if level >= need)


def _find_needs(space: SearchSpace[Any], candidate: Candidate) -> dict[str, int]:
    """The largest size that a candidate has of each of its pads."""
    needs: dict[str, int] = {}
    for name, value in candidate.values.items():
        if (pad := get_pad(space.choices[name])) is not None:
            needs[pad] = max(needs.get(pad, 0), int(value))  # pyright: ignore[reportArgumentType]
    return needs


def _sample_costs(
    space: SearchSpace[Learner], spec: Spec, candidates: Sequence[Candidate], sizes: Mapping[str, Sequence[int]]
) -> list[SampledCandidate]:
    """The candidates with their operations: measured, or in a large space estimated for those after the first few."""
    count = SAMPLES if len(sizes) < MANY_PADS else max(SAMPLES // len(sizes), 6)
    lowest = {
        pad: min(_find_needs(space, candidate).get(pad, pad_sizes[-1]) for candidate in candidates)
        for pad, pad_sizes in sizes.items()
    }
    measured = _measure_candidates(space, spec, candidates[:count], lowest, sizes)
    return measured + _estimate_candidates(space, candidates[count:], measured)


def _measure_candidates(
    space: SearchSpace[Learner],
    spec: Spec,
    candidates: Sequence[Candidate],
    lowest: Mapping[str, int],
    sizes: Mapping[str, Sequence[int]],
) -> list[SampledCandidate]:
    """Candidates with their operations at the largest sizes, and with the exponents of their growth.

    With few pads the exponents of each candidate are measured; with `MANY_PADS` those of one candidate that has most
    pads stand for all.
    """
    needs = [_find_needs(space, candidate) for candidate in candidates]
    most = max(needs, key=len, default={})
    samples: list[SampledCandidate] = []
    shared: Mapping[str, float] | None = None
    for candidate, need in sorted(zip(candidates, needs, strict=True), key=lambda pair: pair[1] is not most):
        operations, exponents = 0.0, shared or {}
        with suppress(Exception):
            largest = {pad: sizes[pad][-1] for pad in need}
            full = _count_operations(space, spec, candidate, largest)
            if shared is None:
                exponents = _measure_exponents(space, spec, candidate, full, largest, lowest)
            operations = full
        samples.append(SampledCandidate(_describe_kind(space, candidate), need, operations, exponents))
        if len(sizes) >= MANY_PADS and operations:
            shared = exponents
    return samples


def _estimate_candidates(
    space: SearchSpace[Any], candidates: Sequence[Candidate], measured: Sequence[SampledCandidate]
) -> list[SampledCandidate]:
    """Candidates with the mean operations of those that were measured, of the same kind if there are any."""
    known = [sample for sample in measured if sample.operations]
    samples: list[SampledCandidate] = []
    for candidate in candidates:
        kind = _describe_kind(space, candidate)
        like = [sample for sample in known if sample.kind == kind] or known
        operations = statistics.fmean(sample.operations for sample in like) if like else 0.0
        exponents = like[0].exponents if like else {}
        samples.append(SampledCandidate(kind, _find_needs(space, candidate), operations, exponents))
    return samples


def _describe_kind(space: SearchSpace[Any], candidate: Candidate) -> str:
    """What fixes a candidate's programs, apart from sizes."""
    return repr([
        value for name, value in space.select_static(candidate).items()
        if get_pad(space.choices[name]) is None and not is_depth(space.choices[name])
    ])  # fmt: skip


def _measure_exponents(
    space: SearchSpace[Learner],
    spec: Spec,
    candidate: Candidate,
    operations: float,
    largest: Mapping[str, int],
    lowest: Mapping[str, int],
) -> dict[str, float]:
    """The power of each pad's size with which the operations grow, from its lowest size to its largest."""
    exponents: dict[str, float] = {}
    for pad, size in largest.items():
        if (low := lowest[pad]) < size:
            fewer = _count_operations(space, spec, candidate, {**largest, pad: low})
            exponents[pad] = math.log(operations / fewer) / math.log(size / low)
    return exponents


def _count_operations(space: SearchSpace[Learner], spec: Spec, candidate: Candidate, sizes: Mapping[str, int]) -> float:
    """The operations of a candidate's training with its pads at these sizes."""
    pads = {name: get_pad(space.choices[name]) for name in candidate.values}
    values = {name: value if (pad := pads[name]) is None else sizes[pad] for name, value in candidate.values.items()}
    return max(count_training_operations(space, values, spec), 1.0)
