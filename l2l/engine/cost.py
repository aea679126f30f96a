"""What a program costs: operations counted before anything runs, and which sizes are worth a program of their own."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.engine.bucket import Ladders, padding, rungs
from l2l.space import Candidate, SearchSpace
from l2l.types import Learner, Spec

SAMPLES = 24
"""Candidates drawn to see what a space is like."""
HORIZON = 200
"""Candidates that a space's programs should pay for themselves within."""
RATE = 4e10
"""Operations a second of one training on one core of a CPU, in products as small as these models have."""
COMPILE = 4.0
"""Core-seconds to trace and compile a program on a CPU."""


def operations(space: SearchSpace[Learner], values: Mapping[str, Any], spec: Spec) -> float:
    """Multiplications and additions of a full training, but for what is elementwise; nothing is allocated."""
    learner = space.build(values, spec)

    def forward(x: Any) -> Any:
        model: Any = learner.model(nnx.Rngs(0))
        model.eval()
        return model(x)

    traced = jax.make_jaxpr(forward)(jax.ShapeDtypeStruct((1, *spec.inputs), jnp.float32))
    return 3.0 * count(traced.jaxpr) * spec.examples * spec.epochs


def products(jaxpr: Any, times: float = 1.0) -> Iterator[tuple[Any, float]]:
    """The matrix products and convolutions of a program, and how often each is done; of branches a mean."""
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name in ("dot_general", "conv_general_dilated"):
            yield equation, times
        inner = [each for value in parameters.values() for each in _jaxprs(value)]
        often = times / len(inner) if name == "cond" else times * parameters.get("length", 1)
        for each in inner:
            yield from products(each, often)


def count(jaxpr: Any) -> float:
    """Multiplications and additions of a program's products."""
    return sum(times * _operations(equation) for equation, times in products(jaxpr))


def _operations(product: Any) -> float:
    numbers = product.params["dimension_numbers"]
    results = 2.0 * math.prod(product.outvars[0].aval.shape)
    if product.primitive.name == "dot_general":
        (contracted, _), _ = numbers
        return results * math.prod(product.invars[0].aval.shape[axis] for axis in contracted)
    kernel = product.invars[1].aval.shape
    return results * math.prod(kernel) / kernel[numbers.rhs_spec[0]]


def _jaxprs(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [each for item in value for each in _jaxprs(item)]
    inner = getattr(value, "jaxpr", value)
    return [inner] if hasattr(inner, "eqns") else []


def ladders(space: SearchSpace[Learner], spec: Spec) -> Ladders:
    """The sizes to pad to: padding costs operations, a further size costs a program.

    What is cheapest for `HORIZON` candidates drawn from the space; a function of space and task alone.
    """
    sizes = rungs(space)
    draw = random.Random(0)
    drawn = [space.sample(draw) for _ in range(SAMPLES)] if sizes else []
    return {pad: _ladder(space, spec, pad, steps, drawn) for pad, steps in sizes.items()}


def _ladder(
    space: SearchSpace[Learner], spec: Spec, pad: str, steps: Sequence[int], drawn: Sequence[Candidate]
) -> tuple[int, ...]:
    """The ladder of one pad, by dynamic programming over where its parts end."""
    names = [name for name, choice in space.choices.items() if padding(choice) == pad]
    using = [each for each in drawn if any(name in each.values for name in names)]
    if not using:
        return tuple(steps)
    needs = [max(int(each.values[name]) for name in names if name in each.values) for each in using]  # pyright: ignore
    steps = sorted({*needs, steps[-1]})  # a part that ends elsewhere only pads more
    if len(steps) == 1:
        return tuple(steps)
    costs = _costs(space, spec, names, steps, using)
    share = HORIZON / len(drawn)

    kinds = [_signature(space, each) for each in using]
    above: dict[int, tuple[float, tuple[int, ...]]] = {len(steps): (0.0, ())}
    for first in reversed(range(len(steps))):
        found: list[tuple[float, tuple[int, ...]]] = []
        for last in range(first, len(steps)):
            members = [i for i, need in enumerate(needs) if steps[first] <= need <= steps[last]]
            run = share * sum(costs[i][last] for i in members) / RATE
            rest, larger = above[last + 1]
            programs = {kinds[i] for i in members}
            found.append((run + COMPILE * max(len(programs), 1) + rest, (steps[last], *larger)))
        above[first] = min(found)
    return above[0][1]


def _signature(space: SearchSpace[Any], candidate: Candidate) -> str:
    """What fixes a candidate's programs beside sizes."""
    return repr([
        value for name, value in space.static(candidate).items()
        if padding(space.choices[name]) is None and not getattr(space.choices[name], "repeats", False)
    ])  # fmt: skip


def _costs(
    space: SearchSpace[Learner], spec: Spec, names: Sequence[str], steps: Sequence[int], using: Sequence[Candidate]
) -> list[list[float]]:
    """Operations of each candidate at each size, a power law through the smallest and the largest."""
    made: list[list[float]] = []
    for candidate in using:
        ends: list[float] = []
        for size in (steps[0], steps[-1]):
            values = {name: size if name in names else value for name, value in candidate.values.items()}
            ends.append(operations(space, values, spec))
        slope = math.log(max(ends[1], 1.0) / max(ends[0], 1.0)) / math.log(steps[-1] / steps[0])
        made.append([ends[1] * (step / steps[-1]) ** slope for step in steps])
    return made
