"""Candidates as points on the device: codes and quantiles, how to draw them, change them and keep them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from l2l.encoding import Tables
from l2l.types import Array, Key

FIRST = 64
"""Trials that a new history has room for; it doubles when they are used up, so programs for few sizes are compiled."""


class Points(NamedTuple):
    """N candidates; what stands at an inactive decision means nothing until `settled`."""

    codes: Array
    """[N, D]"""
    places: Array
    """[N, D]: quantiles in [0, 1), each inside its code."""

    def at(self, rows: Array) -> Points:
        """Some of them."""
        return Points(self.codes[rows], self.places[rows])


class History(NamedTuple):
    """What was told, in the order of the trials, in arrays that have room for C."""

    points: Points
    scores: Array
    """[C]: rewards, nan where a trial has failed or is still to come."""
    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    """[]: how many there are."""

    def known(self) -> Array:
        """[C]: which places are taken by a trial that has a reward."""
        return ~jnp.isnan(self.scores)

    def told(self) -> Array:
        """[C]: which places are taken."""
        return jnp.arange(len(self.scores)) < self.count

    def append(self, points: Points, scores: Array) -> History:
        """The history with N more, for which there must be room."""

        def put(whole: Array, part: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(whole, part.astype(whole.dtype), self.count, 0)

        places = Points(put(self.points.codes, points.codes), put(self.points.places, points.places))
        return History(places, put(self.scores, scores), self.count + len(scores))

    def filled(self) -> Array:
        """[C]: the scores, a failed trial's being the lowest of all; 0 where nothing is known."""
        lowest = jnp.min(jnp.where(self.known(), self.scores, jnp.inf))
        lowest = jnp.where(jnp.isfinite(lowest), lowest, 0.0)
        return jnp.where(self.known(), self.scores, jnp.where(self.told(), lowest, 0.0))


def history(tables: Tables, room: int = FIRST) -> History:
    """A history of nothing."""
    points = Points(np.zeros((room, len(tables.valid)), np.int32), np.zeros((room, len(tables.valid)), np.float32))  # pyright: ignore[reportArgumentType]
    return History(points, np.full(room, np.nan, np.float32), np.int32(0))  # pyright: ignore[reportArgumentType]


def capacity(count: int) -> int:
    """The room that is kept for `count` trials: a power of two, so that few shapes are compiled."""
    return max(FIRST, 1 << (count - 1).bit_length())


def padded(kept: History, room: int) -> History:
    """The same history with room for at least `room`."""
    more = max(room - len(kept.scores), 0)
    points = Points(*(jnp.pad(each, ((0, more), (0, 0))) for each in kept.points))
    return History(points, jnp.pad(kept.scores, (0, more), constant_values=jnp.nan), kept.count)


def active(tables: Tables, codes: Array) -> Array:
    """Which decisions are active: [N, D] from codes [N, D]; one that is not known (-1) forbids nothing."""
    decisions = jnp.arange(codes.shape[1])
    return (jnp.asarray(tables.allowed)[:, decisions, codes] | (codes < 0)).all(-1).T


def settled(tables: Tables, points: Points) -> Points:
    """The same candidates with zeros where a decision is inactive."""
    masks = active(tables, points.codes)
    return Points(jnp.where(masks, points.codes, 0), jnp.where(masks, points.places, 0))


def located(tables: Tables, quantiles: Array) -> Points:
    """Points at quantiles [N, D] in [0, 1); where a code is one value, in the middle of it."""
    edges = jnp.asarray(tables.edges)
    inner = (quantiles[..., None] >= edges[:, 1:]).sum(-1)
    codes = jnp.minimum(inner, jnp.asarray(tables.valid).sum(-1) - 1)
    return inside(tables, codes, None, quantiles)


def inside(tables: Tables, codes: Array, uniforms: Array | None, quantiles: Array | None = None) -> Points:
    """Points of codes [N, D], placed in their bins by uniforms [N, D] in [0, 1), or as near as can be to quantiles."""
    edges = jnp.asarray(tables.edges)
    rows = jnp.arange(codes.shape[1])
    low, high = edges[rows, codes], edges[rows, codes + 1]
    wanted = low + uniforms * (high - low) if uniforms is not None else quantiles
    places = jnp.clip(wanted, low, jnp.nextafter(high, jnp.float32(0)))
    return Points(codes, jnp.where(jnp.asarray(tables.exact), (low + high) / 2, places))


