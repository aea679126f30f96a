"""Reads the trials of an earlier search from its run folder or from an Optuna storage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from l2l.errors import InputError, flatten_message
from l2l.pareto import sort_best_first
from l2l.space import Value


class EarlierTrial(NamedTuple):
    """A successful trial of an earlier search."""

    values: Mapping[str, Value]
    score: float
    """Larger is better; comparable within one search only."""


def read_trials(location: str | Path) -> list[EarlierTrial]:
    """The trials of a finished search that have not failed, in their order.

    `location` is a run folder, or an Optuna storage's address, with `#STUDY` if it holds several studies. Raises:
    InputError.
    """
    directions, trials = _load_study(location)
    signs = [1 if direction == StudyDirection.MAXIMIZE else -1 for direction in directions]
    parameters: list[Mapping[str, Value]] = []
    rewards: list[list[float]] = []
    for trial in trials:
        values = _read_values(trial, len(signs))
        if values and all(map(math.isfinite, values)):
            parameters.append(trial.params)
            rewards.append([sign * value for sign, value in zip(signs, values, strict=True)])
    if not rewards:
        raise InputError(f"prior={location} has no trial that succeeded, so there is nothing to learn from it.")
    if len(signs) == 1:
        scores = [reward[0] for reward in rewards]
    else:
        ranks = {index: rank for rank, index in enumerate(sort_best_first(rewards))}
        scores = [-float(ranks[index]) for index in range(len(rewards))]
    return [EarlierTrial(values, score) for values, score in zip(parameters, scores, strict=True)]


def _load_study(location: str | Path) -> tuple[Sequence[StudyDirection], Sequence[FrozenTrial]]:
    """The directions and the trials of the study at a location. Raises: InputError."""
    address, _, name = str(location).partition("#")
    if "://" not in str(location):
        address, name = _find_address(Path(location)), ""
    if address.startswith("sqlite:///") and not Path(address.removeprefix("sqlite:///").split("?")[0]).is_file():
        raise InputError(f"prior={location} names a file that does not exist.")  # SQLite would create an empty one
    try:
        names = [name] if name else optuna.get_all_study_names(address)
        if len(names) != 1:
            raise ValueError(f"it holds {len(names)} studies, name one as ADDRESS#STUDY")
        study = optuna.load_study(study_name=names[0], storage=address)
        return study.directions, study.get_trials(deepcopy=False)
    except Exception as error:  # whatever the storage's driver raises
        reason = flatten_message(error)[:200].rstrip(".") or type(error).__name__
        raise InputError(f"prior={location} cannot be read as a study ({reason}).") from error


def _find_address(folder: Path) -> str:
    """The address of the study in a run folder. Raises: InputError if there is none."""
    if not (folder / "study.db").is_file():
        raise InputError(
            f"prior={folder} has no study.db: expected the folder of an earlier search, or an Optuna storage's "
            "address such as sqlite:///FILE."
        )
    return f"sqlite:///{(folder / 'study.db').resolve()}"


def _read_values(trial: FrozenTrial, objectives: int) -> list[float] | None:
    """The objective values of a trial; of a pruned one its last score, if there is one objective."""
    if trial.state == TrialState.COMPLETE:
        return trial.values
    if trial.state == TrialState.PRUNED and objectives == 1 and trial.last_step is not None:
        return [trial.intermediate_values[trial.last_step]]
    return None
