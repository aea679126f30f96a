"""The end of a search: the winner's run repeats bit for bit, and what is handed over scores what its trial scored."""

from __future__ import annotations

import importlib
import json
import random
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx

import l2l
from l2l.executors.inline import Inline
from l2l.objectives.final import Final
from l2l.objectives.trained import Trained
from l2l.searchers.random_search import Random
from l2l.space import Candidate, SearchSpace
from l2l.tasks.digits import Digits
from l2l.types import Outcome, Trial
from search_spaces import mlp

TASK = Digits(epochs=1)
SPACE = mlp.space(depth=(1, 1), widths=(8,), batch_sizes=(128,), optimizers=("adamw",))
FILES = {"architecture.json", "weights.safetensors", "MODEL.md", "SHA256SUMS"}
MY_SPACE = """
import optax
from flax import nnx
from l2l.space import Categorical, Real, SearchSpace
from l2l.types import Learner


class Net(nnx.Module):
    def __init__(self, values, spec, rngs):
        self.hidden = nnx.Linear(64, values["width"], rngs=rngs)
        self.norm = nnx.BatchNorm(values["width"], rngs=rngs)
        self.drop = nnx.Dropout(values["rate"], rngs=rngs)
        self.head = nnx.Linear(values["width"], spec.outputs, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.hidden(x.reshape(len(x), -1))))
        return self.head(self.drop(x))


def build(values, spec):
    return Learner(lambda rngs: Net(values, spec, rngs), optax.adam(values["learning_rate"]), batch_size=128)


def space(widths=(8,)):
    choices = {
        "width": Categorical(options=widths),
        "rate": Real(low=0, high=0.5),
        "learning_rate": Real(low=1e-3, high=1e-1, log=True),
    }
    return SearchSpace(choices, build, name="mine")
"""


def batch(count: int) -> list[Trial]:
    """A batch that is one cohort: its candidates differ in traced values."""
    first = SPACE.sample(random.Random(0))
    fixed = SPACE.select_static(first)

    def draw(seed: int) -> Candidate:
        numbers = random.Random(seed)
        return SPACE.complete(lambda name, choice: fixed.get(name, choice.value_at(numbers.random())))

    numbers = tuple(range(count))
    return [Trial(n, draw(n), (0, count), numbers) for n in numbers]


def metrics(trial: Trial) -> dict[str, float]:
    assert trial.outcome is not None
    assert trial.outcome.error is None
    return dict(trial.outcome.metrics)


@pytest.mark.exact
@pytest.mark.parametrize("lanes", [1, 2])
def test_the_winners_run_repeats_bit_for_bit(tmp_path: Path, lanes: int) -> None:
    objective = Trained(SPACE, TASK, seed=3, lanes=lanes)
    ran = list(objective(batch(3)))
    for winner in (ran[0], ran[2]):
        (ended,) = Final(Trained(SPACE, TASK, seed=3, lanes=lanes), tmp_path / "best", seeds=2)([winner])
        scores = metrics(ended)
        assert scores["validation"] == metrics(winner)["accuracy"] == scores["loaded"]
        assert set(scores) == {"validation", "loaded", "test", "test_seed_0", "test_seed_1"}
        loaded = l2l.load(tmp_path / "best")
        assert l2l.evaluate(loaded, TASK, "test")["accuracy"] == scores["test"]
        loss = l2l.evaluate(loaded, TASK, "validation")["loss"]
        assert loss == pytest.approx(metrics(winner)["loss"], rel=1e-5)
        assert ended.outcome is not None
        assert set(ended.outcome.seconds) == {"trace", "compile", "train", "evaluate"}
    assert {path.name for path in (tmp_path / "best").iterdir()} == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


@pytest.mark.exact
def test_further_seeds_are_other_trainings(tmp_path: Path) -> None:
    (trial,) = Trained(SPACE, Digits(epochs=3))(batch(1))
    final = Final(Trained(SPACE, Digits(epochs=3)), tmp_path / "best", seeds=3)
    scores = metrics(next(final([trial])))
    again = metrics(next(final([trial])))
    assert scores == again
    assert len({scores["test"], *(scores[f"test_seed_{seed}"] for seed in range(3))}) > 1


