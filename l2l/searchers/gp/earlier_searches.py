"""What earlier searches tell a new one: their trials as points of its space, as far as the names agree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from l2l.encoding import Encoding
from l2l.errors import InputError
from l2l.pareto import sort_best_first
from l2l.space import Value

MOST = 128
"""Trials that are taken of earlier searches, of several evenly; a quarter are the best, the others spread over each."""
UNKNOWN = -1
"""The code of a decision that the earlier space had not, or of a value that the new one has not."""


class Earlier(NamedTuple):
    """A trial of an earlier search."""

    values: Mapping[str, Value]
    score: float
    """Larger is better, and comparable within its search alone."""


class Known(NamedTuple):
    """Trials of one earlier search as points of the new space."""

    codes: np.ndarray
    """[S, D]"""
    places: np.ndarray
    """[S, D]"""
    scores: np.ndarray
    """[S]"""


def known(place: str | Path, encoding: Encoding, most: int = MOST) -> Known:
    """What at most `most` trials of the search in a run folder or an Optuna storage tell about the encoding's space.

    Raises: InputError if there is no such search, no trial of it has succeeded, or no name of a choice is shared.
    """
    trials = earlier(place)
    names = {decision.name for decision in encoding.decisions}
    if not any(names & set(trial.values) for trial in trials):
        offered = sorted({name for trial in trials for name in trial.values})
        raise InputError(
            f"prior={place} shares no choice with this space: it has {', '.join(offered[:8])}, and the space "
            f"{', '.join(sorted(names)[:8])}."
        )
    trials = _few(trials, most)
    codes = np.full((len(trials), len(encoding.decisions)), UNKNOWN, np.int32)
    places = np.zeros(codes.shape, np.float32)
    for row, trial in enumerate(trials):
        for column, decision in enumerate(encoding.decisions):
            try:
                value = decision.choice.read(trial.values[decision.name])
            except (KeyError, InputError):
                continue
            codes[row, column] = code = decision.code(value)
            places[row, column] = encoding.quantile(column, code, value)
    if not (codes >= 0).any():
        shared = ", ".join(sorted(names & {name for trial in trials for name in trial.values})[:8])
        raise InputError(f"prior={place} shares no value of a choice with this space, though both have {shared}.")
    return Known(codes, places, np.array([trial.score for trial in trials], np.float32))


def earlier(place: str | Path) -> list[Earlier]:
    """The trials of a finished search that have not failed, in their order.

    `place` is a run folder, or an Optuna storage's address with `#STUDY` if it holds several. Raises: InputError.
    """
    address, _, name = str(place).partition("#") if "://" in str(place) else (_address(Path(place)), "", "")
    if address.startswith("sqlite:///") and not Path(address.removeprefix("sqlite:///").split("?")[0]).is_file():
        raise InputError(f"prior={place} names a file that does not exist.")  # the driver would make an empty one
    try:
        names = [name] if name else optuna.get_all_study_names(address)
        if len(names) != 1:
            raise ValueError(f"it holds {len(names)} studies, name one as ADDRESS#STUDY")
        study = optuna.load_study(study_name=names[0], storage=address)
        trials = study.get_trials(deepcopy=False)
    except Exception as error:  # whatever the storage's driver raises
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise InputError(f"prior={place} cannot be read as a study ({reason}).") from error
    signs = [1 if each == StudyDirection.MAXIMIZE else -1 for each in study.directions]
    found: list[tuple[Mapping[str, Value], list[float]]] = []
    for trial in trials:
        values = trial.values if trial.state == TrialState.COMPLETE else None
        if trial.state == TrialState.PRUNED and len(signs) == 1 and trial.last_step is not None:
            values = [trial.intermediate_values[trial.last_step]]
        if values and all(map(math.isfinite, values)):
            found.append((trial.params, [sign * value for sign, value in zip(signs, values, strict=True)]))
    if not found:
        raise InputError(f"prior={place} has no trial that succeeded, so there is nothing to learn from it.")
    if len(signs) == 1:
        return [Earlier(values, score[0]) for values, score in found]
    order = sort_best_first([score for _, score in found])
    ranks = {row: -float(rank) for rank, row in enumerate(order)}
    return [Earlier(values, ranks[row]) for row, (values, _) in enumerate(found)]


def _address(run: Path) -> str:
    """The address of a run folder's study. Raises: InputError if there is none."""
    if not (run / "study.db").is_file():
        raise InputError(
            f"prior={run} has no study.db: expected the folder of an earlier search, or an Optuna storage's address "
            "such as sqlite:///FILE."
        )
    return f"sqlite:///{(run / 'study.db').resolve()}"


def _few(trials: Sequence[Earlier], most: int) -> list[Earlier]:
    """At most `most` of them: the best, and others evenly over the search."""
    if len(trials) <= most:
        return list(trials)
    order, best = sorted(range(len(trials)), key=lambda row: (-trials[row].score, row)), most // 4
    rest = sorted(order[best:])
    picks = [rest[int(place)] for place in np.linspace(0, len(rest) - 1, most - best)]
    return [trials[row] for row in sorted({*order[:best], *picks})]
