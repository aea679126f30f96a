"""Buckets: a function of the candidate alone, few in number, and nothing of a candidate gets lost in one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l.engine.bucket import (
    list_padded_sizes,
    make_exact_bucket,
    make_lane_data,
    make_own_values,
    make_program_values,
    make_shared_bucket,
    make_unpadded_bucket,
)
from l2l.nn.length import Length
from l2l.nn.option import Option
from l2l.space import Categorical, Integer, Real, SearchSpace
from search_spaces import cnn, mixed, mlp

SPACES = {"mlp": mlp.space(), "cnn": cnn.space(), "mixed": mixed.space()}


def largest(space: SearchSpace) -> dict[str, tuple[int, ...]]:
    return {name: sizes[-1:] for name, sizes in list_padded_sizes(space).items()}


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_a_candidate_is_what_its_bucket_and_its_data_say(name: str, seed: int) -> None:
    space = SPACES[name]
    candidate = space.sample(random.Random(seed))
    for levels in (list_padded_sizes(space), largest(space)):
        bucket = make_shared_bucket(space, candidate, levels)
        assert bucket == make_shared_bucket(space, candidate, levels)
        values = make_program_values(space, bucket, make_lane_data(space, candidate, bucket))
        for choice, value in candidate.values.items():
            value_in_program = values[choice]
            if isinstance(value_in_program, Length):
                assert int(value_in_program.active) == value <= value_in_program.size
            elif isinstance(value_in_program, Option):
                assert value_in_program.options[int(value_in_program.index)] == value
            elif isinstance(value, float):
                assert value_in_program == pytest.approx(value, rel=1e-6)
            else:
                assert value_in_program == value


@pytest.mark.parametrize(("name", "most"), [("mlp", 3), ("cnn", 3 * 2 * 27), ("mixed", 3)])
def test_a_search_of_any_length_has_few_buckets(name: str, most: int) -> None:
    space, draw = SPACES[name], random.Random(0)
    names = {make_shared_bucket(space, space.sample(draw), largest(space)).name for _ in range(600)}
    assert len(names) <= most


def test_children_of_data_are_there_whether_active_or_not() -> None:
    space = SPACES["mlp"]
    shallow = space.complete(lambda name, choice: 1 if name == "depth" else choice.value_at(0.5))
    bucket = make_shared_bucket(space, shallow, largest(space))
    assert {f"layer{n}_width" for n in range(1, 5)} <= set(bucket.sizes)
    assert {"adamw_learning_rate", "sgd_learning_rate", "lion_learning_rate"} <= set(bucket.traced)
    data = make_lane_data(space, shallow, bucket)
    assert set(data) == {*bucket.sizes, *bucket.traced}
    assert data["depth"] == 1
    assert data["layer4_width"] == 32


def test_children_of_a_value_that_is_compiled_in_are_not() -> None:
    space = SPACES["mixed"]
    perceptron = space.complete(lambda name, choice: "mlp" if name == "family" else choice.value_at(0.5))
    bucket = make_shared_bucket(space, perceptron, largest(space))
    assert "filters" not in bucket.sizes
    assert "kernel" not in bucket.fixed


def test_a_space_that_says_nothing_keeps_its_shapes() -> None:
    choices = {"width": Integer(low=1, high=9), "rate": Real(low=0, high=1), "kind": Categorical(options=("a", "b"))}
    space = SearchSpace(choices, lambda values, spec: None)
    candidate = space.sample(random.Random(0))
    bucket = make_shared_bucket(space, candidate, {})
    assert bucket == make_unpadded_bucket(space, candidate)
    assert bucket.fixed == {name: candidate.values[name] for name in ("width", "kind")}
    assert bucket.traced == ("rate",)
    assert make_own_values(space, candidate, bucket)["rate"].dtype == "float32"
    assert make_exact_bucket(candidate).traced == ()
    assert make_own_values(space, candidate, make_exact_bucket(candidate)) == candidate.values


def test_a_condition_is_read_as_the_space_reads_it() -> None:
    y = Categorical(options=(1, 2), when={"x": 1})
    space = SearchSpace({"x": Categorical(options=(0.5, 1.0)), "y": y}, lambda values, spec: None)
    candidate = space.candidate({"x": 1.0, "y": 2})
    assert make_shared_bucket(space, candidate, {}).fixed == {"x": 1.0, "y": 2}


def test_numbers_are_computed_with_and_options_are_chosen_from() -> None:
    kinds = {"rate": (0, 0.1, 0.3), "kernel": (3, 5), "flag": (False, True), "name": ("a", "b"), "odd": (True, 1, 0)}
    choices = {name: Categorical(options=options, traced=True) for name, options in kinds.items()}
    space = SearchSpace(choices, lambda values, spec: None)
    candidate = space.candidate({"rate": 0.3, "kernel": 5, "flag": True, "name": "b", "odd": 1})
    bucket = make_shared_bucket(space, candidate, {})
    data = make_lane_data(space, candidate, bucket)
    assert {name: value.item() for name, value in data.items() if name != "rate"} == dict.fromkeys(list(kinds)[1:], 1)
    values = make_program_values(space, bucket, data)
    assert values["rate"] == pytest.approx(0.3)
    assert all(isinstance(values[name], Option) for name in list(kinds)[1:])
