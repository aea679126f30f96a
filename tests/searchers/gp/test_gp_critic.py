"""The critic: the contract, its first design, what it learns from fronts and earlier searches, and bad input."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optuna
import pytest

from l2l.api import search
from l2l.encoding import Encoding
from l2l.errors import InputError
from l2l.executors.inline import Inline
from l2l.objectives.tabular import Tabular
from l2l.objectives.tabular import benchmark_space as space
from l2l.searchers.core.compiled_search import run_searches
from l2l.searchers.core.points import locate_points
from l2l.searchers.gp.earlier_searches import known
from l2l.searchers.gp.gp_critic import GpCritic, log_improvement
from l2l.searchers.gp.state import LIMIT, ranked
from l2l.searchers.random import Random
from l2l.space import Candidate, Categorical, Integer, Real, SearchSpace
from l2l.tasks.tabular import Lookup
from l2l.testing import TOY, SearcherContract, finish_trials, make_landscape, toy_reward, write_landscape
from l2l.types import Trial

CELL = SearchSpace({f"codes{n}": Categorical(options=tuple(range(4))) for n in range(4)}, lambda values, spec: None)


class TestGpCritic(SearcherContract):
    def searcher(self) -> GpCritic:
        return GpCritic(first=8)


def told(searcher: GpCritic, trials: int, reward: Callable[[Candidate], float | None], batch: int = 4) -> Any:
    """The state after a search of `TOY`."""
    key = jax.random.key(0)
    state = searcher.init(TOY, key)
    for first in range(0, trials, batch):
        asked = searcher.ask(state, jax.random.fold_in(key, first), batch)
        state = searcher.tell(state, finish_trials(asked, first, reward))
    return state


def test_the_first_design_takes_every_option_equally_often() -> None:
    encoding, searcher = Encoding(CELL), GpCritic(first=16)
    codes = np.asarray(searcher.start(encoding.domain, jax.random.key(0)).design.codes)
    assert all((np.bincount(column, minlength=4) == 4).all() for column in codes.T)
    state = searcher.init(CELL, jax.random.key(0))
    assert [each.values for each in searcher.ask(state, jax.random.key(1), 3)] == [
        each.values for each in searcher.ask(state, jax.random.key(2), 3)
    ]


def test_it_finds_the_best_of_a_landscape_where_random_search_does_not() -> None:
    made = make_landscape(6, 3, seed=1)
    encoding = Encoding(SearchSpace({f"c{n}": Categorical(options=(0, 1, 2)) for n in range(6)}, lambda v, s: None))
    rows, rewards = jnp.arange(3**6), jnp.asarray(made.rewards, jnp.float32)
    keys = jax.vmap(jax.random.key)(jnp.arange(4))
    ours, chance = (
        np.asarray(run_searches(each, encoding, rows, rewards, keys, 60)) for each in (GpCritic(first=12), Random())
    )
    found = (made.rewards[ours].max(1) == 1).mean()
    assert found >= 0.75
    assert found > (made.rewards[chance].max(1) == 1).mean()
    assert all(len(set(each.tolist())) == 60 for each in ours)  # nothing is tried twice


def test_ranks_are_normal_quantiles_of_what_is_told() -> None:
    targets = np.asarray(ranked(np.array([5.0, 1, 9, 0, 0]), np.array([True, True, True, False, False])))
    assert targets[2] > targets[0] > targets[1]
    assert targets[3] == targets[4] == 0
    assert targets[:3].mean() == pytest.approx(0, abs=1e-5)
    assert targets[:3].std() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(ranked(np.array([5.0, 1, 9e9]), np.ones(3, bool)), targets[:3], atol=1e-6)


def test_improvement_is_in_order_even_where_it_underflows() -> None:
    values = np.asarray(log_improvement(jnp.array([0.0, -40, -50, 1]), jnp.ones(4), jnp.float32(0)))
    assert values[3] > values[0] > values[1] > values[2]
    assert np.isfinite(values).all()


def test_failures_are_avoided() -> None:
    failed: list[bool] = []

    def reward(candidate: Candidate) -> float | None:
        failed.append(candidate.values["b"] in ("x", "w"))
        return None if failed[-1] else toy_reward(candidate.values)

    told(GpCritic(first=8), 40, reward)
    assert sum(failed[8:]) <= 8  # chance gives 16


def test_of_several_objectives_the_front_counts() -> None:
    searcher, key = GpCritic(first=6), jax.random.key(0)
    state = searcher.init(TOY, key)
    trials: list[Trial] = []
    for first in range(0, 12, 4):
        asked = searcher.ask(state, jax.random.fold_in(key, first), 4)
        batch = finish_trials(asked, first, lambda candidate: toy_reward(candidate.values))
        several = [replace(each, reward=(toy_reward(each.candidate.values), -float(each.number))) for each in batch]
        several[1] = replace(several[1], reward=None)
        trials += several
        state = searcher.tell(state, several)
    scores = np.asarray(state.arrays.history.scores)[:12]
    assert np.isnan(scores[[1, 5, 9]]).all()
    best = max((each for each in trials if each.reward), key=lambda each: each.reward or ())
    assert scores[best.number] > np.nanmedian(scores)  # it is of the first front
    assert len(searcher.ask(state, key, 4)) == 4


def test_a_better_front_pushes_the_others_down_before_anything_is_learnt() -> None:
    searcher = GpCritic(first=2)
    state = searcher.init(TOY, jax.random.key(0))
    for first, reward in ((0, (1.0, 1.0)), (1, (2.0, 2.0))):
        asked = searcher.ask(state, jax.random.key(first), 1)
        (trial,) = finish_trials(asked, first, lambda _: 0.0)
        state = searcher.tell(state, [replace(trial, reward=reward)])
    assert np.asarray(state.arrays.history.scores)[:2].tolist() == [-1, 0]
    assert np.asarray(state.arrays.targets())[0] < np.asarray(state.arrays.targets())[1]
    assert searcher.summary(state) == {}


def test_more_trials_than_the_process_holds_in_batches_of_any_size() -> None:
    searcher, encoding = GpCritic(first=4, edits=16, moves=8, uniform=8, sampled=0), Encoding(CELL)
    assert LIMIT == 512
    points = locate_points(encoding.domain, jax.random.uniform(jax.random.key(0), (600, 4)))
    scores = jnp.asarray(np.random.default_rng(0).normal(size=600), jnp.float32)
    empty = searcher.reserve(searcher.start(encoding.domain, jax.random.key(0)), 600)
    once = searcher.learn(empty, encoding.domain, points, scores)
    assert int(once.process.taken) == int(once.held()) <= LIMIT
    kept = set(np.asarray(once.rows)[: int(once.held())].tolist())
    assert set(range(600 - 128, 600)) <= kept
    assert set(np.argsort(-np.asarray(scores))[:64].tolist()) <= kept
    found = searcher.propose(once, encoding.domain, jax.random.key(1), 3)
    assert found.codes.shape == (3, 4)


def test_the_policy_remembers_real_trials_and_stays_a_policy() -> None:
    searcher = GpCritic(first=6)
    state = told(searcher, 40, lambda candidate: toy_reward(candidate.values))
    past, kept = state.arrays.controller.past, state.arrays.history
    assert np.array_equal(past.codes, kept.points.codes[40 - len(past.codes) : 40])
    encoding = Encoding(TOY)
    drawn_ = searcher.controller.propose(state.arrays.controller, encoding.domain, jax.random.key(3), 64)
    assert len(np.unique(np.asarray(drawn_.codes), axis=0)) > 8


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search of a landscape."""
    folder = tmp_path_factory.mktemp("prior")
    write_landscape(folder / "table.npz", make_landscape(4, 4, seed=3))
    search(
        space(folder / "table.npz", "codes"), Lookup(folder / "table.npz", "reward"), Random(),
        objective=functools.partial(Tabular, path=folder / "table.npz", codes="codes", reward="reward"),
        executor=Inline(), tracker={}, final=None, trials=60, batch=60, out=folder / "run",
    )  # fmt: skip
    return folder / "run"


