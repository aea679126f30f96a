"""Size levels: the sizes that candidates are padded to, as the counts of their operations say."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from l2l.engine import size_levels
from l2l.engine.bucket import list_padded_sizes
from l2l.engine.size_levels import (
    Demand,
    ProgramPlan,
    choose_size_levels,
    find_cheapest_levels,
    plan_programs,
)
from l2l.space import Categorical, SearchSpace
from l2l.types import Spec
from search_spaces import cnn, mixed, mlp, transformer

SPEC = Spec((8, 8, 1), 10, 1000, 5)


@pytest.fixture
def counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts each candidate's operations once: of several epochs there are as many times more."""
    counts: dict[str, float] = {}
    count = size_levels.count_training_operations

    def count_once(space: SearchSpace[Any], values: Mapping[str, Any], spec: Spec) -> float:
        key = json.dumps(values)
        if key not in counts:
            counts[key] = count(space, values, spec._replace(epochs=1))
        return counts[key] * spec.epochs

    monkeypatch.setattr(size_levels, "count_training_operations", count_once)


def test_the_worked_example_of_the_module() -> None:
    needs, sizes, operations = (16, 32, 32, 64), (16, 32, 64), (1e9, 2e9, 4e9)
    demands = [Demand(need, "mlp", operations) for need in needs]
    weight = size_levels.HORIZON / len(needs)
    rate, compile_seconds = size_levels.RATES[False], size_levels.COMPILE_SECONDS[False]

    def count_seconds(levels: tuple[int, ...]) -> float:
        padded = [next(level for level in levels if level >= need) for need in needs]
        run = sum(weight * operations[sizes.index(size)] / rate for size in padded)
        return run + compile_seconds * len(levels)

    seconds = {levels: count_seconds(levels) for levels in [(64,), (16, 64), (32, 64), (16, 32, 64)]}
    assert seconds == pytest.approx({(64,): 24, (16, 64): 24.25, (32, 64): 20.5, (16, 32, 64): 23.25})
    assert find_cheapest_levels(sizes, demands, weight, rate, compile_seconds) == (32, 64)


@pytest.mark.usefixtures("counts_once")
@pytest.mark.parametrize("make_space", [mlp.space, cnn.space, mixed.space])
def test_levels_cover_every_size_and_grow_in_number_with_the_work(make_space: Callable[[], SearchSpace[Any]]) -> None:
    space = make_space()
    sizes = list_padded_sizes(space)
    counts: list[int] = []
    for epochs in (1, 30, 10_000):
        levels = choose_size_levels(space, SPEC._replace(epochs=epochs))
        assert levels == choose_size_levels(space, SPEC._replace(epochs=epochs))
        for pad, pad_sizes in sizes.items():
            assert set(levels[pad]) <= set(pad_sizes)
            assert levels[pad][-1] == pad_sizes[-1]
            assert list(levels[pad]) == sorted(levels[pad])
        counts.append(sum(map(len, levels.values())))
    assert counts == sorted(counts)
    # All but perhaps a size that no sampled candidate needs.
    assert counts[0] < counts[-1] >= sum(map(len, sizes.values())) - 1


@pytest.mark.usefixtures("counts_once")
@pytest.mark.parametrize("make_space", [mlp.space, cnn.space, mixed.space])
def test_more_trials_have_more_programs_and_compile_longer(make_space: Callable[[], SearchSpace[Any]]) -> None:
    plans = [plan_programs(make_space(), SPEC, trials) for trials in (1, 100, 10_000)]
    counts = [sum(map(len, plan.levels.values())) for plan in plans]
    assert counts == sorted(counts)
    assert counts[0] == len(plans[0].levels) < counts[-1]
    assert [plans[0].compiles_quickly, plans[-1].compiles_quickly] == [True, False]
    assert choose_size_levels(make_space(), SPEC) == plan_programs(make_space(), SPEC, size_levels.HORIZON).levels


def test_where_there_is_nothing_to_choose_nothing_is_measured() -> None:
    space = SearchSpace({"width": Categorical(options=(8,), pad="width")}, lambda values, spec: values["missing"])
    assert plan_programs(space, SPEC, 1) == ProgramPlan({"width": (8,)})
    plain = SearchSpace({"rate": Categorical(options=(1, 2))}, lambda values, spec: values["missing"])
    assert plan_programs(plain, SPEC, 1) == ProgramPlan({})


def test_levels_are_a_function_of_space_and_task() -> None:
    first, second = (choose_size_levels(mlp.space(depth=(1, 1)), SPEC) for _ in range(2))
    assert first == second


def test_a_size_that_no_sampled_candidate_has_is_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size_levels, "SAMPLES", 1)
    space = mlp.space()
    need = max(int(value) for name, value in space.sample(random.Random(0)).values.items() if "width" in name)
    levels = choose_size_levels(space, SPEC._replace(epochs=10**6))["width"]
    assert levels[-1] == 256
    assert any(size >= need for size in levels)


def test_a_space_may_have_thousands_of_sizes() -> None:
    levels = choose_size_levels(mlp.space(widths=tuple(range(1, 4001))), SPEC)["width"]
    assert levels[-1] == 4000
    assert 1 < len(levels) < 24


def test_a_candidate_that_cannot_be_built_is_left_out_of_the_count() -> None:
    whole = mlp.space()

    def build(values: Any, spec: Spec) -> Any:
        if values["depth"] == 4:
            raise ValueError("too deep")
        return whole.build(values, spec)

    some = SearchSpace(whole.choices, build)
    assert choose_size_levels(some, SPEC)["width"][-1] == 256
    none = SearchSpace({"width": Categorical(options=(8, 16), pad="width")}, lambda values, spec: values["missing"])
    assert choose_size_levels(none, SPEC)["width"][-1] == 16


def test_many_parts_of_one_size_each_are_left_as_they_are() -> None:
    families = tuple(f"family{n}" for n in range(10))
    choices: dict[str, Any] = {"family": Categorical(options=families)}
    choices |= {
        f"{name}_width": Categorical(options=(8, 16), pad=f"{name}_width", when={"family": name}) for name in families
    }
    whole = mlp.space()

    def build(values: Any, spec: Spec) -> Any:
        width = next(value for name, value in values.items() if name.endswith("_width"))
        smallest = dict(whole.complete(lambda name, choice: choice.value_at(0.0)).values)
        return whole.build({**smallest, "layer1_width": width}, spec)

    levels = choose_size_levels(SearchSpace(choices, build), SPEC)
    assert all(levels[f"{name}_width"][-1] == 16 for name in families)


def test_no_program_of_its_own_for_one_candidate_in_many_that_needs_less() -> None:
    space = transformer.space()
    rng = random.Random(1)
    samples = [space.sample(rng).values for _ in range(200)]
    small = sum(max(int(n) for name, n in values.items() if name.endswith("head_size")) == 8 for values in samples)
    assert 0.05 < small / 200 < 0.25  # too few to be sure that one is among those whose operations are counted
    levels = choose_size_levels(space, SPEC)
    assert levels["head_size"] == (16,)
    assert levels["width"] == (32, 64)


@pytest.mark.usefixtures("counts_once")
def test_an_accelerator_has_fewer_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    for has_accelerator in (False, True):
        monkeypatch.setattr(size_levels.machine, "has_accelerator", lambda answer=has_accelerator: answer)
        levels = choose_size_levels(mixed.space(), SPEC._replace(epochs=30))
        counts.append(sum(map(len, levels.values())))
    assert counts[0] > counts[1] >= 2
    assert not plan_programs(mixed.space(), SPEC, 1).compiles_quickly