def within(tables: Tables, points: Points) -> Array:
    """Uniforms [N, D] in [0, 1): where each point lies inside its bins."""
    edges = jnp.asarray(tables.edges)
    rows = jnp.arange(points.codes.shape[1])
    low, high = edges[rows, points.codes], edges[rows, points.codes + 1]
    share = (points.places - low) / jnp.maximum(high - low, 1e-30)
    return jnp.clip(share, 0, 1 - 1e-7)


def drawn(tables: Tables, key: Key, count: int) -> Points:
    """`count` candidates, every decision drawn uniformly by itself."""
    return located(tables, jax.random.uniform(key, (count, len(tables.valid))))


def moved(tables: Tables, parents: Points, chosen: Array, key: Key, step: Array | float) -> Points:
    """Children of parents [N, D]: each decision that is chosen [N, D] is changed, and what that activates drawn anew.

    A category takes another one, each as likely. A number takes a normal step of `step` ([N, 1] or one for all) in its
    quantile, reflected at the ends, and an Integer moves to a value nearby where that would leave it in place.
    """
    first, second, third = jax.random.uniform(key, (3, *parents.codes.shape))
    sizes = jnp.asarray(tables.valid).sum(-1)
    other = (parents.codes + 1 + jnp.floor(second * (sizes - 1)).astype(jnp.int32)) % sizes
    near, up = _stepped(tables, parents, third, step)
    beyond = (parents.codes + up < 0) | (parents.codes + up >= sizes)
    neighbour = jnp.clip(parents.codes + jnp.where(beyond, -up, up), 0, sizes - 1)
    stuck = jnp.asarray(tables.exact) & (near.codes == parents.codes)
    codes = jnp.where(jnp.asarray(tables.ordinal), jnp.where(stuck, neighbour, near.codes), other)
    changed = inside(tables, codes, None, near.places)
    fresh = located(tables, first)
    masks = active(tables, parents.codes)

    def mix(new: Array, old: Array, anew: Array) -> Array:
        return jnp.where(masks, jnp.where(chosen, new, old), anew)

    return Points(*(mix(*each) for each in zip(changed, parents, fresh, strict=True)))


def _stepped(tables: Tables, parents: Points, uniforms: Array, step: Array | float) -> tuple[Points, Array]:
    """Points a normal step away, and its sign [N, D]; an Integer in bins goes far enough to be another value."""
    up = jnp.where(uniforms < 0.5, -1, 1)
    raw = parents.places + step * jax.scipy.special.ndtri(jnp.clip(uniforms, 1e-6, 1 - 1e-6))
    raw = 1 - jnp.abs(1 - jnp.mod(raw, 2))
    # A little more, since a sum of quantiles is rounded.
    least = 1.001 * jnp.asarray(tables.grains)[jnp.arange(raw.shape[1]), parents.codes] + 2e-7
    short = (jnp.abs(raw - parents.places) < least) & jnp.asarray(tables.ordinal)
    ahead = parents.places + up * least
    ahead = jnp.where((ahead < 0) | (ahead >= 1), parents.places - up * least, ahead)
    return located(tables, jnp.minimum(jnp.where(short, ahead, raw), 1 - 1e-7)), up


def several(tables: Tables, codes: Array, key: Key, count: Array | int) -> Array:
    """[N, D]: `count` (a number, or [N, 1]) of the active decisions that have more than one value, each as likely."""
    open_ = active(tables, codes) & ((jnp.asarray(tables.valid).sum(-1) > 1) | ~jnp.asarray(tables.exact))
    order = jnp.where(open_, jax.random.uniform(key, codes.shape), jnp.inf)
    rank = (order[:, None, :] < order[:, :, None]).sum(-1)
    return open_ & (rank < count)


def seen(kept: History, codes: Array) -> Array:
    """[N]: which settled codes [N, D] were told before."""
    equal = (codes[:, None, :] == kept.points.codes[None]).all(-1)
    return (equal & kept.told()).any(1)
