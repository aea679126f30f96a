"""Choices, candidates and spaces: properties over random spaces, and every refusal with its sentence."""

from __future__ import annotations

import itertools
import json
import math
import random
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l.errors import InputError
from l2l.space import Candidate, Categorical, Choice, Integer, Real, SearchSpace, Value, options
from l2l.testing import SPACES


def build(values: Mapping[str, Any], spec: Any) -> Mapping[str, Any]:
    return values


def space(**choices: Any) -> SearchSpace[Any]:
    return SearchSpace(choices, build, "mine")


plain = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9).map(lambda x: x + 0.0) | st.text(max_size=3)
categoricals = st.lists(plain, min_size=1, max_size=4, unique_by=lambda x: (type(x), x)).map(
    lambda values: Categorical(options=tuple(values))
)
integers = st.builds(
    lambda low, size, step: Integer(low=low, high=low + size, step=step),
    st.integers(-20, 20), st.integers(0, 12), st.integers(1, 4),
)  # fmt: skip
logarithmic = st.builds(
    lambda low, size: Integer(low=low, high=low + size, log=True), st.integers(1, 100), st.integers(0, 5000)
)
reals = st.builds(
    lambda low, size, log: Real(low=low, high=low + size, log=log),
    st.floats(1e-6, 1e6), st.floats(0, 1e6), st.booleans(),
)  # fmt: skip


@st.composite
def conditional_spaces(draw: st.DrawFn, leaf: st.SearchStrategy[Choice]) -> SearchSpace[Any]:
    """Up to five choices, each conditional on up to two of those before it."""
    choices: dict[str, Choice] = {}
    for position in range(draw(st.integers(1, 5))):
        parents = draw(st.lists(st.sampled_from(list(choices)), max_size=2, unique=True)) if choices else []
        when: dict[str, Any] = {}
        for parent in parents:
            choice = choices[parent]
            if not isinstance(choice, Real):
                values = st.sampled_from(options(choice))
                when[parent] = draw(values | st.lists(values, min_size=1, max_size=3))
        template = draw(leaf)
        fields = {name: getattr(template, name) for name in template.__dataclass_fields__}
        choices[f"c{position}"] = type(template)(**{**fields, "when": when})
    return SearchSpace(choices, build)


finite = conditional_spaces(categoricals | integers)
spaces = conditional_spaces(categoricals | integers | logarithmic | reals) | st.sampled_from(list(SPACES.values()))


def exact(values: Mapping[str, Value]) -> list[tuple[str, type, Value]]:
    """Values in order, with 1, 1.0 and True apart."""
    return [(name, type(value), value) for name, value in values.items()]


@settings(deadline=None)
@given(space=spaces, seed=st.integers(0, 10**6))
def test_a_sample_is_a_candidate_and_comes_back_from_json(space: SearchSpace[Any], seed: int) -> None:
    candidate = space.sample(random.Random(seed))
    stored = json.loads(json.dumps(dict(candidate.values)))
    restored = space.candidate(stored, {"from": "json"})
    assert restored == candidate
    assert exact(restored.values) == exact(candidate.values)
    assert restored.metadata == {"from": "json"}
    assert list(candidate.values) == [name for name in space.choices if name in candidate.values]
    assert all(space.is_active(name, candidate.values) == (name in candidate.values) for name in space.choices)
    assert {**space.select_static(candidate), **space.select_traced(candidate)} == candidate.values
    json.dumps(space.describe(), allow_nan=False)


@settings(deadline=None)
@given(space=finite)
def test_count_is_the_number_of_candidates(space: SearchSpace[Any]) -> None:
    keys: set[str] = set()
    for values in itertools.product(*(options(choice) for choice in space.choices.values())):  # type: ignore[arg-type]
        assignment = dict(zip(space.choices, values, strict=True))
        keys.add(space.complete(lambda name, _, assignment=assignment: assignment[name]).key)
    assert space.count() == len(keys)


@settings(deadline=None)
@given(space=finite)
def test_cover_shows_every_option_that_can_appear(space: SearchSpace[Any]) -> None:
    possible: set[tuple[str, type, Value]] = set()
    for values in itertools.product(*(options(choice) for choice in space.choices.values())):  # type: ignore[arg-type]
        assignment = dict(zip(space.choices, values, strict=True))
        possible |= set(exact(space.complete(lambda name, _, assignment=assignment: assignment[name]).values))
    # Of an Integer both ends are promised, of a Categorical all options.
    inner = {
        (name, int, value)
        for name, choice in space.choices.items()
        if isinstance(choice, Integer)
        for value in options(choice)[1:-1]
    }
    covered = {value for candidate in space.cover() for value in exact(candidate.values)}
    assert possible - inner <= covered <= possible


