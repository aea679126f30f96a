"""The critic's state: a process of a fixed size that evicts trials when it is full."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from l2l.encoding import Encoding
from l2l.searchers.core.points import locate_points
from l2l.searchers.gp.gp_critic import GpCritic
from l2l.searchers.gp.state import PROCESS_CAPACITY, CriticState
from l2l.space import Categorical, SearchSpace

CELL = SearchSpace({f"codes{n}": Categorical(options=tuple(range(4))) for n in range(4)}, lambda values, spec: None)


def test_a_full_process_evicts_all_but_the_best_and_the_latest_trials() -> None:
    searcher, domain = GpCritic(first=4, edits=16, moves=8, uniform=8, sampled=0), Encoding(CELL).domain
    assert PROCESS_CAPACITY == 512
    points = locate_points(domain, jax.random.uniform(jax.random.key(0), (600, 4)))
    scores = jnp.asarray(np.random.default_rng(0).normal(size=600), jnp.float32)

    @jax.jit
    def learn_all(key: jax.Array) -> CriticState:
        return searcher.learn(searcher.reserve(searcher.start(domain, key), 600), domain, points, scores)

    state = learn_all(jax.random.key(0))
    size = int(state.count_observations())
    assert int(state.process.size) == size <= PROCESS_CAPACITY
    remaining = set(np.asarray(state.trial_indices)[:size].tolist())
    assert set(range(600 - 128, 600)) <= remaining
    assert set(np.argsort(-np.asarray(scores))[:64].tolist()) <= remaining
    proposal = jax.jit(searcher.propose, static_argnums=3)(state, domain, jax.random.key(1), 3)
    assert proposal.codes.shape == (3, 4)
