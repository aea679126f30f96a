"""The space of a define-by-run study: values as codes and back, and which parameters depend on which."""

from __future__ import annotations

import math
import random
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from l2l.encoding import Encoding
from l2l.optuna_sampler.inferred_space import (
    InferredSpace,
    ParameterHistory,
    create_choice,
    decode_value,
    encode_value,
)

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
def test_a_value_lies_in_its_range_and_is_decoded_from_its_encoded_value(distribution: BaseDistribution) -> None:
    choice = create_choice(distribution)
    generator = random.Random(0)
    for quantile in (0.0, 1 - 2**-53, *(generator.random() for _ in range(300))):
        encoded = choice.value_at(quantile)
        stored = distribution.to_internal_repr(decode_value(distribution, encoded))
        assert distribution._contains(stored)
        restored = distribution.to_external_repr(stored)
        encoded_again = encode_value(distribution, restored)
        assert type(encoded_again) is type(encoded)
        numeric = not isinstance(distribution, CategoricalDistribution)
        assert decode_value(distribution, encoded_again) == (
            pytest.approx(restored, rel=1e-12, abs=0) if numeric else pytest.approx(restored, nan_ok=True)
        )


def record_trials(*parameters: dict[str, Any]) -> ParameterHistory:
    """The history of trials with these parameters; strings are one of three options, integers go from 0 to 9."""

    def create_distribution(value: Any) -> BaseDistribution:
        by_type = {str: CategoricalDistribution(("a", "b", "c")), int: IntDistribution(0, 9)}
        return by_type.get(type(value), FloatDistribution(0, 1))

    history = ParameterHistory()
    for params in parameters:
        distributions = {name: create_distribution(value) for name, value in params.items()}
        history = history.add_trial(optuna.create_trial(params=params, distributions=distributions, value=0))
    return history


def test_conditions_are_inferred_in_chains_and_by_numbers() -> None:
    trials: list[dict[str, Any]] = [
        {"model": "a", "kernel": "b", "degree": 3, "c": 0.1},
        {"model": "a", "kernel": "a", "c": 0.4},
        {"model": "b", "layers": 1, "width1": 5},
        {"model": "b", "layers": 3, "width1": 5, "width2": 1, "width3": 2},
        {"model": "b", "layers": 2, "width1": 5, "width2": 1},
    ]
    a, b = ((encode_value(CategoricalDistribution(("a", "b", "c")), letter),) for letter in "ab")
    expected = {
        "model": {}, "c": {"model": a}, "kernel": {"model": a}, "layers": {"model": b},
        "width1": {"model": b}, "degree": {"kernel": b}, "width2": {"layers": (2, 3)},
        "width3": {"layers": (3,)},
    }  # fmt: skip
    for order in (trials, trials[::-1]):
        history = record_trials(*order)
        joint = history.select_joint()
        assert history.infer_conditions(joint) == expected
        inferred = InferredSpace(joint, history.infer_conditions(joint))
        space = inferred.create_space()
        assert list(space.choices) == list(expected)
        for params in trials:
            trial = optuna.create_trial(params=params, distributions={name: joint[name] for name in params}, value=0)
            candidate = inferred.encode_trial(space, trial)
            assert candidate is not None
            assert inferred.decode_candidate(candidate) == params


def test_only_equal_lists_of_options_are_the_same_choices() -> None:
    lists = [("gini", "entropy"), ("gini", "entropy"), (True, False)]
    distributions = {f"c{n}": CategoricalDistribution(options) for n, options in enumerate(lists)}
    space = InferredSpace(distributions, {name: {} for name in distributions}).create_space()
    assert space.choices["c0"] == space.choices["c1"] != space.choices["c2"]
    assert Encoding(space).domain.shared_options.any((1, 2)).tolist() == [True, True, False]


def test_a_parameter_that_nothing_explains_is_searched_alone() -> None:
    history = record_trials({"x": "a", "y": 0.1}, {"x": "a"}, {"x": "b", "y": 0.1, "z": 0.5})
    assert list(history.select_joint()) == ["x", "z"]
    history = history.add_trial(
        optuna.create_trial(params={"x": "b", "z": 2}, distributions={
            "x": CategoricalDistribution(("a", "b", "c")), "z": FloatDistribution(0, 3)}, value=0)
    )  # fmt: skip
    assert list(history.select_joint()) == ["x"]
