"""Whole searches as one program find what the same searches find trial by trial."""

from __future__ import annotations

import functools
import itertools
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l.encoding import Encoding
from l2l.searchers.controllers.controller import Controller
from l2l.searchers.controllers.ppo import Ppo
from l2l.searchers.core.base import ArraySearcher
from l2l.searchers.core.compiled_search import run_searches, split_batches
from l2l.searchers.evolution import Evolution
from l2l.searchers.gp.gp_critic import GpCritic
from l2l.searchers.local_search import LocalSearch
from l2l.searchers.predictor import Predictor
from l2l.searchers.random_search import Random
from l2l.space import Candidate, Categorical, Integer, SearchSpace
from l2l.testing import finish_trials
from l2l.types import ASK, Array

SPACE = SearchSpace(
    {
        "kind": Categorical(options=("dense", "conv", "none")),
        "width": Integer(low=1, high=4, when={"kind": ["dense", "conv"]}),
        "norm": Categorical(options=(False, True)),
        "last": Categorical(options=tuple("abcde")),
    },
    lambda values, spec: None,
)
ENCODING = Encoding(SPACE)
SEARCHERS = {
    "random": Random(),
    "evolution": Evolution(population=6, tournament=3),
    "local": LocalSearch(first=4),
    "reinforce": Controller(),
    "ppo": Controller(update=Ppo(replay=16)),
    "predictor": Predictor(first=8),
    "gp_critic": GpCritic(first=8),
}
FEW_TRIALS = ("predictor", "gp_critic")
COSTLY = (*FEW_TRIALS, "local", "ppo")
"""These take longest to compile; of them, one is not slow."""
GOLDEN = Path(__file__).with_name("golden.json")
"""The rows that one search of each found when this was written; whoever changes what a searcher does changes these."""


@functools.cache
def table() -> tuple[Array, Array, dict[str, int]]:
    """Rows of all products of codes, their rewards, and the row of each candidate by its key."""
    codes = np.array(list(itertools.product(*map(range, ENCODING.domain.valid.sum(-1)))), np.int32)
    candidates = ENCODING.decode(codes, np.full(codes.shape, 0.5))
    numbers = {key: row for row, key in enumerate(dict.fromkeys(candidate.key for candidate in candidates))}
    draw = np.random.default_rng(0)
    rewards = draw.normal(size=len(numbers)).astype(np.float32)
    rewards[draw.random(len(numbers)) < 0.15] = math.nan
    return jnp.array([numbers[candidate.key] for candidate in candidates]), jnp.asarray(rewards), numbers


def by_hand(searcher: ArraySearcher, seed: int, trials: int, batch: int) -> list[int]:
    """The rows that the loop of ask and tell finds."""
    _, rewards, numbers = table()
    scores = np.asarray(rewards)

    def reward(candidate: Candidate) -> float | None:
        value = float(scores[numbers[candidate.key]])
        return None if math.isnan(value) else value

    asks = jax.random.fold_in(jax.random.key(seed), ASK)
    state, rows = searcher.init(SPACE, asks), list[int]()
    for first in range(0, trials, batch):
        asked = searcher.ask(state, jax.random.fold_in(asks, first + 1), min(batch, trials - first))
        state = searcher.tell(state, finish_trials(asked, first, reward))
        rows += [numbers[candidate.key] for candidate in asked]
    return rows


@pytest.mark.parametrize(
    ("name", "batch"),
    [
        pytest.param(name, batch, marks=[pytest.mark.slow] * (name in COSTLY and (name, batch) != ("gp_critic", 8)))
        for name in SEARCHERS
        for batch in (1, 8)
    ],
)
def test_the_same_keys_give_the_same_candidates(name: str, batch: int) -> None:
    rows, rewards, _ = table()
    searcher, trials = SEARCHERS[name], 84 if batch == 8 else 70
    if name in FEW_TRIALS:
        trials = 40 if batch == 8 else 30  # no second program for the next size of arrays
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    found_rows = np.asarray(run_searches(searcher, ENCODING, rows, rewards, keys, trials, batch))
    assert found_rows.shape == (3, trials)
    assert len({tuple(row) for row in found_rows.tolist()}) == 3
    for seed in (0, 2):
        assert found_rows[seed].tolist() == by_hand(searcher, seed, trials, batch)
    assert found_rows[0, :30].tolist() == json.loads(GOLDEN.read_text())[f"{name}, batches of {batch}"]


@pytest.mark.parametrize(
    ("trials", "batch"), [(1, 1), (64, 1), (65, 1), (200, 1), (64, 8), (70, 8), (3, 8), (300, 100)]
)
def test_pieces_are_whole_batches_in_arrays_of_one_size(trials: int, batch: int) -> None:
    ranges = split_batches(trials, batch)
    assert [begin for begin, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
    assert ranges[-1][1] == trials
    for begin, end in ranges:
        assert (end - begin) % batch == 0 or (end, end - begin) == (trials, trials % batch)
