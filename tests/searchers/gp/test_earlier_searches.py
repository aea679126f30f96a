"""Earlier searches: which of their trials are taken, how they become points of a new space, and bad input."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import optuna
import pytest

from l2l.encoding import Encoding
from l2l.errors import InputError
from l2l.searchers.gp.earlier_searches import encode_search
from l2l.searchers.gp.gp_critic import GpCritic
from l2l.space import Categorical, Integer, Real, SearchSpace
from l2l.testing import TOY

CELL = SearchSpace({f"codes{n}": Categorical(options=tuple(range(4))) for n in range(4)}, lambda values, spec: None)


def test_of_a_long_search_the_best_trials_and_some_others_are_taken(earlier_run: Path) -> None:
    everything, few = encode_search(earlier_run, Encoding(CELL)), encode_search(earlier_run, Encoding(CELL), 16)
    assert (len(everything.scores), len(few.scores)) == (60, 16)
    best = np.sort(everything.scores)[::-1]
    assert np.sort(few.scores)[::-1][:4].tolist() == best[:4].tolist()
    assert few.scores.min() < np.median(everything.scores)


def test_names_and_values_that_agree_are_taken_over(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/other.db"
    study = optuna.create_study(storage=storage, direction="minimize", study_name="one")
    for rate in (0.1, 0.01, 5.0):
        trial = study.ask()
        trial.suggest_float("rate", 1e-3, 10, log=True)
        trial.suggest_categorical("kind", ["a", "b", "z"])
        study.tell(trial, rate)
    optuna.create_study(storage=storage, study_name="two")
    space = SearchSpace(
        {
            "rate": Real(low=1e-3, high=10, log=True),
            "kind": Categorical(options=("a", "b")),
            "new": Integer(low=1, high=3),
        },
        lambda values, spec: None,
    )
    trials = encode_search(f"{storage}#one", Encoding(space))
    kinds = [trial.params["kind"] for trial in study.trials]
    assert (trials.codes[:, 2] == -1).all()
    assert [code == -1 for code in trials.codes[:, 1]] == [kind == "z" for kind in kinds]
    assert (trials.codes[:, 0] >= 0).all()
    np.testing.assert_allclose(trials.scores, [-0.1, -0.01, -5.0])
    searcher = GpCritic(first=4, prior=[f"{storage}#one"])
    candidates = searcher.ask(searcher.init(space, jax.random.key(0)), jax.random.key(1), 3)
    assert all(space.candidate(candidate.values) == candidate for candidate in candidates)


def test_of_several_objectives_the_better_front_scores_higher(tmp_path: Path) -> None:
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/two.db", directions=["maximize", "minimize"])
    for values in ((1.0, 5.0), (3.0, 1.0), (2.0, 2.0)):
        trial = study.ask()
        trial.suggest_categorical("codes0", list(range(4)))
        study.tell(trial, values)
    assert encode_search(f"sqlite:///{tmp_path}/two.db", Encoding(CELL)).scores.tolist() == [-2, 0, -1]


def test_a_study_is_to_be_named_where_there_are_several(tmp_path: Path) -> None:
    for name in ("one", "two"):
        optuna.create_study(storage=f"sqlite:///{tmp_path}/both.db", study_name=name)
    with pytest.raises(InputError, match=r"it holds 2 studies, name one as ADDRESS#STUDY"):
        GpCritic(prior=[f"sqlite:///{tmp_path}/both.db"]).init(CELL, jax.random.key(0))


def test_the_digest_covers_the_trials_of_earlier_searches(earlier_run: Path) -> None:
    assert GpCritic().digest(CELL) is None
    run = str(earlier_run)
    digest = GpCritic(prior=(run,)).digest(CELL)
    assert digest == GpCritic(prior=[run]).digest(CELL) == GpCritic(prior=run).digest(CELL)
    assert digest != GpCritic(prior=[run, run]).digest(CELL)


def test_invalid_earlier_searches_are_refused(earlier_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no-run has no study\.db: expected the folder of an earlier search"):
        GpCritic(prior=[str(tmp_path / "no-run")]).init(CELL, jax.random.key(0))
    with pytest.raises(InputError, match=r"shares no choice with this space: it has codes0, codes1"):
        GpCritic(prior=[str(earlier_run)]).init(TOY, jax.random.key(0))
    (tmp_path / "study.db").write_text("nothing of the kind")
    with pytest.raises(InputError, match=r"cannot be read as a study"):
        GpCritic(prior=[str(tmp_path)]).init(CELL, jax.random.key(0))
    optuna.create_study(storage=f"sqlite:///{tmp_path}/empty.db")
    with pytest.raises(InputError, match=r"prior=sqlite:///.*missing\.db names a file that does not exist\."):
        GpCritic(prior=[f"sqlite:///{tmp_path}/missing.db"]).init(CELL, jax.random.key(0))
    assert not (tmp_path / "missing.db").exists()
    with pytest.raises(InputError, match=r"has no trial that succeeded"):
        GpCritic(prior=[f"sqlite:///{tmp_path}/empty.db"]).init(CELL, jax.random.key(0))