def test_an_earlier_search_is_tried_first(run: Path) -> None:
    made, encoding = make_landscape(4, 4, seed=3), Encoding(CELL)
    best = max(search_rewards(run))
    warm = GpCritic(first=8, prior=(str(run),))
    asked = warm.ask(warm.init(CELL, jax.random.key(0)), jax.random.key(1), 4)
    codes, _ = encoding.encode(asked)
    found = made.rewards[(codes * 4 ** np.arange(3, -1, -1)).sum(1)]
    assert found.max() >= best
    assert found.mean() > np.quantile(made.rewards, 0.75)


def test_of_a_long_search_the_best_are_taken_and_some_of_the_others(run: Path) -> None:
    whole, few = known(run, Encoding(CELL)), known(run, Encoding(CELL), 16)
    assert (len(whole.scores), len(few.scores)) == (60, 16)
    best = np.sort(whole.scores)[::-1]
    assert np.sort(few.scores)[::-1][:4].tolist() == best[:4].tolist()
    assert few.scores.min() < np.median(whole.scores)


def test_one_study_is_to_be_named_where_there_are_several(tmp_path: Path) -> None:
    for name in ("one", "two"):
        optuna.create_study(storage=f"sqlite:///{tmp_path}/both.db", study_name=name)
    with pytest.raises(InputError, match=r"it holds 2 studies, name one as ADDRESS#STUDY"):
        GpCritic(prior=[f"sqlite:///{tmp_path}/both.db"]).init(CELL, jax.random.key(0))


def search_rewards(run: Path) -> list[float]:
    return [
        trial.value or 0.0 for trial in optuna.load_study(study_name=None, storage=f"sqlite:///{run}/study.db").trials
    ]


