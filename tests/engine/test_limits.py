"""The cost of a candidate is counted without allocating it, and a candidate that is too large never begins."""

from __future__ import annotations

import random
import resource
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from l2l.engine import jax_caches, limits, program_cache
from l2l.engine.bucket import make_exact_bucket, make_shared_bucket
from l2l.engine.cost import Cost, count_training_operations, measure_cost
from l2l.engine.limits import Capacity, Limits, device_memory, select_largest
from l2l.engine.population import Population
from l2l.engine.size_levels import ProgramPlan
from l2l.errors import InputError
from l2l.space import Categorical, Integer, Real, SearchSpace
from l2l.tasks.digits import Digits
from l2l.types import Learner, Spec
from search_spaces import cnn, mixed, mlp

TASK = Digits(epochs=1)
SPEC = Spec((8, 8, 1), 10, 1077, 1)


class Net(nnx.Module):
    """A user's perceptron of stock layers."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.hidden, self.head = nnx.Linear(64, width, rngs=rngs), nnx.Linear(width, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(nnx.relu(self.hidden(x.reshape(len(x), -1))))


def build(values: Mapping[str, Any], spec: Spec) -> Learner:
    return Learner(lambda rngs: Net(values["width"], rngs), optax.adam(values["rate"]), batch_size=32)


def make_space(low: int = 1, high: int = 10**15, **arguments: Any) -> SearchSpace[Learner]:
    return SearchSpace(
        {"width": Integer(low=low, high=high, **arguments), "rate": Real(low=0.1, high=0.2)}, build, "custom"
    )


def test_the_cost_of_a_perceptron() -> None:
    cost = measure_cost(make_space(), {"width": 16, "rate": 0.1}, SPEC)
    weights = 64 * 16 + 16 + 16 * 10 + 10
    # Adam keeps two moments and a count; two layers keep what goes in and what comes out; one count of random keys.
    expected = 4 * (2 * weights + 2 * weights + 1) + 4 * 32 * (64 + 16 + 16 + 10)
    assert cost.parameters == weights
    assert expected <= cost.bytes <= expected + 64
    assert cost.flops == 2 * (64 * 16 + 16 * 10)


@pytest.mark.parametrize("make", [mlp.space, cnn.space, mixed.space])
def test_counts_are_those_of_the_model_and_less_than_xla_plans_with(make: Any) -> None:
    space = make()
    population = Population(space, TASK, None)
    candidate = space.sample(random.Random(1))
    cost = measure_cost(space, candidate.values, SPEC)
    model, _ = population.build_module(candidate, make_exact_bucket(candidate), jax.random.key(0))
    assert cost.parameters == sum(np.size(leaf) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert cost.flops == count_training_operations(space, candidate.values, SPEC) / 3 / SPEC.examples / SPEC.epochs
    planned = population.programs.get(make_exact_bucket(candidate), {}, 1)[0].run.memory_analysis()
    plan_bytes = planned.argument_size_in_bytes + planned.output_size_in_bytes + planned.temp_size_in_bytes
    assert cost.bytes < plan_bytes < 20 * cost.bytes
    whole = measure_cost(space, select_largest(space, population.bucket(candidate)), SPEC)
    assert whole.parameters > cost.parameters


class Stack(nnx.Module):
    """Six equal layers, made by a `vmap` and run by a `scan`."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.first, self.head = nnx.Linear(64, width, rngs=rngs), nnx.Linear(width, 10, rngs=rngs)
        make = nnx.split_rngs(splits=6)(nnx.vmap(lambda rngs: nnx.Linear(width, width, rngs=rngs)))
        self.layers = make(rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        run = nnx.scan(lambda x, layer: nnx.relu(layer(x)), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return self.head(run(self.first(x.reshape(len(x), -1)), self.layers))


@pytest.mark.parametrize("width", [32, 10**6])
def test_layers_in_a_loop_are_counted_each(width: int) -> None:
    space = replace(
        make_space(), build=lambda values, spec: Learner(lambda rngs: Stack(width, rngs), optax.sgd(0.1), 32)
    )
    cost = measure_cost(space, {"width": width, "rate": 0.1}, SPEC)
    products = 64 * width + 6 * width**2 + 10 * width
    assert cost.parameters == products + 7 * width + 10
    assert cost.flops == 2 * products


@pytest.mark.parametrize("width", [10**10, 10**15])
def test_nothing_of_a_huge_candidate_is_allocated(width: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert measure_cost(make_space(), {"width": width, "rate": 0.1}, SPEC).parameters == 75 * width + 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16  # KiB


@pytest.mark.parametrize("name", Cost._fields)
@pytest.mark.parametrize("value", [0, -1.0, True, "many", float("nan")])
def test_bad_limits(name: str, value: Any) -> None:
    words = rf"^objective\.limits\.{name} must be a number above 0 or null, got {value!r}\.$"
    with pytest.raises(InputError, match=words):
        Limits(**{name: value})


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({}, None),
        ({"parameters": 3.1e12}, None),
        ({"parameters": 1e6}, "3.1e+12 parameters, objective.limits.parameters is 1000000"),
        ({"bytes": 5e13, "flops": 7}, "8 flops, objective.limits.flops is 7"),
        ({"bytes": 1000}, "4e+13 bytes, objective.limits.bytes is 1000"),
    ],
)
def test_a_broken_limit_in_words(limits: dict[str, float], words: str | None) -> None:
    assert Limits(**limits).find_violation(Cost(3_100_000_000_000, 40_000_000_000_000, 8.0)) == words


def make_capacity(space: SearchSpace[Learner], limits: Limits | None = None) -> Capacity:
    return Capacity(space, SPEC, limits or Limits())


def test_a_limit_counts_the_candidate_and_the_machine_counts_its_program() -> None:
    padded = make_space(1, 4, pad="width")
    small, large = (padded.candidate({"width": width, "rate": 0.1}) for width in (1, 4))
    population = Population(padded, TASK, None, Limits(parameters=100))
    assert population.bucket(small).sizes == {"width": 4}
    assert population.refusal(small) is None
    assert population.refusal(large) == "310 parameters, objective.limits.parameters is 100"


def test_without_room_for_the_padding_a_candidate_has_a_program_of_its_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    padded = make_space(1, 1000, step=999, pad="width")
    population = Population(padded, TASK, None)
    small, large = (padded.candidate({"width": width, "rate": 0.1}) for width in (1, 1000))
    room = measure_cost(padded, large.values, SPEC).bytes - 1
    monkeypatch.setattr(population, "plan", ProgramPlan({"width": (1000,)}))
    assert population.bucket(small).sizes == {"width": 1000}
    monkeypatch.setattr(limits, "device_memory", lambda: room)
    assert population.bucket(small).fixed == {"width": 1}
    assert population.refusal(small) is None
    assert population.refusal(large) == f"{room + 1:.6g} bytes, the machine has {room:.6g}"


def test_the_machine_is_a_limit_by_itself() -> None:
    space = make_space()
    huge = space.candidate({"width": 10**12, "rate": 0.1})
    words = make_capacity(space).refusal(huge, make_exact_bucket(huge))
    assert words is not None
    assert words.endswith(f" bytes, the machine has {device_memory():.6g}")
    assert 2**28 < device_memory() < 2**50


def test_a_shape_is_counted_once_and_forgotten_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[Any] = []
    cleared: list[bool] = []
    monkeypatch.setattr(limits, "measure_cost", lambda space, values, spec, share: counted.append(values["width"]))
    monkeypatch.setattr(jax_caches, "clear", lambda: cleared.append(True))
    monkeypatch.setattr(limits, "CACHED_COSTS", 2)
    monkeypatch.setattr(limits, "SHAPES_PER_CLEARING", 3)
    capacity = make_capacity(make_space())
    for width, rate in ((1, 0.1), (1, 0.2), (2, 0.1), (1, 0.1), (3, 0.1), (3, 0.2), (1, 0.1)):
        capacity.measure({"width": width, "rate": rate})
    assert counted == [1, 2, 3, 1]
    assert cleared == [True]


def test_a_candidate_that_cannot_be_traced_is_left_to_its_training() -> None:
    broken = replace(make_space(), build=lambda values, spec: build({**values, "width": -1}, spec))
    candidate = broken.candidate({"width": 1, "rate": 0.1})
    assert make_capacity(broken, Limits(parameters=1)).refusal(candidate, make_exact_bucket(candidate)) is None


def test_an_option_that_data_choose_is_counted_at_its_last_one() -> None:
    space = SearchSpace(
        {"kernel": Categorical(options=(3, 5), traced=True), **make_space(1, 9, pad="width").choices}, build, "custom"
    )
    population = Population(space, TASK, None)
    bucket = population.bucket(space.candidate({"kernel": 3, "width": 9, "rate": 0.1}))
    assert select_largest(space, bucket) == {"kernel": 5, "width": 9, "rate": 0.2}


def test_xla_plans_are_compared_with_the_machine_too(monkeypatch: pytest.MonkeyPatch) -> None:
    space = make_space()
    candidate = space.candidate({"width": 16, "rate": 0.1})
    monkeypatch.setattr(program_cache, "device_memory", lambda: 1000)
    with pytest.raises(MemoryError, match=r"^the program needs [0-9.e+]+ bytes, the machine has 1000$"):
        Population(space, TASK, None).train([(candidate, jax.random.key(0))], make_exact_bucket(candidate), 1)


def test_of_options_that_data_choose_the_largest_number_counts() -> None:
    space = cnn.space(kernels=(5, 3), normalisations=("layer", "none"))
    bucket = make_shared_bucket(space, space.sample(random.Random(0)), {"filters": (32,)})
    values = select_largest(space, bucket)
    assert (values["layer1_kernel"], values["layer1_normalisation"]) == (5, "none")
