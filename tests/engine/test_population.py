"""A lane of a population is the candidate trained alone."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from l2l.engine import program_cache
from l2l.engine.fit import Fit
from l2l.engine.population import Population
from l2l.engine.scheduler import run_in_order
from l2l.space import Candidate, SearchSpace
from l2l.tasks.digits import Digits
from l2l.types import Key
from search_spaces import mlp

SEEDS = (0, 1, 2)
BOTH_SPACES = pytest.mark.parametrize("name", ["mlp", "cnn"])


def make_key(number: int) -> Key:
    return jax.random.fold_in(jax.random.key(7), number)


def sample_siblings(space: SearchSpace[Any], seed: int, count: int) -> list[Candidate]:
    """Candidates that differ in their numbers alone."""
    rng = random.Random(seed)
    fixed = {name: value for name, value in space.sample(rng).values.items() if not isinstance(value, float)}

    def sample_number(name: str, choice: Any) -> Any:
        # Momentum at a higher rate than this is chaotic: a last digit doubles every few steps.
        return min(choice.value_at(rng.random()), 0.1) if name == "sgd_learning_rate" else choice.value_at(rng.random())

    return [space.complete(lambda n, c: fixed[n] if n in fixed else sample_number(n, c)) for _ in range(count)]


def sample_members(population: Population, seed: int, count: int) -> list[tuple[Candidate, Key]]:
    siblings = sample_siblings(population.space, seed, count)
    return [(candidate, make_key(number)) for number, candidate in enumerate(siblings)]


def train(population: Population, members: Sequence[tuple[Candidate, Key]], lanes: int) -> list[Fit]:
    return population.train(members, population.bucket(members[0][0]), lanes)[0]


def assert_equal(left: Any, right: Any) -> None:
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        if jax.numpy.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def has_equal_weights(left: Fit, right: Fit) -> bool:
    pairs = zip(jax.tree.leaves(left.params), jax.tree.leaves(right.params), strict=True)
    return all((a == b).all() for a, b in pairs)


@pytest.mark.exact
@BOTH_SPACES
@pytest.mark.parametrize("seed", SEEDS)
def test_a_lane_does_not_depend_on_its_index_or_its_neighbours(
    populations: Mapping[str, Population], name: str, seed: int
) -> None:
    population = populations[name]
    members = sample_members(population, seed, 3)
    together = train(population, members, 4)
    reordered = train(population, [members[2], members[0]], 4)
    assert_equal(together[2], reordered[0])
    assert_equal(together[0], reordered[1])
    alone = train(population, members[1:2], 4)
    assert_equal(together[1], alone[0])


@pytest.mark.exact
@BOTH_SPACES
@pytest.mark.parametrize("seed", SEEDS)
def test_the_number_of_lanes_changes_the_last_digit_only(
    populations: Mapping[str, Population], name: str, seed: int
) -> None:
    population = populations[name]
    members = sample_members(population, seed, 3)
    values = members[0][0].values
    has_batch_normalisation = any(values.get(f"layer{n}_normalisation") == "batch" for n in (1, 2))
    for member, lane in zip(members, train(population, members, 4), strict=True):
        (alone,) = train(population, [member], 1)
        if values["optimizer"] == "lion":
            # Lion steps by the sign of the gradient, so a last digit can become a whole step.
            np.testing.assert_allclose(lane.curve["accuracy"], alone.curve["accuracy"], atol=0.03 * 360)
            continue
        # Batch normalisation makes some gradients zero but for rounding, and Adam scales that up.
        tolerance = 1e-4 if has_batch_normalisation and values["optimizer"] == "adamw" else 1e-5
        for a, b in zip(jax.tree.leaves(lane.params), jax.tree.leaves(alone.params), strict=True):
            np.testing.assert_allclose(a, b, atol=tolerance)
        np.testing.assert_array_equal(lane.curve["accuracy"], alone.curve["accuracy"])


@pytest.mark.exact
def test_a_fresh_population_gives_the_same_bits(populations: Mapping[str, Population]) -> None:
    shared = populations["mlp"]
    candidate = shared.space.sample(random.Random(3))
    (first,) = train(shared, [(candidate, make_key(0))], 1)
    (second,) = train(Population(shared.space, shared.task, None), [(candidate, make_key(0))], 1)
    assert_equal(first, second)
    (other,) = train(shared, [(candidate, make_key(1))], 1)
    assert not has_equal_weights(first, other)


def test_traced_values_reach_the_program(populations: Mapping[str, Population]) -> None:
    population = populations["mlp"]
    (candidate,) = sample_siblings(population.space, 11, 1)
    (base,) = train(population, [(candidate, make_key(0))], 1)
    for name, value in candidate.values.items():
        if not isinstance(value, float) or name == "warmup":  # a warm-up below one step changes nothing
            continue
        changed = replace(candidate, values={**candidate.values, name: value * 0.5 + 0.01})
        (lane,) = train(population, [(changed, make_key(0))], 1)
        assert not has_equal_weights(base, lane), name


def test_divergence_is_noticed_at_its_step(populations: Mapping[str, Population]) -> None:
    population = populations["mlp"]
    values = {"optimizer": "sgd", "depth": 1, "layer1_normalisation": "none", "schedule": "constant"}
    tame = population.space.complete(lambda name, choice: values.get(name, choice.value_at(0.0)))
    wild = replace(tame, values={**tame.values, "sgd_learning_rate": 1e30})
    (lane,) = train(population, [(wild, make_key(0))], 1)
    assert 1 <= int(lane.diverged) <= 10
    (lane,) = train(population, [(tame, make_key(0))], 1)
    assert int(lane.diverged) == 0


def test_a_bucket_is_compiled_once_and_dropped_beyond_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_cache, "CACHED_PROGRAMS", 1)
    space = mlp.space(widths=(8,), depth=(1, 2), optimizers=("sgd",), normalisations=("none",), batch_sizes=(64, 128))
    population = Population(space, Digits(epochs=1), None)

    def compile_seconds(depth: int, batch_size: int) -> float:
        values = {"depth": depth, "batch_size": batch_size}
        candidate = space.complete(lambda name, choice: values.get(name, choice.value_at(0.5)))
        return population.train([(candidate, make_key(0))], population.bucket(candidate), 1)[1]["compile"]

    assert compile_seconds(1, 128) > 0
    assert [compile_seconds(2, 128), compile_seconds(1, 128)] == [0.0, 0.0]
    assert compile_seconds(1, 64) > 0
    assert compile_seconds(1, 128) > 0


@pytest.mark.exact
@BOTH_SPACES
def test_threads_do_not_change_a_bit(populations: Mapping[str, Population], name: str) -> None:
    population = populations[name]
    members = sample_members(population, SEEDS[0], 6)
    bucket = population.bucket(members[0][0])
    alone = [train(population, [member], 1)[0] for member in members]
    together = run_in_order(
        members, lambda member: population.train([member], bucket, 1)[0][0], lambda _: "", lambda _: True, 3
    )
    for left, right in zip(alone, together, strict=True):
        assert_equal(left, right)
