"""Whole searches on a tabular benchmark as one program: every seed is a lane, every batch a step of a scan."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from l2l.encoding import Domain, Encoding
from l2l.searchers.core.base import START, ArraySearcher
from l2l.searchers.core.points import choose_capacity, make_points, zero_inactive
from l2l.types import ASK, Array, Key


def run_searches(
    searcher: ArraySearcher,
    encoding: Encoding,
    rows: Array,
    rewards: Array,
    keys: Key,
    trials: int,
    batch: int = 1,
    noise: float = 0.0,
    earlier: Any = None,
) -> Array:
    """The rows [S, T] of a tabular benchmark that searches with S keys try, in the order of their trials.

    The benchmark has rewards [N], nan where a trial would fail. `rows` [product of all numbers of codes] holds the
    row of each candidate, in lexicographic order of the codes (the last decision varies fastest). The rewards that a
    searcher learns from have normal noise with standard deviation `noise`, sampled anew for each trial. `earlier`
    holds trials of earlier searches, with a leading axis S.
    """
    return _run_searches(searcher, encoding.domain, rows, rewards, keys, trials, batch, noise, earlier)


@functools.partial(jax.jit, static_argnums=(0, 5, 6, 7))
def _run_searches(
    searcher: Any,
    domain: Domain,
    rows: Array,
    rewards: Array,
    keys: Key,
    trials: int,
    batch: int,
    noise: float,
    earlier: Any,
) -> Array:
    sizes = jnp.asarray(domain.valid).sum(-1)
    weights = jnp.concatenate([jnp.cumprod(sizes[::-1])[::-1][1:], jnp.ones(1, sizes.dtype)])

    def search(key: Key, earlier: Any) -> Array:
        ask_key = jax.random.fold_in(key, ASK)
        state = jax.tree.map(jnp.asarray, searcher.start(domain, jax.random.fold_in(ask_key, START)))
        if earlier is not None:
            state = searcher.learn_earlier(state, domain, earlier)

        def step(state: Any, first: Array, count: int) -> tuple[Any, Array]:
            proposal = searcher.propose(state, domain, jax.random.fold_in(ask_key, first + 1), count)
            row = rows[(proposal.codes * weights).sum(-1)]
            points = zero_inactive(domain, make_points(domain, proposal.codes, proposal.uniforms))
            scores = rewards[row]
            if noise:
                scores += noise * sample_observation_noise(key, first + jnp.arange(count))
            return searcher.learn(state, domain, points, scores), row

        # The searcher's arrays grow as they do between the trials of a search in the loop.
        parts: list[Array] = []
        for begin, end in split_batches(trials, batch):
            state = searcher.reserve(state, end)
            size = min(batch, end - begin)
            state, part = jax.lax.scan(functools.partial(step, count=size), state, jnp.arange(begin, end, size))
            parts.append(part.reshape(-1))
        return jnp.concatenate(parts)

    return jax.vmap(search, in_axes=(0, None if earlier is None else 0))(keys, earlier)


def sample_observation_noise(key: Key, numbers: Array) -> Array:
    """The noise [N], of standard deviation 1, in the rewards of trials with numbers [N] in the search of a key."""
    return jax.vmap(lambda number: jax.random.normal(jax.random.fold_in(key, number)))(numbers)


def split_batches(trials: int, batch: int) -> list[tuple[int, int]]:
    """Ranges of trials that run as one scan: batches of one size, in arrays of one capacity.

    A shorter last batch is a range of its own.
    """
    ends = [first + batch for first in range(0, trials - batch + 1, batch)]
    capacities = [choose_capacity(end) for end in ends]
    last = [end for end, now, later in zip(ends, capacities, [*capacities[1:], 0], strict=False) if now != later]
    last += [trials] if trials % batch else []
    return list(zip([0, *last[:-1]], last, strict=True))
