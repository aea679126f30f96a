"""Candidates as arrays: there and back, and the table of conditions."""

from __future__ import annotations

import json
import math
import pickle
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2l.encoding import Encoding, read_rewards, strip_builder
from l2l.errors import InputError
from l2l.space import Candidate, Categorical, Choice, Integer, Real, SearchSpace
from l2l.testing import SPACES
from l2l.types import Status, Trial


def space(**choices: Choice) -> SearchSpace[None]:
    return SearchSpace(choices, lambda values, spec: None)


LONG_PARENT = space(
    layers=Integer(low=1, high=100),
    second=Integer(low=8, high=128, log=True, when={"layers": list(range(2, 101))}),
)
"""With more values than are binned, unless other choices depend on them."""
spaces = st.sampled_from([*SPACES.values(), LONG_PARENT])
seeds = st.integers(0, 2**32 - 1)


@given(space=spaces, seed=seeds, bins=st.integers(1, 40))
def test_codes_there_and_back(space: SearchSpace[None], seed: int, bins: int) -> None:
    encoding = Encoding(space, bins)
    draw = np.random.default_rng(seed)
    sizes = encoding.domain.valid.sum(-1)
    codes = draw.integers(0, sizes, (5, len(sizes))).astype(np.int32)
    uniforms = draw.choice([0.0, 0.5, np.nextafter(1, 0)], codes.shape)
    candidates = encoding.decode(codes, uniforms)
    encoded, masks = encoding.encode(candidates)
    assert np.array_equal(masks, encoding.masks(codes))
    assert np.array_equal(encoded, np.where(masks, codes, 0))
    assert all(space.candidate(candidate.values) == candidate for candidate in candidates)


@given(space=spaces, seed=seeds)
def test_every_candidate_has_codes(space: SearchSpace[None], seed: int) -> None:
    encoding = Encoding(space)
    candidate = space.sample(random.Random(seed))
    codes, masks = encoding.encode([candidate])
    assert np.array_equal(masks, encoding.masks(codes))
    hot = encoding.one_hot(codes, masks)
    assert hot.shape == (1, *encoding.domain.valid.shape)
    assert np.array_equal(hot.sum(-1), masks)
    assert np.array_equal(hot.argmax(-1), codes)
    assert not hot[:, ~encoding.domain.valid].any()


def test_equal_candidates_but_for_a_bin_share_codes() -> None:
    encoding = Encoding(space(rate=Real(low=1e-4, high=1, log=True)), bins=4)
    candidates = encoding.decode(np.array([[0], [1], [2], [3]]), np.full((4, 1), 0.5))
    assert [candidate.values["rate"] for candidate in candidates] == pytest.approx(
        [10**-3.5, 10**-2.5, 10**-1.5, 10**-0.5]
    )
    edge = [Candidate({"rate": value}) for value in (1e-4, 1e-3 * 1.001, 1e-1 * 0.999, 1.0)]
    assert encoding.encode(edge)[0].ravel().tolist() == [0, 1, 2, 3]


def test_a_long_integer_is_binned_unless_others_hang_on_it() -> None:
    long = Integer(low=1, high=100)
    assert len(Encoding(space(n=long)).decisions[0]) == 16
    assert len(Encoding(space(n=Integer(low=1, high=64))).decisions[0]) == 64
    child = Categorical(options=(1, 2), when={"n": 7})
    assert len(Encoding(space(n=long, child=child)).decisions[0]) == 100


@given(low=st.integers(1, 50), size=st.integers(65, 3000), step=st.integers(1, 7), log=st.booleans())
def test_the_bins_of_an_integer_part_its_values(low: int, size: int, step: int, log: bool) -> None:
    choice = Integer(low=low, high=low + (1 if log else step) * size, step=1 if log else step, log=log)
    (decision,) = Encoding(space(n=choice)).decisions
    for before, after in zip(decision.bins[:-1], decision.bins[1:], strict=True):
        assert before.high + choice.step == after.low
    assert (decision.bins[0].low, decision.bins[-1].high) == (choice.low, choice.high)
    assert decision.code(choice.low) == 0
    assert decision.code(choice.high) == len(decision) - 1


