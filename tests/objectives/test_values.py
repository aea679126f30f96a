"""What a user's model does with a traced value never mixes up the lanes, and the exported model scores the same."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from l2l.engine.evaluate import evaluate
from l2l.export.module import load
from l2l.objectives.final import Final
from l2l.objectives.trained import Trained
from l2l.space import Real, SearchSpace
from l2l.tasks.digits import Digits
from l2l.types import Learner, Outcome, Status, Trial

TASK = Digits(epochs=1)


class Scaled(nnx.Module):
    """A linear model whose output is scaled by `use` of the traced value."""

    def __init__(self, size: int, outputs: int, scale: Any, rngs: nnx.Rngs) -> None:
        self.linear = nnx.Linear(size, outputs, rngs=rngs)
        self.scale = scale

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.linear(x.reshape(len(x), -1))
        return self.scale(y) if inspect.isfunction(self.scale) else self.scale * y


def make_space(use: Callable[[Any], Any]) -> SearchSpace[Learner]:
    """A space of one traced choice."""

    def build(values: Any, spec: Any) -> Learner:
        size = math.prod(spec.inputs)
        return Learner(lambda rngs: Scaled(size, spec.outputs, use(values["scale"]), rngs), optax.sgd(0.1), 128)

    return SearchSpace({"scale": Real(low=0.01, high=1.0)}, build, "custom")


USES = {
    "as an array": lambda value: value,
    "as a number": float,
    "in a closure": lambda value: lambda y: value * y,
    "in a branch": lambda value: 0.2 if value < 0.3 else 0.7,
    "in a variable": lambda value: nnx.Variable(jax.numpy.asarray(value, jax.numpy.float32)),
}


def make_trials(space: SearchSpace[Learner], numbers: tuple[int, ...], cohort: tuple[int, ...]) -> list[Trial]:
    scales = {0: 0.01, 1: 0.5, 2: 0.9}
    return [Trial(n, space.candidate({"scale": scales[n]}), (0, 3), cohort) for n in numbers]


@pytest.mark.parametrize("use", USES)
def test_a_lane_has_its_own_value_however_the_model_keeps_it(use: str, tmp_path: Path) -> None:
    space = make_space(USES[use])
    objective = Trained(space, TASK)
    together = list(objective(make_trials(space, (0, 1, 2), (0, 1, 2))))
    assert [trial.outcome and trial.outcome.error for trial in together] == [None] * 3
    losses = [(trial.outcome or Outcome()).metrics["loss"] for trial in together]
    for n, loss in enumerate(losses):
        # Alone in a fresh process, as the same candidate and, after a crash, as what is left of the cohort.
        (alone,) = Trained(space, TASK)(make_trials(space, (n,), (n,)))
        np.testing.assert_allclose((alone.outcome or Outcome()).metrics["loss"], loss, rtol=1e-5)
        (again,) = Trained(space, TASK)(make_trials(space, (n,), (0, 1, 2)))
        assert (again.outcome or Outcome()).metrics["loss"] == loss
    if use != "in a branch":
        assert len(set(losses)) == 3


@pytest.mark.parametrize("use", USES)
def test_the_export_scores_what_the_trial_scored(use: str, tmp_path: Path) -> None:
    space = make_space(USES[use])
    objective = Trained(space, TASK)
    (trial,) = objective(make_trials(space, (1,), (0, 1, 2)))
    winner = Trial(1, trial.candidate, (0, 3), (0, 1, 2), Status.COMPLETE, trial.outcome, (1.0,))
    (ended,) = Final(objective, tmp_path / "best", seeds=1)([winner])
    scores, accuracy = (ended.outcome or Outcome()).metrics, (trial.outcome or Outcome()).metrics["accuracy"]
    assert scores["validation"] == scores["loaded"] == accuracy
    assert evaluate(load(tmp_path / "best", space=space), TASK)["accuracy"] == accuracy
