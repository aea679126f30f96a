"""The critic: the contract, its first design, what it learns from fronts and earlier searches, and bad input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optuna
import pytest

from l2l.encoding import Encoding
from l2l.errors import InputError
from l2l.searchers.core.base import ArraySearcherState
from l2l.searchers.core.compiled_search import run_searches
from l2l.searchers.gp.gp_critic import GpCritic, compute_log_improvement
from l2l.searchers.random_search import Random
from l2l.space import Candidate, Categorical, SearchSpace
from l2l.testing import TOY, SearcherContract, finish_trials, make_landscape, toy_reward
from l2l.types import Trial

CELL = SearchSpace({f"codes{n}": Categorical(options=tuple(range(4))) for n in range(4)}, lambda values, spec: None)
CRITIC = GpCritic(first=8)
"""What most tests use, in batches of 8, so that they share their programs."""


class TestGpCritic(SearcherContract):
    trials = 40
    """Early, since it explores once it has found the best: its proposals then score 0.50 on average."""

    def searcher(self) -> GpCritic:
        return CRITIC


def search_toy(trials: int, reward: Callable[[Candidate], float | None]) -> ArraySearcherState:
    """The state after a search of `TOY`."""
    key = jax.random.key(0)
    state = CRITIC.init(TOY, key)
    for first in range(0, trials, 8):
        candidates = CRITIC.ask(state, jax.random.fold_in(key, first), 8)
        state = CRITIC.tell(state, finish_trials(candidates, first, reward))
    return state


def test_the_first_design_takes_every_option_equally_often() -> None:
    state = CRITIC.init(CELL, jax.random.key(0))
    codes = np.asarray(state.arrays.design.codes)
    assert all((np.bincount(column, minlength=4) == 2).all() for column in codes.T)
    first, again = (CRITIC.ask(state, jax.random.key(seed), 8) for seed in (1, 2))
    assert first == again
    encoded, _ = state.encoding.encode(first)
    np.testing.assert_array_equal(encoded, codes)


def test_it_finds_the_best_of_a_landscape_where_random_search_does_not() -> None:
    rewards = make_landscape(6, 3, seed=1).rewards
    encoding = Encoding(SearchSpace({f"c{n}": Categorical(options=(0, 1, 2)) for n in range(6)}, lambda v, s: None))
    keys = jax.vmap(jax.random.key)(jnp.arange(4))
    critic_rows, random_rows = (
        np.asarray(run_searches(searcher, encoding, jnp.arange(3**6), jnp.asarray(rewards, jnp.float32), keys, 60))
        for searcher in (GpCritic(first=12), Random())
    )
    share = (rewards[critic_rows].max(1) == 1).mean()
    assert share >= 0.75
    assert share > (rewards[random_rows].max(1) == 1).mean()
    assert all(len(set(rows.tolist())) == 60 for rows in critic_rows)  # nothing is tried twice


def test_improvement_is_in_order_even_where_it_underflows() -> None:
    values = np.asarray(compute_log_improvement(jnp.array([0.0, -40, -50, 1]), jnp.ones(4), jnp.float32(0)))
    assert values[3] > values[0] > values[1] > values[2]
    assert np.isfinite(values).all()


def test_failures_are_avoided() -> None:
    failures: list[bool] = []

    def reward(candidate: Candidate) -> float | None:
        failures.append(candidate.values["b"] in ("x", "w"))
        return None if failures[-1] else toy_reward(candidate.values)

    search_toy(40, reward)
    assert sum(failures[8:]) <= 8  # chance gives 16


def test_of_several_objectives_the_front_counts() -> None:
    key = jax.random.key(0)
    state = CRITIC.init(TOY, key)
    trials: list[Trial] = []
    for first in range(0, 24, 8):
        candidates = CRITIC.ask(state, jax.random.fold_in(key, first), 8)
        batch = [
            replace(trial, reward=(toy_reward(trial.candidate.values), -float(trial.number)))
            for trial in finish_trials(candidates, first, lambda candidate: toy_reward(candidate.values))
        ]
        batch[1] = replace(batch[1], reward=None)
        trials += batch
        state = CRITIC.tell(state, batch)
    scores = np.asarray(state.arrays.history.scores)[:24]
    assert np.isnan(scores[[1, 9, 17]]).all()
    best = max((trial for trial in trials if trial.reward), key=lambda trial: trial.reward or ())
    assert scores[best.number] > np.nanmedian(scores)  # it is of the first front
    assert len(CRITIC.ask(state, key, 8)) == 8


def test_a_better_front_pushes_the_others_down_before_anything_is_learnt() -> None:
    state = CRITIC.init(TOY, jax.random.key(0))
    for first, reward in ((0, (1.0, 1.0)), (1, (2.0, 2.0))):
        candidates = CRITIC.ask(state, jax.random.key(first), 1)
        (trial,) = finish_trials(candidates, first, lambda _: 0.0)
        state = CRITIC.tell(state, [replace(trial, reward=reward)])
    assert np.asarray(state.arrays.history.scores)[:2].tolist() == [-1, 0]
    targets = np.asarray(state.arrays.compute_targets())
    assert targets[0] < targets[1]
    assert CRITIC.summary(state) == {}


def test_the_policy_remembers_real_trials_and_stays_a_policy() -> None:
    state = search_toy(40, lambda candidate: toy_reward(candidate.values))
    past, history = state.arrays.controller.past, state.arrays.history
    assert np.array_equal(past.codes, history.points.codes[40 - len(past.codes) : 40])
    samples = CRITIC.controller.propose(state.arrays.controller, Encoding(TOY).domain, jax.random.key(3), 64)
    assert len(np.unique(np.asarray(samples.codes), axis=0)) > 8


def test_an_earlier_search_is_tried_first(earlier_run: Path) -> None:
    rewards, encoding = make_landscape(4, 4, seed=3).rewards, Encoding(CELL)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{earlier_run}/study.db")
    critic = GpCritic(first=8, prior=(str(earlier_run),))
    candidates = critic.ask(critic.init(CELL, jax.random.key(0)), jax.random.key(1), 4)
    codes, _ = encoding.encode(candidates)
    first_rewards = rewards[(codes * 4 ** np.arange(3, -1, -1)).sum(1)]
    assert first_rewards.max() >= study.best_value
    assert first_rewards.mean() > np.quantile(rewards, 0.75)


def test_the_policy_starts_from_what_an_earlier_search_preferred(tmp_path: Path) -> None:
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/one.db", direction="maximize")
    for number in range(64):
        trial = study.ask()
        codes = [trial.suggest_categorical(f"codes{n}", list(range(4))) for n in range(4)]
        study.tell(trial, float(sum(code == 3 for code in codes)) + number / 1000)
    critic = GpCritic(first=8, prior=(f"sqlite:///{tmp_path}/one.db",))
    state = critic.init(CELL, jax.random.key(0))
    samples = critic.controller.propose(state.arrays.controller, Encoding(CELL).domain, jax.random.key(1), 400)
    assert (np.asarray(samples.codes) == 3).mean() > 0.35


@pytest.mark.slow
def test_an_earlier_search_that_misleads_is_left_after_a_few_trials(earlier_run: Path) -> None:
    encoding, seeds = Encoding(CELL), 32
    opposite, keys = -make_landscape(4, 4, seed=3).rewards, jax.vmap(jax.random.key)(jnp.arange(seeds))
    critic = GpCritic(first=12, prior=(str(earlier_run),))
    earlier = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (seeds, *jnp.shape(leaf))), critic.read_earlier(encoding)
    )
    rewards = jnp.asarray(opposite, jnp.float32)
    rows = run_searches(critic, encoding, jnp.arange(256), rewards, keys, 40, earlier=earlier)
    best = np.maximum.accumulate(opposite[np.asarray(rows)], 1)
    shares = (opposite <= best[..., None]).mean(2)  # how much of the benchmark is no better than the best so far
    assert shares[:, 0].mean() < 0.1  # where the earlier search was best, this one is worst
    assert shares[:, -1].mean() > 0.976  # where the best of 40 random candidates lies on average


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"first": 0}, "GpCritic's first must be an integer of at least 1, got 0."),
        ({"moves": -1}, "GpCritic's moves must be an integer of at least 0, got -1."),
        ({"prior": ""}, "GpCritic's prior must be run folders or addresses, got ''."),
        ({"controller": Random()}, "GpCritic's controller must be a Controller, got Random(bins=16)."),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        GpCritic(**arguments)
    assert str(caught.value) == sentence