@given(low=st.floats(-1e9, 1e9), ulps=st.integers(0, 40), uniform=st.floats(0, 1, exclude_max=True))
def test_a_range_of_a_few_floats_has_fewer_bins(low: float, ulps: int, uniform: float) -> None:
    high = low
    for _ in range(ulps):
        high = math.nextafter(high, math.inf)
    (decision,) = Encoding(space(x=Real(low=low, high=high))).decisions
    assert 1 <= len(decision) <= 16
    for code in range(len(decision)):
        assert decision.code(decision.value(code, uniform)) == code


@given(space=spaces, bins=st.integers(1, 40))
def test_edges_part_the_quantiles(space: SearchSpace[None], bins: int) -> None:
    domain = Encoding(space, bins).domain
    sizes, width = domain.valid.sum(-1), domain.valid.shape[1]
    assert domain.edges.shape == (len(sizes), width + 1)
    for row, size in zip(domain.edges, sizes, strict=True):
        assert row[0] == 0
        assert (np.diff(row[: size + 1]) > 0).all()
        assert (row[size:] == 1).all()


@given(space=spaces, bins=st.integers(1, 40), quantile=st.floats(0, 1, exclude_max=True))
def test_a_quantile_between_two_edges_has_that_code(space: SearchSpace[None], bins: int, quantile: float) -> None:
    encoding = Encoding(space, bins)
    for decision, edges in zip(encoding.decisions, encoding.domain.edges, strict=True):
        # Rounding may send a quantile at an edge to either side of it.
        if np.abs(edges - quantile).min() > 1e-5:
            code = int(np.searchsorted(edges[1 : len(decision)], quantile, "right"))
            assert decision.code(decision.choice.value_at(quantile)) == code


@given(space=spaces, seed=seeds, bins=st.integers(1, 40))
def test_places_lie_inside_their_codes_and_keep_the_order(space: SearchSpace[None], seed: int, bins: int) -> None:
    encoding, draw = Encoding(space, bins), random.Random(seed)
    candidates = [space.sample(draw) for _ in range(4)]
    quantiles, (codes, masks) = encoding.quantiles(candidates), encoding.encode(candidates)
    assert quantiles.dtype == np.float32
    rows = np.arange(quantiles.shape[1])
    low, high = encoding.domain.edges[rows, codes], encoding.domain.edges[rows, codes + 1]
    assert ((quantiles >= low) & (quantiles < high))[masks].all()
    assert not quantiles[~masks].any()
    for column, decision in enumerate(encoding.decisions):
        pairs = [
            (float(value), quantile)
            for candidate, quantile in zip(candidates, quantiles[:, column], strict=True)
            if encoding.domain.ordinal[column] and (value := candidate.values.get(decision.name)) is not None
        ]
        assert sorted(quantile for _, quantile in pairs) == [quantile for _, quantile in sorted(pairs)]
        if encoding.domain.exact[column]:
            assert np.allclose(quantiles[:, column], (low + high)[:, column] / 2 * masks[:, column])


def test_every_value_of_a_long_parent_has_a_code() -> None:
    assert [len(decision) for decision in Encoding(LONG_PARENT).decisions] == [100, 16]


def test_kinds_of_decisions_are_told_apart() -> None:
    domain = Encoding(SPACES["numbers"]).domain
    assert domain.ordinal.tolist() == [True] * 4
    # rate, mix, units and size: a short Integer has no bins worth the name.
    assert domain.exact.tolist() == [False, False, False, True]
    assert domain.min_moves.any(1).tolist() == [False, False, True, False]
    plain = Encoding(SPACES["plain"]).domain
    # flag, off, fixed and share: nor has a Real of one value.
    assert plain.ordinal.tolist() == [False, False, True, True]
    assert plain.exact.tolist() == [True, True, True, False]


@given(low=st.integers(1, 50), size=st.integers(65, 3000), log=st.booleans(), uniform=st.floats(0, 1, exclude_max=True))
def test_a_grain_is_another_value(low: int, size: int, log: bool, uniform: float) -> None:
    choice = Integer(low=low, high=low + size, log=log)
    encoding = Encoding(space(n=choice))
    value = choice.value_at(uniform)
    quantile = choice.quantile(value)
    grain = float(encoding.domain.min_moves[0, encoding.decisions[0].code(value)]) + 1e-6
    for other in (quantile - grain, quantile + grain):
        assert not 0 <= other < 1 or choice.value_at(other) != value


