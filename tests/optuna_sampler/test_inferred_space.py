"""The space of a define-by-run study: values and their places, and what hangs on what."""

from __future__ import annotations

import math
import random
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from l2l.encoding import Encoding
from l2l.optuna_sampler.inferred_space import Asked, Defined, choice, place, value

RANGES: list[BaseDistribution] = [
    IntDistribution(0, 2**60 - 1),
    IntDistribution(2**53 + 1, 2**62),
    IntDistribution(-3 * 2**60, 3 * 2**60, step=3),
    IntDistribution(-(10**30), 10**30),
    IntDistribution(1, 2**62, log=True),
    IntDistribution(1, 2, log=True),
    IntDistribution(-5, 3, step=4),
    FloatDistribution(-1e308, 1e308),
    FloatDistribution(1e-300, 1e300, log=True),
    FloatDistribution(5e-324, 1e-323, log=True),
    FloatDistribution(1.0, math.nextafter(1.0, 2.0)),
    FloatDistribution(-10.2, 10.2, step=0.1),
    FloatDistribution(0.0, 0.7, step=0.1),
    FloatDistribution(0.0, 1e20, step=1e-3),
    CategoricalDistribution((None, True, 2, 3.5, "x", math.nan)),
]


@pytest.mark.parametrize("distribution", RANGES, ids=repr)
def test_a_value_lies_in_its_range_and_finds_its_place_again(distribution: BaseDistribution) -> None:
    within = choice(distribution)
    draw = random.Random(0)
    for quantile in (0.0, 1 - 2**-53, *(draw.random() for _ in range(300))):
        where = within.value_at(quantile)
        found = value(distribution, where)
        stored = distribution.to_internal_repr(found)
        assert distribution._contains(stored)
        kept = distribution.to_external_repr(stored)
        again = place(distribution, kept)
        assert type(again) is type(where)
        numeric = not isinstance(distribution, CategoricalDistribution)
        assert value(distribution, again) == (
            pytest.approx(kept, rel=1e-12, abs=0) if numeric else pytest.approx(kept, nan_ok=True)
        )


def asked(*kinds: dict[str, Any]) -> Asked:
    """What trials of these parameters asked for; words are one of three, whole numbers up to 9."""

    def distribution(each: Any) -> BaseDistribution:
        kinds = {str: CategoricalDistribution(("a", "b", "c")), int: IntDistribution(0, 9)}
        return kinds.get(type(each), FloatDistribution(0, 1))

    made = Asked()
    for given in kinds:
        made = made.after(
            optuna.create_trial(params=given, distributions={n: distribution(v) for n, v in given.items()}, value=0)
        )
    return made


def test_conditions_are_found_in_chains_and_by_numbers() -> None:
    trials: list[dict[str, Any]] = [
        {"model": "a", "kernel": "b", "degree": 3, "c": 0.1},
        {"model": "a", "kernel": "a", "c": 0.4},
        {"model": "b", "layers": 1, "width1": 5},
        {"model": "b", "layers": 3, "width1": 5, "width2": 1, "width3": 2},
        {"model": "b", "layers": 2, "width1": 5, "width2": 1},
    ]
    a, b = ((place(CategoricalDistribution(("a", "b", "c")), word),) for word in "ab")
    expected = {
        "model": {}, "c": {"model": a}, "kernel": {"model": a}, "layers": {"model": b},
        "width1": {"model": b}, "degree": {"kernel": b}, "width2": {"layers": (2, 3)},
        "width3": {"layers": (3,)},
    }  # fmt: skip
    for order in (trials, trials[::-1]):
        found = asked(*order)
        assert found.conditions(found.joint()) == expected
        defined = Defined(found.joint(), found.conditions(found.joint()))
        assert list(defined.space().choices) == list(expected)
        for given in trials:
            trial = optuna.create_trial(
                params=given, distributions={name: found.joint()[name] for name in given}, value=0
            )
            candidate = defined.candidate(defined.space(), trial)
            assert candidate is not None
            assert defined.values(candidate) == given


def test_only_equal_lists_of_options_are_the_same_choices() -> None:
    lists = [("gini", "entropy"), ("gini", "entropy"), (True, False)]
    made = {f"c{n}": CategoricalDistribution(each) for n, each in enumerate(lists)}
    space = Defined(made, {name: {} for name in made}).space()
    assert space.choices["c0"] == space.choices["c1"] != space.choices["c2"]
    assert Encoding(space).domain.shared_options.any((1, 2)).tolist() == [True, True, False]


def test_what_nothing_explains_is_searched_alone() -> None:
    found = asked({"x": "a", "y": 0.1}, {"x": "a"}, {"x": "b", "y": 0.1, "z": 0.5})
    assert list(found.joint()) == ["x", "z"]
    changed = found.after(
        optuna.create_trial(params={"x": "b", "z": 2}, distributions={
            "x": CategoricalDistribution(("a", "b", "c")), "z": FloatDistribution(0, 3)}, value=0)
    )  # fmt: skip
    assert list(changed.joint()) == ["x"]
