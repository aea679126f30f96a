"""Regularised evolution: the contract, and algorithm 1 of the paper step by step."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from l2l.encoding import Domain, Encoding
from l2l.errors import InputError
from l2l.searchers.core.points import Points, choose_decisions, compute_uniforms, mutate_points, zero_inactive
from l2l.searchers.evolution import Evolution
from l2l.space import Candidate, Categorical, Choice, Integer, Real, SearchSpace
from l2l.testing import SPACES, TOY, SearcherContract, finish_trials, toy_reward
from l2l.types import Array, Key

SEEDS = st.integers(0, 10**6)


class TestEvolution(SearcherContract):
    def searcher(self) -> Evolution:
        return Evolution()


@functools.partial(jax.jit, static_argnums=1)
def _children(key: Key, count: int, domain: Domain, parent: Points, step: float) -> tuple[Points, Array]:
    first, second = jax.random.split(key)
    parents = Points(*(jnp.repeat(leaf, count, 0) for leaf in parent))
    points = zero_inactive(
        domain, mutate_points(domain, parents, choose_decisions(domain, parents.codes, first, 1), second, step)
    )
    return points, compute_uniforms(domain, points)


def mutants(space: SearchSpace[None], parent: Candidate, seed: int, count: int, step: float = 0.2) -> list[Candidate]:
    """`count` children of a parent, one mutation each."""
    encoding = Encoding(space)
    codes, _ = encoding.encode([parent])
    points = Points(jnp.asarray(codes), jnp.asarray(encoding.quantiles([parent])))
    children, uniforms = _children(jax.random.key(seed), count, encoding.domain, points, step)
    return encoding.decode(np.asarray(children.codes), np.asarray(uniforms))


def make_space(choice: Choice) -> SearchSpace[None]:
    return SearchSpace({"x": choice}, lambda values, spec: None)


def reached(choice: Choice, value: float | str, count: int, step: float) -> Sequence[object]:
    """The values that mutations of one choice lead to."""
    return [child.values["x"] for child in mutants(make_space(choice), Candidate({"x": value}), 0, count, step)]


@settings(deadline=None)
@given(seed=SEEDS, name=st.sampled_from(["plain", "numbers", "conditional", "nested"]))
@example(seed=50692, name="plain")  # two choices draw the same random number
def test_a_mutation_changes_one_choice_and_what_hangs_on_it(seed: int, name: str) -> None:
    space = SPACES[name]
    state = Evolution().init(space, jax.random.key(0))
    (parent,) = Evolution().ask(state, jax.random.key(seed), 1)
    for child in mutants(space, parent, seed, 8):
        shared = [key for key in parent.values if key in child.values]
        changed = [key for key in shared if repr(parent.values[key]) != repr(child.values[key])]
        assert len(changed) == 1
        assert space.candidate(child.values) == child
        for key in set(parent.values) ^ set(child.values):
            assert space.choices[key].when, "only conditional choices come and go"


def test_a_space_of_one_candidate_has_no_mutation() -> None:
    parent = Candidate({"only": "one"})
    assert mutants(SPACES["single"], parent, 1, 4) == [parent] * 4
    searcher = Evolution(population=2, tournament=1)
    state = searcher.init(SPACES["single"], jax.random.key(0))
    state = searcher.tell(state, finish_trials([parent] * 3, 0, lambda _: 0.5))
    assert searcher.ask(state, jax.random.key(0), 3) == [parent] * 3


def test_a_number_steps_near_and_an_integer_always_moves() -> None:
    near = reached(Real(low=0, high=1), 0.5, 200, 0.01)
    assert all(0.4 < x < 0.6 and x != 0.5 for x in near if isinstance(x, float))
    assert len(set(near)) == 200
    assert set(reached(Integer(low=2, high=8, step=3), 5, 50, 0.001)) == {2, 8}
    assert set(reached(Integer(low=2, high=8, step=3), 2, 20, 1e-9)) == {5}
    assert set(reached(Integer(low=2, high=8, step=3), 8, 20, 1e-9)) == {5}
    assert set(reached(Integer(low=1, high=8, log=True), 2, 20, 1e-9)) == {1, 3}


@pytest.mark.parametrize(
    "choice", [Integer(low=1, high=5000, log=True), Integer(low=0, high=1000)], ids=["log", "even"]
)
@pytest.mark.parametrize("value", [1, 2, 7, 60, 800, 1000])
def test_an_integer_in_bins_moves_too(choice: Integer, value: int) -> None:
    values = [x for x in reached(choice, value, 200, 1e-5) if isinstance(x, int)]
    assert value not in values
    assert all(abs(x - value) <= max(2, 0.5 * value) for x in values)
    # It goes both ways, unless it stands at an end.
    assert (min(values) < value, max(values) > value) == (value != choice.low, value != choice.high)


def test_the_oldest_die_and_the_failed_are_not_born() -> None:
    searcher = Evolution(population=4, tournament=2)
    state = searcher.init(TOY, jax.random.key(0))
    asked = searcher.ask(state, jax.random.key(1), 6)
    state = searcher.tell(state, finish_trials(asked, 0, lambda c: None if c == asked[3] else toy_reward(c.values)))
    living = [asked[1], asked[2], asked[4], asked[5]]
    assert state.arrays.numbers.tolist() == [1, 2, 4, 5]
    assert state.arrays.scores.tolist() == pytest.approx([toy_reward(candidate.values) for candidate in living])
    uniforms = np.asarray(compute_uniforms(state.encoding.domain, state.arrays.points))
    decoded = state.encoding.decode(np.asarray(state.arrays.points.codes), uniforms)
    assert [candidate.values["b"] for candidate in decoded] == [candidate.values["b"] for candidate in living]
    assert [candidate.values["d"] for candidate in decoded] == pytest.approx(
        [candidate.values["d"] for candidate in living]
    )
    assert searcher.summary(state)["best"] == max(state.arrays.scores)
    assert searcher.summary(state)["reward"] == pytest.approx(float(np.mean(state.arrays.scores)))


def test_random_until_the_population_is_full_then_children_of_winners() -> None:
    searcher = Evolution(population=4, tournament=4)
    state = searcher.init(TOY, jax.random.key(0))
    asked = searcher.ask(state, jax.random.key(1), 3)
    state = searcher.tell(state, finish_trials(asked, 0, lambda c: toy_reward(c.values)))
    first, *others = searcher.ask(state, jax.random.key(2), 8)
    assert first.metadata == {}
    best = max(asked, key=lambda c: toy_reward(c.values))
    assert {candidate.metadata["parent"] for candidate in others} == {asked.index(best)}


def test_categories_are_left_for_each_other_option_alike() -> None:
    space = SearchSpace({"c": Categorical(options=("a", "b", "c"))}, lambda values, spec: None)
    values = [child.values["c"] for child in mutants(space, Candidate({"c": "b"}), 0, 300)]
    assert values.count("a") + values.count("c") == 300
    assert 110 < values.count("a") < 190


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"population": 0}, "Evolution's population must be an integer of at least 1, got 0."),
        ({"tournament": 2.5}, "Evolution's tournament must be an integer of at least 1, got 2.5."),
        ({"population": 5}, "Evolution's tournament must be at most its population (5), got 10."),
        ({"bins": 0}, "Evolution's bins must be an integer of at least 1, got 0."),
        ({"step": 0}, "Evolution's step must be a number above 0, got 0."),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(arguments: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Evolution(**arguments)  # type: ignore[arg-type]
    assert str(caught.value) == sentence
