"""Candidates as points: conditions, histories and draws, as properties over every kind of choice."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l.encoding import Domain, Encoding
from l2l.searchers.core import points
from l2l.searchers.core.points import History, Points
from l2l.space import Candidate
from l2l.testing import SPACES
from l2l.types import Array, Key

ENCODINGS = {name: Encoding(space, bins=5) for name, space in SPACES.items()}
NAMES = st.sampled_from(list(SPACES))
SEEDS = st.integers(0, 10**6)
sample_points = functools.partial(jax.jit, static_argnums=2)(points.sample_points)
zero_inactive = jax.jit(points.zero_inactive)
is_active = jax.jit(points.is_active)
is_repeat = jax.jit(points.is_repeat)


@functools.partial(jax.jit, static_argnums=3)
def _several(domain: Domain, codes: Array, key: Key, count: int) -> Array:
    return points.choose_decisions(domain, codes, key, count)


def candidates(encoding: Encoding, sampled: Points) -> list[Candidate]:
    uniforms = np.asarray(jax.jit(points.compute_uniforms)(encoding.domain, sampled))
    return encoding.decode(np.asarray(sampled.codes), uniforms)


@settings(deadline=None, max_examples=40)
@given(name=NAMES, seed=SEEDS)
def test_points_become_candidates_and_come_back(name: str, seed: int) -> None:
    encoding = ENCODINGS[name]
    sampled = zero_inactive(encoding.domain, sample_points(encoding.domain, jax.random.key(seed), 8))
    masks = is_active(encoding.domain, sampled.codes)
    assert np.array_equal(masks, encoding.masks(np.asarray(sampled.codes)))
    decoded = candidates(encoding, sampled)
    codes, _ = encoding.encode(decoded)
    assert np.array_equal(codes, sampled.codes)
    # An Integer in bins stands for a stretch of quantiles; everything else comes back where it was.
    slack = np.maximum(encoding.domain.min_moves[np.arange(codes.shape[1]), codes], 1e-5)
    assert (np.abs(encoding.quantiles(decoded) - sampled.quantiles) <= slack).all()


@settings(deadline=None, max_examples=40)
@given(name=NAMES, seed=SEEDS, count=st.integers(1, 3))
def test_several_active_decisions_are_chosen(name: str, seed: int, count: int) -> None:
    domain = ENCODINGS[name].domain
    codes = zero_inactive(domain, sample_points(domain, jax.random.key(seed), 8)).codes
    chosen = _several(domain, codes, jax.random.key(seed + 1), count)
    open_ = np.asarray(is_active(domain, codes)) & (domain.valid.sum(-1) > 1)
    assert not np.any(chosen & ~open_)
    assert np.array_equal(chosen.sum(1), np.minimum(open_.sum(1), count))


def test_a_number_in_one_bin_is_still_open() -> None:
    domain = Encoding(SPACES["plain"], bins=1).domain
    chosen = points.choose_decisions(domain, jnp.zeros((1, 4), jnp.int32), jax.random.key(0), 4)
    # All but the number that has one value.
    assert chosen[0].tolist() == [True, True, False, True]


def test_a_history_grows_and_keeps_its_order() -> None:
    domain = ENCODINGS["nested"].domain
    history = points.make_history(domain, 4)
    first, second = (sample_points(domain, jax.random.key(seed), 3) for seed in (0, 1))
    history = history.append(first, jnp.array([1.0, math.nan, 3.0]))
    assert history.has_trial().tolist() == [True, True, True, False]
    assert history.has_score().tolist() == [True, False, True, False]
    history = points.pad_history(history, 8).append(second, jnp.array([-1.0, 0.0, math.nan]))
    assert history.impute_scores().tolist() == [1, -1, 3, -1, 0, -1, 0, 0]
    assert int(history.count) == 6
    assert np.array_equal(history.points.codes[:6], np.concatenate([first.codes, second.codes]))
    assert np.array_equal(history.points.quantiles[3:6], second.quantiles)
    assert len(points.pad_history(history, 2).scores) == 8


def test_nothing_known_is_no_score() -> None:
    history: History = points.make_history(ENCODINGS["plain"].domain)
    assert not np.any(history.impute_scores())
    failed = history.append(sample_points(ENCODINGS["plain"].domain, jax.random.key(0), 2), jnp.full(2, math.nan))
    assert not np.any(failed.impute_scores())
    assert not failed.has_score().any()


def test_what_was_told_is_seen() -> None:
    domain = ENCODINGS["nested"].domain
    sampled = zero_inactive(domain, sample_points(domain, jax.random.key(0), 8))
    history = points.make_history(domain).append(sampled.take(np.arange(4)), jnp.full(4, math.nan))
    rows = {tuple(row) for row in np.asarray(sampled.codes[:4]).tolist()}
    assert is_repeat(history, sampled.codes).tolist() == [
        tuple(row) in rows for row in np.asarray(sampled.codes).tolist()
    ]
    # Room that nothing has taken holds zeros, which are no trial.
    assert not is_repeat(points.make_history(domain), jnp.zeros((1, 5), jnp.int32)).any()


@pytest.mark.parametrize(("count", "room"), [(1, 64), (64, 64), (65, 128), (128, 128), (1000, 1024)])
def test_room_is_a_power_of_two(count: int, room: int) -> None:
    assert points.choose_capacity(count) == room