def test_bags_are_the_options_that_several_categories_share() -> None:
    ops = ("skip", "conv", "pool")
    cell = space(
        one=Categorical(options=ops),
        size=Integer(low=1, high=3),
        two=Categorical(options=ops),
        alone=Categorical(options=("conv", "skip", "pool")),
        flag=Categorical(options=(False, True)),
        other=Categorical(options=(False, True)),
    )
    shared_options = Encoding(cell).domain.shared_options
    assert shared_options.shape == (6, 3, 5)
    three, two = [[0, 0], [1, 1], [2, 2]], [[0, 3], [1, 4]]
    assert [np.argwhere(row).tolist() for row in shared_options] == [three, [], three, [], two, two]
    # Equal numbers are not the same options.
    alike = space(a=Categorical(options=(0, 1)), b=Categorical(options=(False, True)))
    assert Encoding(alike).domain.shared_options.shape[2] == 0


@given(space=spaces)
def test_a_code_is_one_option_of_a_bag_at_most(space: SearchSpace[None]) -> None:
    domain = Encoding(space).domain
    assert (domain.shared_options.sum(-1) <= 1).all()
    assert not (domain.shared_options.any(-1) & ~domain.valid).any()
    assert not domain.shared_options[domain.ordinal].any()
    assert (domain.shared_options.any(1).sum(0) >= 2).all()


def test_conditions_are_closed_over_ancestors() -> None:
    encoding = Encoding(SPACES["nested"])
    names = [decision.name for decision in encoding.decisions]
    allowed = encoding.domain.allowed
    # depthwise hangs on kernel > 1, and with it on norm = True and kind = conv.
    row = allowed[names.index("depthwise")]
    assert row[names.index("kernel")].tolist()[:4] == [False, True, True, True]
    assert row[names.index("norm")].tolist()[:2] == [False, True]
    assert row[names.index("kind")].tolist()[:3] == [False, True, False]
    assert allowed[names.index("kind")].all()


def test_notes_travel_with_the_candidates() -> None:
    encoding = Encoding(SPACES["single"])
    candidates = encoding.decode(np.zeros((2, 1), np.int32), np.zeros((2, 1)), [{"a": 1}, {"a": 2}])
    assert [candidate.metadata for candidate in candidates] == [{"a": 1}, {"a": 2}]


def test_an_encoding_is_a_value() -> None:
    same = Encoding(SPACES["nested"])
    assert same == Encoding(SPACES["nested"])
    assert hash(same) == hash(pickle.loads(pickle.dumps(same)))
    assert same != Encoding(SPACES["nested"], bins=4)
    assert same != Encoding(SPACES["plain"])


def test_a_space_with_a_local_builder_can_be_kept() -> None:
    stripped = strip_builder(space(a=Categorical(options=(1, 2))))
    assert pickle.loads(pickle.dumps(stripped)).describe() == stripped.describe()
    with pytest.raises(TypeError, match="has no builder"):
        stripped.build({}, None)


def test_rewards_of_trials() -> None:
    candidate = Candidate({"only": "one"})
    trials = [
        Trial(0, candidate, (0, 2), (0, 1), Status.COMPLETE, None, (0.5,)),
        Trial(1, candidate, (0, 2), (0, 1), Status.FAILED),
    ]
    assert json.dumps(read_rewards(trials).tolist()) == "[0.5, NaN]"
    with pytest.raises(InputError, match=r"trial 3 has a reward of 2; use one for several "):
        read_rewards([Trial(3, candidate, (0, 1), (3,), Status.COMPLETE, None, (0.5, 0.1))])


def test_bad_input_is_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match=r"^an Encoding's bins must be an integer of at least 1, got 0\.$"):
        Encoding(SPACES["plain"], bins=0)
    many = space(seed=Integer(low=0, high=10**6), child=Real(low=0, high=1, when={"seed": 0}))
    with pytest.raises(InputError, match=r"^choice 'seed' has 1000001 values and others are conditional on it; "):
        Encoding(many)
