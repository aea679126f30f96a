"""Regularised evolution: the contract, and algorithm 1 of the paper step by step."""

from __future__ import annotations

import random

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2l.errors import InputError
from l2l.searchers.evolution import Evolution, mutate
from l2l.space import Candidate, Categorical, Integer, Real, SearchSpace
from l2l.testing import SPACES, TOY, SearcherContract, finished, toy_reward


class TestEvolution(SearcherContract):
    def searcher(self) -> Evolution:
        return Evolution()


@given(seed=st.integers(0, 10**6), name=st.sampled_from(["plain", "numbers", "conditional", "nested"]))
def test_a_mutation_changes_one_choice_and_what_hangs_on_it(seed: int, name: str) -> None:
    space, draw = SPACES[name], random.Random(seed)
    parent = space.sample(draw)
    child = mutate(space, parent, draw, step=0.2)
    shared = [each for each in parent.values if each in child.values]
    changed = [each for each in shared if repr(parent.values[each]) != repr(child.values[each])]
    assert len(changed) == 1
    assert space.candidate(child.values) == child
    assert child.note == {"parent": parent.key}
    for each in set(parent.values) ^ set(child.values):
        assert space.choices[each].when, "only conditional choices come and go"


def test_a_space_of_one_candidate_has_no_mutation() -> None:
    parent = SPACES["single"].sample(random.Random(0))
    assert mutate(SPACES["single"], parent, random.Random(1), step=0.2) == parent


def test_a_number_steps_near_and_an_integer_always_moves() -> None:
    space = SearchSpace({"x": Real(low=0, high=1)}, lambda values, spec: None)
    near = [mutate(space, Candidate({"x": 0.5}), random.Random(seed), step=0.01).values["x"] for seed in range(200)]
    assert all(0.4 < x < 0.6 for x in near if isinstance(x, float))
    space = SearchSpace({"n": Integer(low=2, high=8, step=3)}, lambda values, spec: None)
    moved = [mutate(space, Candidate({"n": 5}), random.Random(seed), step=0.001).values["n"] for seed in range(50)]
    assert set(moved) == {2, 8}
    assert mutate(space, Candidate({"n": 2}), random.Random(0), step=1e-9).values == {"n": 5}
    assert mutate(space, Candidate({"n": 8}), random.Random(0), step=1e-9).values == {"n": 5}


def test_the_oldest_die_and_the_failed_are_not_born() -> None:
    searcher = Evolution(population=4, tournament=2)
    state = searcher.init(TOY, jax.random.key(0))
    asked = searcher.ask(state, jax.random.key(1), 6)
    state = searcher.tell(state, finished(asked, 0, lambda c: None if c == asked[3] else toy_reward(c.values)))
    assert [member.candidate for member in state.members] == [asked[1], asked[2], asked[4], asked[5]]
    assert searcher.summary(state)["best"] == max(member.reward for member in state.members)


def test_random_until_the_population_is_full_then_children_of_winners() -> None:
    searcher = Evolution(population=4, tournament=4)
    state = searcher.init(TOY, jax.random.key(0))
    asked = searcher.ask(state, jax.random.key(1), 3)
    state = searcher.tell(state, finished(asked, 0, lambda c: toy_reward(c.values)))
    first, *others = searcher.ask(state, jax.random.key(2), 8)
    assert first.note == {}
    best = max(asked, key=lambda c: toy_reward(c.values))
    assert {each.note["parent"] for each in others} == {best.key}


def test_categories_are_left_for_each_other_option_alike() -> None:
    space = SearchSpace({"c": Categorical(options=("a", "b", "c"))}, lambda values, spec: None)
    found = [mutate(space, Candidate({"c": "b"}), random.Random(seed), step=0.2).values["c"] for seed in range(300)]
    assert found.count("a") + found.count("c") == 300
    assert 110 < found.count("a") < 190


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"population": 0}, "Evolution's population must be a whole number, 1 or more, got 0."),
        ({"tournament": 2.5}, "Evolution's tournament must be a whole number, 1 or more, got 2.5."),
        ({"population": 5}, "Evolution's tournament must be at most its population (5), got 10."),
        ({"step": 0}, "Evolution's step must be above 0, got 0."),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(arguments: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Evolution(**arguments)  # type: ignore[arg-type]
    assert str(caught.value) == sentence
