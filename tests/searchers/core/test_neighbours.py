"""One-edits, as properties over every kind of choice."""

from __future__ import annotations

import functools

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l.encoding import Domain, Encoding
from l2l.searchers.core import neighbours, points
from l2l.searchers.core.points import Points
from l2l.space import Candidate
from l2l.testing import SPACES
from l2l.types import Array, Key

ENCODINGS = {name: Encoding(space, bins=5) for name, space in SPACES.items()}
NAMES = st.sampled_from(list(SPACES))
SEEDS = st.integers(0, 10**6)
sample_edits = functools.partial(jax.jit, static_argnums=3)(neighbours.sample_edits)


@jax.jit
def _around(domain: Domain, key: Key) -> tuple[Points, Points, Array]:
    parent, fresh = (
        points.zero_inactive(domain, points.sample_points(domain, part, 1)) for part in jax.random.split(key)
    )
    return parent, *neighbours.list_neighbours(domain, parent, fresh)


def decoded(encoding: Encoding, sampled: Points) -> list[Candidate]:
    uniforms = np.asarray(jax.jit(points.compute_uniforms)(encoding.domain, sampled))
    return encoding.decode(np.asarray(sampled.codes), uniforms)


@settings(deadline=None, max_examples=40)
@given(name=NAMES, seed=SEEDS)
def test_neighbours_are_all_one_edits_and_nothing_else(name: str, seed: int) -> None:
    encoding = ENCODINGS[name]
    domain = encoding.domain
    parent, around, fits = _around(domain, jax.random.key(seed))
    old, codes = np.asarray(parent.codes)[0], np.asarray(around.codes)[np.asarray(fits)]
    masks = encoding.masks(old[None])[0]
    expected = 0
    for decision, size in enumerate(domain.valid.sum(-1)):
        if masks[decision]:
            near = int(old[decision] > 0) + int(old[decision] < size - 1)
            expected += near if domain.ordinal[decision] else int(size) - 1
    assert len(codes) == expected == len(np.unique(codes, axis=0))
    for row in codes:
        both = masks & encoding.masks(row[None])[0]
        assert (row != old)[both].sum() == 1
        apart = np.abs(row - old)[both & domain.ordinal]
        assert apart.sum() <= 1
    for candidate in decoded(encoding, around.take(np.flatnonzero(fits))) if expected else []:
        assert SPACES[name].candidate(candidate.values) == candidate


@settings(deadline=None, max_examples=40)
@given(name=NAMES, seed=SEEDS)
def test_edits_of_a_few_are_theirs_and_candidates(name: str, seed: int) -> None:
    encoding = ENCODINGS[name]
    domain = encoding.domain
    first, second = jax.random.split(jax.random.key(seed))
    parents = jax.jit(points.zero_inactive)(domain, jax.jit(points.sample_points, static_argnums=2)(domain, first, 3))
    edits = jax.jit(points.zero_inactive)(domain, sample_edits(domain, parents, second, 10_000))
    masks, old = encoding.masks(np.asarray(parents.codes)), np.asarray(parents.codes)
    rows, width = domain.valid.shape
    slots = np.asarray(edits.codes).reshape(3, rows, width, rows)
    for parent, decision, code in np.argwhere(np.ones((3, rows, width), bool)):
        if masks[parent, decision] and domain.valid[decision, code] and old[parent, decision] != code:
            assert slots[parent, decision, code, decision] == code
            common = masks[parent] & encoding.masks(slots[parent, decision, code][None])[0]
            assert ((slots[parent, decision, code] != old[parent]) & common).sum() == 1
    for candidate in decoded(encoding, edits):
        assert SPACES[name].candidate(candidate.values) == candidate
