"""Whole searches as one program: every seed a lane, every batch a step, where rewards can be looked up."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from l2l.encoding import Encoding, Tables
from l2l.searchers.core.base import Coded
from l2l.searchers.core.points import capacity, inside, settled
from l2l.types import ASK, START, Array, Key


def searched(
    searcher: Coded,
    encoding: Encoding,
    rows: Array,
    rewards: Array,
    keys: Key,
    trials: int,
    batch: int = 1,
    noise: float = 0.0,
    sources: Any = None,
) -> Array:
    """The rows [S, trials] that searches with S keys find in a table, in the order of their trials.

    The table has rewards [R], nan where a trial would fail; rows [all products of codes] says which of them a
    candidate is, at the place where counting through the codes comes to it, the last decision's the fastest. What a
    searcher is told has normal noise of this standard deviation, drawn anew for each trial; `sources`, with a leading
    axis S, are what it is informed of before its search.
    """
    return _searched(searcher, encoding.tables, rows, rewards, keys, trials, batch, noise, sources)


@functools.partial(jax.jit, static_argnums=(0, 5, 6, 7))
def _searched(
    searcher: Any,
    tables: Tables,
    rows: Array,
    rewards: Array,
    keys: Key,
    trials: int,
    batch: int,
    noise: float,
    sources: Any,
) -> Array:
    sizes = jnp.asarray(tables.valid).sum(-1)
    weights = jnp.concatenate([jnp.cumprod(sizes[::-1])[::-1][1:], jnp.ones(1, sizes.dtype)])

    def search(key: Key, source: Any) -> Array:
        asks = jax.random.fold_in(key, ASK)
        inner = jax.tree.map(jnp.asarray, searcher.start(tables, jax.random.fold_in(asks, START)))
        if source is not None:
            inner = searcher.informed(inner, tables, source)

        def step(inner: Any, first: Array, count: int) -> tuple[Any, Array]:
            found = searcher.propose(inner, tables, jax.random.fold_in(asks, first + 1), count)
            row = rows[(found.codes * weights).sum(-1)]
            points = settled(tables, inside(tables, found.codes, found.uniforms))
            scores = rewards[row]
            if noise:
                scores += noise * blurs(key, first + jnp.arange(count))
            return searcher.learn(inner, tables, points, scores), row

        # The searcher's arrays grow as they do between the trials of a search of its own.
        parts: list[Array] = []
        for begin, end in pieces(trials, batch):
            inner = searcher.roomy(inner, end)
            size = min(batch, end - begin)
            inner, part = jax.lax.scan(functools.partial(step, count=size), inner, jnp.arange(begin, end, size))
            parts.append(part.reshape(-1))
        return jnp.concatenate(parts)

    return jax.vmap(search, in_axes=(0, None if sources is None else 0))(keys, sources)


def blurs(key: Key, numbers: Array) -> Array:
    """The noise [N], of standard deviation 1, in what a search with this key is told of trials number [N]."""
    return jax.vmap(lambda number: jax.random.normal(jax.random.fold_in(key, number)))(numbers)


def pieces(trials: int, batch: int) -> list[tuple[int, int]]:
    """Stretches of batches of one size that fit into arrays of one size; a shorter last batch stands alone."""
    ends = [first + batch for first in range(0, trials - batch + 1, batch)]
    rooms = [capacity(end) for end in ends]
    last = [end for end, room, later in zip(ends, rooms, [*rooms[1:], 0], strict=False) if room != later]
    last += [trials] if trials % batch else []
    return list(zip([0, *last[:-1]], last, strict=True))
