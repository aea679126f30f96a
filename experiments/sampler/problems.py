"""What is searched: two conditional toys and three recipes on data that scikit-learn brings; all are maximised.

A recipe's continuous numbers are rounded to a fine grid, and what was scored once is looked up: samplers that come to
the same place get the same score at no cost.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import optuna
from sklearn.datasets import load_diabetes, load_digits
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

EXAMPLES = 600
"""Of the digits, so that a score takes a tenth of a second."""


def optimizers(trial: optuna.Trial) -> float:
    """A rate for all, and for each optimizer numbers of its own; the one that looks worst at first is the best."""
    rate = math.log10(trial.suggest_float("rate", 1e-5, 1, log=True))
    kind = trial.suggest_categorical("optimizer", ["sgd", "adam", "rmsprop"])
    if kind == "sgd":
        momentum = trial.suggest_float("momentum", 0, 1)
        return -((rate + 1) ** 2) - 20 * (momentum - 0.9) ** 2 - 0.2 * trial.suggest_categorical("nesterov", [0, 1])
    if kind == "adam":
        low = trial.suggest_float("gap", 1e-4, 1, log=True)
        return -0.5 - (rate + 3) ** 2 - 0.5 * (math.log10(low) + 2) ** 2
    return -1 - (rate + 2) ** 2


def layers(trial: optuna.Trial) -> float:
    """As many widths as there are layers, each with a best value that depends on where it stands."""
    count = trial.suggest_int("layers", 1, 4)
    loss = 0.3 * (count - 3) ** 2
    for layer in range(count):
        width = math.log2(trial.suggest_int(f"width{layer}", 4, 256, log=True))
        loss += (width - 7 + layer) ** 2 / 8
    if trial.suggest_categorical("dropped", [True, False]):
        return -loss - (trial.suggest_float("dropout", 0, 0.9) - 0.2) ** 2
    return -loss - 0.25


def svc(trial: optuna.Trial) -> float:
    """A support vector machine on digits."""
    kernel = trial.suggest_categorical("kernel", ["linear", "rbf", "poly", "sigmoid"])
    c = _round_to_grid(trial.suggest_float("C", 1e-3, 1e3, log=True))
    gamma = _round_to_grid(trial.suggest_float("gamma", 1e-6, 1e-1, log=True)) if kernel != "linear" else 1.0
    degree = trial.suggest_int("degree", 2, 5) if kernel == "poly" else 3
    return _score("svc", kernel=kernel, C=c, gamma=gamma, degree=degree)


def sgd(trial: optuna.Trial) -> float:
    """A linear classifier of digits by stochastic gradients."""
    settings: dict[str, Any] = {
        "loss": trial.suggest_categorical("loss", ["hinge", "log_loss", "modified_huber", "perceptron"]),
        "penalty": trial.suggest_categorical("penalty", ["l2", "l1", "elasticnet"]),
        "alpha": _round_to_grid(trial.suggest_float("alpha", 1e-7, 1, log=True)),
        "learning_rate": trial.suggest_categorical("schedule", ["optimal", "constant", "invscaling", "adaptive"]),
    }
    if settings["penalty"] == "elasticnet":
        settings["l1_ratio"] = round(trial.suggest_float("l1_ratio", 0, 1), 1)
    if settings["learning_rate"] != "optimal":
        settings["eta0"] = _round_to_grid(trial.suggest_float("eta0", 1e-5, 10, log=True))
    if settings["learning_rate"] == "invscaling":
        settings["power_t"] = round(trial.suggest_float("power_t", 0.1, 0.9), 1)
    return _score("sgd", **settings)


def boosting(trial: optuna.Trial) -> float:
    """Boosted trees on the diabetes data; nothing is conditional."""
    return _score(
        "boosting",
        n_estimators=trial.suggest_int("trees", 10, 150, step=10),
        learning_rate=_round_to_grid(trial.suggest_float("rate", 1e-3, 1, log=True)),
        max_depth=trial.suggest_int("depth", 1, 6),
        min_samples_leaf=trial.suggest_int("leaf", 1, 64, log=True),
        subsample=trial.suggest_float("subsample", 0.3, 1, step=0.1),
    )


PROBLEMS: dict[str, Callable[[optuna.Trial], float]] = {
    problem.__name__: problem for problem in (optimizers, layers, svc, sgd, boosting)
}


def _round_to_grid(number: float) -> float:
    """The nearest of eight numbers to a decade."""
    return 10 ** (round(8 * math.log10(number)) / 8)


@functools.cache
def _score(kind: str, **settings: Any) -> float:
    """Mean accuracy (of `boosting`: coefficient of determination) of three folds."""
    if kind == "boosting":
        data = load_diabetes(return_X_y=True)
        return float(cross_val_score(GradientBoostingRegressor(random_state=0, **settings), *data, cv=3).mean())
    inputs, targets = (array[:EXAMPLES] for array in load_digits(return_X_y=True))
    estimator = SVC(**settings) if kind == "svc" else SGDClassifier(max_iter=15, random_state=0, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fifteen epochs are the budget
        warnings.simplefilter("ignore", RuntimeWarning)  # a rate that is too large scores like chance
        model = make_pipeline(StandardScaler(), estimator)
        return float(cross_val_score(model, inputs, targets, cv=3, error_score=0.0).mean())
