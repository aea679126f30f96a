"""Which sizes are padded to: what the counts of operations say."""

from __future__ import annotations

import random
from typing import Any

import pytest

from l2l.engine import size_levels
from l2l.engine.bucket import list_padded_sizes
from l2l.space import Categorical, SearchSpace
from l2l.types import Spec
from search_spaces import cnn, mixed, mlp, transformer

SPEC = Spec((8, 8, 1), 10, 1000, 5)


@pytest.mark.parametrize("make", [mlp.space, cnn.space, mixed.space])
def test_a_ladder_covers_every_size_and_grows_with_the_work(make: Any) -> None:
    space = make()
    lengths: list[int] = []
    for epochs in (1, 30, 10_000):
        found = size_levels.choose_size_levels(space, SPEC._replace(epochs=epochs))
        assert found == size_levels.choose_size_levels(space, SPEC._replace(epochs=epochs))
        for name, sizes in list_padded_sizes(space).items():
            assert set(found[name]) <= set(sizes)
            assert found[name][-1] == sizes[-1]
            assert list(found[name]) == sorted(found[name])
        lengths.append(sum(map(len, found.values())))
    assert lengths == sorted(lengths)
    # All but perhaps a size that no drawn candidate needs.
    assert lengths[0] < lengths[-1] >= sum(map(len, list_padded_sizes(space).values())) - 1


def test_a_size_that_no_drawn_candidate_has_is_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size_levels, "SAMPLES", 1)
    space = mlp.space()
    needed = max(int(value) for name, value in space.sample(random.Random(0)).values.items() if "width" in name)
    found = size_levels.choose_size_levels(space, SPEC._replace(epochs=10**6))["width"]
    assert found[-1] == 256
    assert any(size >= needed for size in found)


def test_thousands_of_sizes_are_no_hindrance() -> None:
    found = size_levels.choose_size_levels(mlp.space(widths=tuple(range(1, 4001))), SPEC)["width"]
    assert found[-1] == 4000
    assert 1 < len(found) < 24


def test_a_candidate_that_cannot_be_built_is_left_out_of_the_count() -> None:
    whole = mlp.space()

    def build(values: Any, spec: Spec) -> Any:
        if values["depth"] == 4:
            raise ValueError("too deep")
        return whole.build(values, spec)

    some = SearchSpace(whole.choices, build)
    assert size_levels.choose_size_levels(some, SPEC)["width"][-1] == 256
    none = SearchSpace({"width": Categorical(options=(8, 16), pad="width")}, lambda values, spec: values["missing"])
    assert size_levels.choose_size_levels(none, SPEC)["width"][-1] == 16


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

    space = SearchSpace(choices, build)
    found = size_levels.choose_size_levels(space, SPEC)
    assert all(found[f"{name}_width"][-1] == 16 for name in families)


def test_what_a_candidate_in_many_needs_less_of_is_no_program_of_its_own() -> None:
    space = transformer.space()
    draw = random.Random(1)
    drawn = [space.sample(draw).values for _ in range(200)]
    small = sum(max(int(n) for name, n in each.items() if name.endswith("head_size")) == 8 for each in drawn)
    assert 0.05 < small / 200 < 0.25  # too few to be sure of seeing by those that are counted
    found = size_levels.choose_size_levels(space, SPEC)
    assert found["head_size"] == (16,)
    assert found["width"] == (32, 64)


def test_an_accelerator_has_fewer_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    for accelerated in (False, True):
        monkeypatch.setattr(size_levels.machine, "has_accelerator", lambda found=accelerated: found)
        lengths.append(sum(map(len, size_levels.choose_size_levels(mixed.space(), SPEC._replace(epochs=30)).values())))
    assert lengths[0] > lengths[1] >= 2
