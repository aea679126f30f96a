"""Candidates as points on the device (codes and quantiles), a search's history, and how to sample and change points."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from l2l.encoding import Domain
from l2l.types import Array, Key

MIN_CAPACITY = 64
"""Trials that a new history has room for. It doubles when it is full, so that few shapes are compiled."""


class Points(NamedTuple):
    """N candidates. Entries at inactive decisions mean nothing until `zero_inactive`."""

    codes: Array
    """[N, D]"""
    quantiles: Array
    """[N, D]: in [0, 1), each inside the bin of its code."""

    def take(self, rows: Array) -> Points:
        """The points at these indices."""
        return Points(self.codes[rows], self.quantiles[rows])


class History(NamedTuple):
    """The trials of a search, in their order, in arrays with room for more."""

    points: Points
    scores: Array
    """[capacity]: rewards, nan where a trial has failed or is still to come."""
    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    """[]: number of trials."""

    def has_score(self) -> Array:
        """[capacity]: which entries hold a trial that has a reward."""
        return ~jnp.isnan(self.scores)

    def has_trial(self) -> Array:
        """[capacity]: which entries hold a trial."""
        return jnp.arange(len(self.scores)) < self.count

    def append(self, points: Points, scores: Array) -> History:
        """The history with N more trials; the caller has reserved the capacity."""

        def put(whole: Array, part: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(whole, part.astype(whole.dtype), self.count, 0)

        codes, quantiles = put(self.points.codes, points.codes), put(self.points.quantiles, points.quantiles)
        return History(Points(codes, quantiles), put(self.scores, scores), self.count + len(scores))

    def impute_scores(self) -> Array:
        """[capacity]: the scores, where a failed trial counts as the lowest of all; 0 where there is no trial."""
        lowest = jnp.min(jnp.where(self.has_score(), self.scores, jnp.inf))
        lowest = jnp.where(jnp.isfinite(lowest), lowest, 0.0)
        return jnp.where(self.has_score(), self.scores, jnp.where(self.has_trial(), lowest, 0.0))


def make_history(domain: Domain, capacity: int = MIN_CAPACITY) -> History:
    """A history without trials."""
    shape = (capacity, len(domain.valid))
    points = Points(np.zeros(shape, np.int32), np.zeros(shape, np.float32))  # pyright: ignore[reportArgumentType]
    return History(points, np.full(capacity, np.nan, np.float32), np.int32(0))  # pyright: ignore[reportArgumentType]


def choose_capacity(count: int) -> int:
    """The capacity for `count` trials: a power of two, so that few shapes are compiled."""
    return max(MIN_CAPACITY, 1 << (count - 1).bit_length())


def pad_history(history: History, capacity: int) -> History:
    """The same history with at least this capacity."""
    more = max(capacity - len(history.scores), 0)
    points = Points(*(jnp.pad(leaf, ((0, more), (0, 0))) for leaf in history.points))
    return History(points, jnp.pad(history.scores, (0, more), constant_values=jnp.nan), history.count)


def is_active(domain: Domain, codes: Array) -> Array:
    """Which decisions are active: [N, D] from codes [N, D]. An unknown code (-1) excludes nothing."""
    decisions = jnp.arange(codes.shape[1])
    return (jnp.asarray(domain.allowed)[:, decisions, codes] | (codes < 0)).all(-1).T


def zero_inactive(domain: Domain, points: Points) -> Points:
    """The same candidates with zeros where a decision is inactive."""
    mask = is_active(domain, points.codes)
    return Points(jnp.where(mask, points.codes, 0), jnp.where(mask, points.quantiles, 0))


def locate_points(domain: Domain, quantiles: Array) -> Points:
    """Points at quantiles [N, D] in [0, 1); a code with a single value takes the middle of its bin."""
    edges = jnp.asarray(domain.edges)
    bins = (quantiles[..., None] >= edges[:, 1:]).sum(-1)
    codes = jnp.minimum(bins, jnp.asarray(domain.valid).sum(-1) - 1)
    return snap_points(domain, codes, quantiles)


def make_points(domain: Domain, codes: Array, uniforms: Array) -> Points:
    """Points of codes [N, D], at uniforms [N, D] in [0, 1) of the way through their bins."""
    low, high = _find_edges(domain, codes)
    return _clip_quantiles(domain, codes, low + uniforms * (high - low), low, high)


def snap_points(domain: Domain, codes: Array, quantiles: Array) -> Points:
    """Points of codes [N, D], inside their bins as near to quantiles [N, D] as can be."""
    return _clip_quantiles(domain, codes, quantiles, *_find_edges(domain, codes))


def _clip_quantiles(domain: Domain, codes: Array, quantiles: Array, low: Array, high: Array) -> Points:
    """Points of codes [N, D] at quantiles [N, D] clipped to bins with edges `low` and `high` [N, D]."""
    clipped = jnp.clip(quantiles, low, jnp.nextafter(high, jnp.float32(0)))
    return Points(codes, jnp.where(jnp.asarray(domain.exact), (low + high) / 2, clipped))


def _find_edges(domain: Domain, codes: Array) -> tuple[Array, Array]:
    """The lower and upper edges [N, D] of the bins of codes [N, D]."""
    edges, decisions = jnp.asarray(domain.edges), jnp.arange(codes.shape[1])
    return edges[decisions, codes], edges[decisions, codes + 1]


def compute_uniforms(domain: Domain, points: Points) -> Array:
    """[N, D] in [0, 1): how far through its bin each quantile is."""
    low, high = _find_edges(domain, points.codes)
    uniforms = (points.quantiles - low) / jnp.maximum(high - low, 1e-30)
    return jnp.clip(uniforms, 0, 1 - 1e-7)


def sample_points(domain: Domain, key: Key, count: int) -> Points:
    """`count` candidates, every decision sampled uniformly and independently."""
    return locate_points(domain, jax.random.uniform(key, (count, len(domain.valid))))


def mutate_points(domain: Domain, parents: Points, chosen: Array, key: Key, step: Array | float) -> Points:
    """Children of parents [N, D]: the chosen [N, D] decisions change; those that this activates are sampled anew.

    A category takes another option, each equally likely. A number takes a normal step of scale `step` ([N, 1] or one
    for all) in its quantile, reflected at the ends; an Integer that would keep its value moves to one nearby.
    """
    first, second, third = jax.random.uniform(key, (3, *parents.codes.shape))
    sizes = jnp.asarray(domain.valid).sum(-1)
    other = (parents.codes + 1 + jnp.floor(second * (sizes - 1)).astype(jnp.int32)) % sizes
    stepped, sign = _step_numbers(domain, parents, third, step)
    beyond = (parents.codes + sign < 0) | (parents.codes + sign >= sizes)
    neighbour = jnp.clip(parents.codes + jnp.where(beyond, -sign, sign), 0, sizes - 1)
    stuck = jnp.asarray(domain.exact) & (stepped.codes == parents.codes)
    codes = jnp.where(jnp.asarray(domain.ordinal), jnp.where(stuck, neighbour, stepped.codes), other)
    changed = snap_points(domain, codes, stepped.quantiles)
    fresh = locate_points(domain, first)
    mask = is_active(domain, parents.codes)

    def mix(new: Array, old: Array, sampled: Array) -> Array:
        return jnp.where(mask, jnp.where(chosen, new, old), sampled)

    return Points(*(mix(*leaves) for leaves in zip(changed, parents, fresh, strict=True)))


def _step_numbers(domain: Domain, parents: Points, uniforms: Array, step: Array | float) -> tuple[Points, Array]:
    """Points a normal step away, and the step's sign [N, D]; a binned Integer moves far enough to change its value."""
    sign = jnp.where(uniforms < 0.5, -1, 1)
    quantiles = parents.quantiles + step * jax.scipy.special.ndtri(jnp.clip(uniforms, 1e-6, 1 - 1e-6))
    quantiles = 1 - jnp.abs(1 - jnp.mod(quantiles, 2))
    # A little more than the least, since a sum of quantiles is rounded.
    least = 1.001 * jnp.asarray(domain.min_moves)[jnp.arange(quantiles.shape[1]), parents.codes] + 2e-7
    too_short = (jnp.abs(quantiles - parents.quantiles) < least) & jnp.asarray(domain.ordinal)
    ahead = parents.quantiles + sign * least
    ahead = jnp.where((ahead < 0) | (ahead >= 1), parents.quantiles - sign * least, ahead)
    return locate_points(domain, jnp.minimum(jnp.where(too_short, ahead, quantiles), 1 - 1e-7)), sign


def choose_decisions(domain: Domain, codes: Array, key: Key, count: Array | int) -> Array:
    """[N, D]: `count` (a number, or [N, 1]) of the active decisions with more than one value, each equally likely."""
    eligible = is_active(domain, codes) & ((jnp.asarray(domain.valid).sum(-1) > 1) | ~jnp.asarray(domain.exact))
    priority = jnp.where(eligible, jax.random.uniform(key, codes.shape), jnp.inf)
    one, other = priority[:, :, None], priority[:, None, :]
    is_earlier = jnp.tri(codes.shape[1], k=-1, dtype=bool)  # two of 2^23 random numbers may be equal
    rank = ((other < one) | ((other == one) & is_earlier)).sum(-1)
    return eligible & (rank < count)


def is_repeat(history: History, codes: Array) -> Array:
    """[N]: which codes [N, D], with zeros where inactive, are those of a trial of the history."""
    equal = (codes[:, None, :] == history.points.codes[None]).all(-1)
    return (equal & history.has_trial()).any(1)