def test_the_card_says_what_was_measured_and_how_to_load(tmp_path: Path) -> None:
    (trial,) = Trained(SPACE, TASK)(batch(1))
    scores = metrics(next(Final(Trained(SPACE, TASK), tmp_path / "best", seeds=0)([trial])))
    card = (tmp_path / "best/MODEL.md").read_text()
    for words in (
        "# mlp for digits",
        "trial 0 of a search with seed 0",
        f"| test, this model | {scores['test']:.4f} |",
        "retrained under 0 other seeds | not measured |",
        'model = l2l.load("best")',
        "[B, 8, 8, 1]; logits [B, 10]",
        *(f"| {name} | {value} |" for name, value in trial.candidate.values.items()),
    ):
        assert words in card
    architecture = json.loads((tmp_path / "best/architecture.json").read_text())
    assert architecture["values"] == dict(trial.candidate.values)
    assert (architecture["examples"], architecture["epochs"]) == (1077, 1)


@pytest.mark.parametrize("seeds", [-1, 1.0, True, None])
def test_bad_seeds(tmp_path: Path, seeds: Any) -> None:
    with pytest.raises(l2l.InputError, match=r"^final\.seeds must be an integer of at least 0, got .*\.$"):
        Final(Trained(SPACE, TASK), tmp_path / "best", seeds=seeds)


def test_a_final_run_that_fails_leaves_the_earlier_model(tmp_path: Path) -> None:
    (trial,) = Trained(SPACE, TASK)(batch(1))
    final = Final(Trained(SPACE, TASK), tmp_path / "best", seeds=0)
    list(final([trial]))
    before = {path.name: path.read_bytes() for path in (tmp_path / "best").iterdir()}
    broken = replace(trial, candidate=Candidate({**trial.candidate.values, "optimizer": "newton"}))
    with pytest.raises(KeyError, match="newton"):
        list(final([broken]))
    assert {path.name: path.read_bytes() for path in (tmp_path / "best").iterdir()} == before


def test_a_users_space_with_a_built_in_name_is_told_apart(tmp_path: Path) -> None:
    space = SearchSpace(SPACE.choices, lambda values, spec: mlp.build(values, spec), "mlp")
    (trial,) = Trained(space, TASK)(batch(1))
    list(Final(Trained(space, TASK), tmp_path / "best", seeds=0)([trial]))
    assert "space=my_space.space()" in (tmp_path / "best/MODEL.md").read_text()
    with pytest.raises(l2l.InputError, match=r"the space 'mlp \(own\)', which is not built in"):
        l2l.load(tmp_path / "best")


@pytest.mark.exact
def test_a_users_own_space_is_handed_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "my_space.py").write_text(MY_SPACE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "my_space", raising=False)
    mine = importlib.import_module("my_space")
    options: dict[str, Any] = {"executor": Inline(), "tracker": {}, "trials": 2, "batch": 2, "out": folder / "run"}
    result = l2l.search(mine.space(), TASK, Random(), final=partial(Final, seeds=0), **options)
    assert result.record.test.reproduced is True
    assert result.best is not None
    model: Any = l2l.load(folder / "run/best", space=mine.space())
    scores, metrics = l2l.evaluate(model, TASK), (result.best.outcome or Outcome()).metrics
    assert scores["accuracy"] == metrics["accuracy"]
    assert scores["loss"] == pytest.approx(metrics["loss"], rel=1e-6)  # another program has summed it
    np.testing.assert_array_equal(model(TASK.load("test")[0][:4].astype(np.uint8)).shape, (4, 10))
    assert type(model.model.drop) is nnx.Dropout
    assert model.model.drop.rate == result.best.candidate.values["rate"]

    with pytest.raises(l2l.InputError, match=r"the space 'mine', which is not built in; pass your own: l2l\.load"):
        l2l.load(folder / "run/best")
    with pytest.raises(l2l.InputError, match=r"does not fit the given space: .*'width': expected one of \[16\], got 8"):
        l2l.load(folder / "run/best", space=mine.space(widths=(16,)))
    assert "space=my_space.space()" in (folder / "run/best/MODEL.md").read_text()
