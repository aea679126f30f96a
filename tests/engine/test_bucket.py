"""Buckets: a function of the candidate alone, few in number, and nothing of a candidate gets lost in one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l.engine.bucket import alone, assemble, bucket, exact, numbers, padded_sizes, plain
from l2l.nn.padded import Padded, Picked
from l2l.space import Categorical, Integer, Real, SearchSpace
from search_spaces import cnn, mixed, mlp

SPACES = {"mlp": mlp.space(), "cnn": cnn.space(), "mixed": mixed.space()}


def largest(space: SearchSpace) -> dict[str, tuple[int, ...]]:
    return {name: sizes[-1:] for name, sizes in padded_sizes(space).items()}


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_a_candidate_is_what_its_bucket_and_its_data_say(name: str, seed: int) -> None:
    space = SPACES[name]
    candidate = space.sample(random.Random(seed))
    for ladders in (padded_sizes(space), largest(space)):
        held = bucket(space, candidate, ladders)
        assert held == bucket(space, candidate, ladders)
        made = assemble(space, held, numbers(space, candidate, held))
        for choice, value in candidate.values.items():
            found = made[choice]
            if isinstance(found, Padded):
                assert int(found.active) == value <= found.size
            elif isinstance(found, Picked):
                assert found.options[int(found.index)] == value
            elif isinstance(value, float):
                assert found == pytest.approx(value, rel=1e-6)
            else:
                assert found == value


@pytest.mark.parametrize(("name", "most"), [("mlp", 3), ("cnn", 3 * 2 * 27), ("mixed", 3)])
def test_a_search_of_any_length_has_few_buckets(name: str, most: int) -> None:
    space, draw = SPACES[name], random.Random(0)
    found = {bucket(space, space.sample(draw), largest(space)).name for _ in range(600)}
    assert len(found) <= most


def test_children_of_data_are_there_whether_active_or_not() -> None:
    space = SPACES["mlp"]
    shallow = space.complete(lambda name, choice: 1 if name == "depth" else choice.value_at(0.5))
    held = bucket(space, shallow, largest(space))
    assert {f"layer{n}_width" for n in range(1, 5)} <= set(held.sizes)
    assert {"adamw_learning_rate", "sgd_learning_rate", "lion_learning_rate"} <= set(held.traced)
    data = numbers(space, shallow, held)
    assert set(data) == {*held.sizes, *held.traced}
    assert data["depth"] == 1
    assert data["layer4_width"] == 32


def test_children_of_a_value_that_is_compiled_in_are_not() -> None:
    space = SPACES["mixed"]
    perceptron = space.complete(lambda name, choice: "mlp" if name == "family" else choice.value_at(0.5))
    held = bucket(space, perceptron, largest(space))
    assert "filters" not in held.sizes
    assert "kernel" not in held.fixed


def test_a_space_that_says_nothing_keeps_its_shapes() -> None:
    choices = {"width": Integer(low=1, high=9), "rate": Real(low=0, high=1), "kind": Categorical(options=("a", "b"))}
    space = SearchSpace(choices, lambda values, spec: None)
    candidate = space.sample(random.Random(0))
    held = bucket(space, candidate, {})
    assert held == plain(space, candidate)
    assert held.fixed == {name: candidate.values[name] for name in ("width", "kind")}
    assert held.traced == ("rate",)
    assert alone(space, candidate, held)["rate"].dtype == "float32"
    assert exact(candidate).traced == ()
    assert alone(space, candidate, exact(candidate)) == candidate.values


def test_a_condition_is_read_as_the_space_reads_it() -> None:
    y = Categorical(options=(1, 2), when={"x": 1})
    space = SearchSpace({"x": Categorical(options=(0.5, 1.0)), "y": y}, lambda values, spec: None)
    candidate = space.candidate({"x": 1.0, "y": 2})
    assert bucket(space, candidate, {}).fixed == {"x": 1.0, "y": 2}


def test_numbers_are_computed_with_and_options_are_chosen_from() -> None:
    kinds = {"rate": (0, 0.1, 0.3), "kernel": (3, 5), "flag": (False, True), "name": ("a", "b"), "odd": (True, 1, 0)}
    choices = {name: Categorical(options=options, traced=True) for name, options in kinds.items()}
    space = SearchSpace(choices, lambda values, spec: None)
    candidate = space.candidate({"rate": 0.3, "kernel": 5, "flag": True, "name": "b", "odd": 1})
    held = bucket(space, candidate, {})
    data = numbers(space, candidate, held)
    assert {name: value.item() for name, value in data.items() if name != "rate"} == dict.fromkeys(list(kinds)[1:], 1)
    made = assemble(space, held, data)
    assert made["rate"] == pytest.approx(0.3)
    assert all(isinstance(made[name], Picked) for name in list(kinds)[1:])