def test_the_policy_starts_from_what_a_source_preferred(tmp_path: Path) -> None:
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/one.db", direction="maximize")
    for number in range(64):
        trial = study.ask()
        picks = [trial.suggest_categorical(f"codes{n}", list(range(4))) for n in range(4)]
        study.tell(trial, float(sum(pick == 3 for pick in picks)) + number / 1000)
    searcher = GpCritic(prior=(f"sqlite:///{tmp_path}/one.db",))
    state = searcher.init(CELL, jax.random.key(0))
    found = searcher.controller.propose(state.arrays.controller, Encoding(CELL).domain, jax.random.key(1), 400)
    assert (np.asarray(found.codes) == 3).mean() > 0.35


def test_a_source_that_misleads_is_left_after_a_few_trials(run: Path) -> None:
    made, encoding, seeds = make_landscape(4, 4, seed=3), Encoding(CELL), 32
    opposite, keys = -made.rewards, jax.vmap(jax.random.key)(jnp.arange(seeds))
    searcher = GpCritic(first=12, prior=(str(run),))
    told = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (seeds, *jnp.shape(leaf))), searcher.read_earlier(encoding))
    rewards = jnp.asarray(opposite, jnp.float32)
    rows = run_searches(searcher, encoding, jnp.arange(256), rewards, keys, 40, earlier=told)
    best = np.maximum.accumulate(opposite[np.asarray(rows)], 1)
    places = (opposite <= best[..., None]).mean(2)  # how much of the table is no better than the best so far
    assert places[:, 0].mean() < 0.1  # where the source was best, it is worst
    assert places[:, -1].mean() > 0.976  # where the best of 40 random candidates lies on average


def test_names_and_values_that_agree_are_taken_over(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/other.db"
    study = optuna.create_study(storage=storage, direction="minimize", study_name="one")
    for rate, kind in ((0.1, "a"), (0.01, "b"), (5.0, "z")):
        trial = study.ask()
        trial.suggest_float("rate", 1e-3, 10, log=True)
        trial.suggest_categorical("kind", ["a", "b", "z"])
        study.tell(trial, rate)
        del kind
    optuna.create_study(storage=storage, study_name="two")
    target = SearchSpace(
        {
            "rate": Real(low=1e-3, high=10, log=True),
            "kind": Categorical(options=("a", "b")),
            "new": Integer(low=1, high=3),
        },
        lambda values, spec: None,
    )
    found = known(f"{storage}#one", Encoding(target))
    kinds = [trial.params["kind"] for trial in study.trials]
    assert (found.codes[:, 2] == -1).all()
    assert [code == -1 for code in found.codes[:, 1]] == [kind == "z" for kind in kinds]
    assert (found.codes[:, 0] >= 0).all()
    np.testing.assert_allclose(found.scores, [-0.1, -0.01, -5.0])
    searcher = GpCritic(first=4, prior=[f"{storage}#one"])
    asked = searcher.ask(searcher.init(target, jax.random.key(0)), jax.random.key(1), 3)
    assert all(target.candidate(each.values) == each for each in asked)


def test_the_digest_of_what_is_known_is_part_of_a_search(run: Path) -> None:
    assert GpCritic().digest(CELL) is None
    digest = GpCritic(prior=(str(run),)).digest(CELL)
    assert digest == GpCritic(prior=[str(run)]).digest(CELL) == GpCritic(prior=str(run)).digest(CELL)
    assert digest != GpCritic(prior=[str(run), str(run)]).digest(CELL)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"first": 0}, "GpCritic's first must be a whole number of at least 1, got 0."),
        ({"moves": -1}, "GpCritic's moves must be a whole number of at least 0, got -1."),
        ({"prior": ""}, "GpCritic's prior must be run folders or addresses, got ''."),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        GpCritic(**arguments)
    assert str(caught.value) == sentence


def test_earlier_searches_that_are_none_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no-run has no study\.db: expected the folder of an earlier search"):
        GpCritic(prior=[str(tmp_path / "no-run")]).init(CELL, jax.random.key(0))
    with pytest.raises(InputError, match=r"shares no choice with this space: it has codes0, codes1"):
        GpCritic(prior=[str(run)]).init(TOY, jax.random.key(0))
    (tmp_path / "study.db").write_text("nothing of the kind")
    with pytest.raises(InputError, match=r"cannot be read as a study"):
        GpCritic(prior=[str(tmp_path)]).init(CELL, jax.random.key(0))
    optuna.create_study(storage=f"sqlite:///{tmp_path}/empty.db")
    with pytest.raises(InputError, match=r"prior=sqlite:///.*missing\.db names a file that does not exist\."):
        GpCritic(prior=[f"sqlite:///{tmp_path}/missing.db"]).init(CELL, jax.random.key(0))
    assert not (tmp_path / "missing.db").exists()
    with pytest.raises(InputError, match=r"has no trial that succeeded"):
        GpCritic(prior=[f"sqlite:///{tmp_path}/empty.db"]).init(CELL, jax.random.key(0))