@settings(deadline=None)
@given(choice=categoricals | integers | logarithmic)
def test_quantiles_of_countable_choices_are_exact(choice: Categorical | Integer) -> None:
    for value in options(choice)[:: max(1, int(choice.count()) // 50)]:
        assert 0 <= choice.quantile(value) <= 1
        restored = choice.value_at(choice.quantile(value))
        assert (type(restored), restored) == (type(value), value)
        assert exact({"": choice.read(value)}) == exact({"": value})
    assert choice.value_at(0.0) == options(choice)[0]
    assert choice.value_at(1.0) == choice.value_at(math.nextafter(1, 0)) == options(choice)[-1]


@settings(deadline=None)
@given(choice=reals, quantile=st.floats(0, 1))
def test_quantiles_of_reals(choice: Real, quantile: float) -> None:
    value = choice.value_at(quantile)
    assert choice.low <= value <= choice.high
    assert choice.read(value) == value
    if choice.high > choice.low * 1.001:
        assert choice.quantile(value) == pytest.approx(quantile, abs=1e-6)
    assert choice.value_at(choice.quantile(value)) == pytest.approx(value, rel=1e-9)


def test_logarithmic_values_are_even_in_the_logarithm() -> None:
    draw = random.Random(0)
    real, integer = Real(low=1e-4, high=1, log=True), Integer(low=1, high=10_000, log=True)
    assert sum(real.value_at(draw.random()) < 1e-2 for _ in range(4000)) / 4000 == pytest.approx(0.5, abs=0.03)
    assert sum(integer.value_at(draw.random()) < 71 for _ in range(4000)) / 4000 == pytest.approx(0.5, abs=0.03)


def test_an_integers_high_is_a_value() -> None:
    assert Integer(low=1, high=10, step=4).high == 9
    assert options(Integer(low=1, high=10, step=4)) == (1, 5, 9)


def test_infinitely_many_and_one() -> None:
    assert space(x=Real(low=0, high=1)).count() == math.inf
    assert space(x=Real(low=1, high=1)).count() == 1
    many = {f"c{i}": Categorical(options=(1, 2)) for i in range(200)}
    assert space(**many).count() == 2**200


def test_candidates_are_equal_by_their_values_alone() -> None:
    left, right = Candidate({"a": 1, "b": None}, {"log_prob": -1.0}), Candidate({"b": None, "a": 1})
    assert left == right
    assert len({left, right}) == 1
    assert len({Candidate({"a": value}).key for value in (1, 1.0, True, "1", None)}) == 5
    assert left != {"a": 1, "b": None}


def test_a_read_gives_the_choices_own_type() -> None:
    mixed = Categorical(options=(True, 1, 1.0, "1", 2))
    assert exact({str(i): mixed.read(value) for i, value in enumerate((True, 1, 1.0, "1", 2.0))}) == [
        ("0", bool, True), ("1", int, 1), ("2", float, 1.0), ("3", str, "1"), ("4", int, 2),
    ]  # fmt: skip
    assert exact({"": Integer(low=0, high=4).read(2.0)}) == [("", int, 2)]
    assert exact({"": Real(low=0, high=4).read(2)}) == [("", float, 2.0)]


def test_traced_choices_are_reals_unless_said_otherwise() -> None:
    mixed = space(x=Real(low=0, high=1), n=Integer(low=1, high=3), c=Categorical(options=(0.1, 0.2), traced=True))
    candidate = mixed.candidate({"x": 0.5, "n": 2, "c": 0.1})
    assert mixed.select_static(candidate) == {"n": 2}
    assert mixed.select_traced(candidate) == {"x": 0.5, "c": 0.1}


PARENT = Categorical(options=("sgd", "adam"))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Categorical(options=()), "a Categorical needs at least one option, got an empty list."),
        (lambda: Categorical(options="abc"), "a Categorical's options must be a list of values, got 'abc'."),
        (lambda: Categorical(options=7), "a Categorical's options must be a list of values, got 7."),  # type: ignore
        (lambda: Categorical(options=("a", "b", "a")), "a Categorical's options must differ, 'a' stands twice."),
        (lambda: Categorical(options=([1],)), "a Categorical's options are bool, int, float, str or None, got [1]."),  # type: ignore
        (lambda: Categorical(options=(math.nan,)), "a Categorical's options must be finite, got nan."),
        (
            lambda: Categorical(options=("a", 1), pad="width"),
            "a choice that is padded (pad='width') needs integers of at least 1.",
        ),
        (
            lambda: Categorical(options=(1, 2), pad="width", traced=True),
            "a choice is padded (pad='width') or traced, not both: a size is not traced.",
        ),
        (
            lambda: Integer(low=1, high=2, pad=""),
            "pad must be the name of the sizes that are padded together, got ''.",
        ),
        (
            lambda: Integer(low=0, high=2, repeats=True),
            "an Integer that repeats is at least 1 and neither traced nor padded.",
        ),
        (lambda: Integer(low=3, high=1), "an Integer needs low <= high, got low=3 and high=1."),
        (lambda: Integer(low=1.5, high=2), "an Integer's low must be an integer, got 1.5."),  # type: ignore
        (lambda: Integer(low=1, high=True), "an Integer's high must be an integer, got True."),
        (lambda: Integer(low=1, high=2, step=0), "an Integer's step must be at least 1, got 0."),
        (
            lambda: Integer(low=0, high=2, log=True),
            "a logarithmic Integer needs low >= 1 and step 1, got low=0, step=1.",
        ),
        (lambda: Real(low=2, high=1), "a Real needs low <= high, got low=2.0 and high=1.0."),
        (lambda: Real(low=0, high=math.inf), "a Real's high must be a finite number, got inf."),
        (lambda: Real(low="0", high=1), "a Real's low must be a finite number, got '0'."),  # type: ignore
        (lambda: Real(low=0, high=1, log=True), "a logarithmic Real needs low > 0, got low=0.0."),
        (lambda: space(), "space 'mine' has no choices; give it at least one."),
        (lambda: space(a=[1, 2]), "choice 'a' must be a Categorical, Integer or Real, got [1, 2]."),
        (
            lambda: space(a=Real(low=0, high=1, when={"optimiser": "sgd"}), optimizer=PARENT),
            "choice 'a' is conditional on 'optimiser', which is unknown or later: there are no names to choose from.",
        ),
        (
            lambda: space(optimizer=PARENT, a=Real(low=0, high=1, when={"optimiser": "sgd"})),
            "choice 'a' is conditional on 'optimiser', which is unknown or later: did you mean 'optimizer'?",
        ),
        (
            lambda: space(a=Real(low=0, high=1, when={"kind": "sgd"}), kind=PARENT),
            "choice 'a' is conditional on 'kind', which is unknown or later: stands after it; put the parent first.",
        ),
        (
            lambda: space(rate=Real(low=0, high=1), a=Real(low=0, high=1, when={"rate": 0.5})),
            "choice 'a' is conditional on the Real 'rate'; use a Categorical or an Integer.",
        ),
        (
            lambda: space(optimizer=PARENT, a=Real(low=0, high=1, when={"optimizer": []})),
            "choice 'a' is conditional on no value of 'optimizer', so it could never be active.",
        ),
        (
            lambda: space(optimizer=PARENT, a=Real(low=0, high=1, when={"optimizer": ["sgd", "lion"]})),
            "choice 'a' is conditional on 'optimizer': expected one of ['sgd', 'adam'], got 'lion'.",
        ),
        (
            lambda: space(n=Integer(low=1, high=3), a=Real(low=0, high=1, when={"n": 4})),
            "choice 'a' is conditional on 'n': expected 1 to 3 in steps of 1, got 4.",
        ),
    ],
)  # fmt: skip
def test_a_bad_space_is_refused_in_one_sentence(make: Any, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "space 'mine': the active choice 'optimizer' has no value."),
        ({"optimizer": "sgd", "n": 1}, "space 'mine': the active choice 'momentum' has no value."),
        (
            {"optimizer": "lion", "n": 1},
            "space 'mine', choice 'optimizer': expected one of ['sgd', 'adam'], got 'lion'.",
        ),
        (
            {"optimizer": "adam", "momentum": 0.5, "n": 1},
            "space 'mine': the choice 'momentum' is not active here; leave it out.",
        ),
        ({"optimizer": "adam", "n": 1, "depht": 3}, "space 'mine' has no choice 'depht': expected one of 'momentum', "),
        (
            {"optimizer": "adam", "n": 1, "momentun": 3},
            "space 'mine' has no choice 'momentun': did you mean 'momentum'",
        ),
        ({"optimizer": "adam", "n": 2}, "space 'mine', choice 'n': expected 1 to 5 in steps of 2, got 2."),
        ({"optimizer": "adam", "n": 1.5}, "space 'mine', choice 'n': expected an integer, got 1.5."),
        ({"optimizer": "adam", "n": True}, "space 'mine', choice 'n': expected an integer, got True."),
        (
            {"optimizer": "sgd", "momentum": math.nan, "n": 1},
            "space 'mine', choice 'momentum': expected a number from 0.0 to 1.0, got nan.",
        ),
    ],
)
def test_bad_values_are_refused_in_one_sentence(values: dict[str, Any], sentence: str) -> None:
    momentum = Real(low=0, high=1, when={"optimizer": "sgd"})
    own_space = space(optimizer=PARENT, momentum=momentum, n=Integer(low=1, high=5, step=2))
    with pytest.raises(InputError) as caught:
        own_space.candidate(values)
    assert str(caught.value).startswith(sentence)


def test_space_and_types_start_without_jax() -> None:
    code = "import sys, l2l.space, l2l.types; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"jax", "optuna", "numpy", "flax"} & set(modules)
