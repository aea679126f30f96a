"""A trial as JSON in the database, and the checks of what is read back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from l2l.space import Candidate
from l2l.types import Outcome, Status, Trial


def make_plain_candidate(candidate: Candidate, number: int) -> Candidate:
    """The candidate as it will be read back. Raises: ValueError if it is not made of JSON values."""
    try:
        return Candidate(
            json.loads(json.dumps(dict(candidate.values))), json.loads(json.dumps(dict(candidate.metadata)))
        )
    except TypeError as error:
        raise ValueError(f"the values and the metadata of candidate {number} must be JSON values: {error}") from error


def _write_number(value: float) -> float | str:
    """A number that every JSON reader accepts; `float` reads it back."""
    value = float(value)
    return value if math.isfinite(value) else repr(value)


def write_opening(trial: Trial) -> dict[str, Any]:
    """A trial before it runs, as JSON values."""
    return {
        "values": dict(trial.candidate.values),
        "note": dict(trial.candidate.metadata),  # so named in studies that are stored already
        "batch": list(trial.batch),
        "cohort": list(trial.cohort),
    }


def write_outcome(outcome: Outcome) -> dict[str, Any]:
    """The outcome as JSON values."""
    return {
        "metrics": {name: _write_number(value) for name, value in outcome.metrics.items()},
        "seconds": {name: _write_number(value) for name, value in outcome.seconds.items()},
        "curve": {name: [_write_number(value) for value in values] for name, values in outcome.curve.items()},
        "error": outcome.error,
    }


def read_outcome(record: Mapping[str, Any]) -> Outcome:
    """The outcome that `write_outcome` wrote."""
    return Outcome(
        metrics={name: float(value) for name, value in record["metrics"].items()},
        seconds={name: float(value) for name, value in record["seconds"].items()},
        curve={name: [float(value) for value in values] for name, values in record["curve"].items()},
        error=record["error"],
    )


def write_measurements(trial: Trial) -> dict[str, Any]:
    """What a trial has measured, as JSON values; with its scores if they have more than one number."""
    record = write_outcome(trial.outcome or Outcome())
    if any(len(score) > 1 for score in trial.scores.values()):
        record["scores"] = [[epoch, *score] for epoch, score in trial.scores.items()]
    return record


def read_trial(
    number: int,
    status: Status,
    attributes: Mapping[str, Any],
    reward: Sequence[float] | None,
    steps: Mapping[int, float] = {},
) -> Trial:
    """A trial from its stored attributes; `steps` are the first numbers of its scores by epoch.

    Raises: KeyError, TypeError or ValueError if l2l did not write them.
    """
    opened = attributes["trial"]
    first, size = opened["batch"]
    candidate = Candidate(opened["values"], opened["note"])
    trial = Trial(number, candidate, (first, size), tuple(opened["cohort"]), status)
    if status is Status.RUNNING and not steps:  # its outcome, if any, is of a run whose end was never stored
        return trial
    values = tuple(reward or ()) if status is Status.COMPLETE or (status is Status.PRUNED and reward) else None
    scores = {int(epoch): (float(value),) for epoch, value in sorted(steps.items())}
    scores |= {int(epoch): tuple(map(float, score)) for epoch, *score in attributes["outcome"].get("scores", ())}
    return replace(trial, outcome=read_outcome(attributes["outcome"]), reward=values, scores=scores)


def check_order(trials: Sequence[Trial]) -> None:
    """Raises: ValueError if the last trial does not follow the one before it, in number and in batch."""
    last, before = trials[-1], trials[-2] if len(trials) > 1 else None
    # A batch begins where the one before it ends, and all its trials agree on it.
    begins = len(trials) - 1 == (sum(before.batch) if before else 0)
    agrees = last.batch[0] == last.number if begins else before is not None and last.batch == before.batch
    if last.number != len(trials) - 1 or last.batch[1] < 1 or not agrees:
        raise ValueError(f"trial {last.number} is out of order")


def check_end(opened: Trial, ended: Trial, objectives: int) -> None:
    """Raises: ValueError if `ended` is not a way in which the running trial `opened` can end."""
    number = opened.number
    if opened.status is not Status.RUNNING:
        raise ValueError(f"trial {number} is {opened.status} already")
    if opened.candidate != ended.candidate:
        raise ValueError(f"trial {number} was opened with another candidate")
    if number not in ended.cohort or not set(ended.cohort) <= set(opened.cohort):
        raise ValueError(f"trial {number} was opened in another cohort")
    if ended.status is Status.RUNNING:
        raise ValueError(f"trial {number} has not ended")
    if ended.status is not Status.COMPLETE and ended.reward is None:
        return
    if ended.status is Status.FAILED:
        raise ValueError(f"trial {number} is {ended.status}, so it has no reward")
    if ended.reward is None or len(ended.reward) != objectives or not all(map(math.isfinite, ended.reward)):
        raise ValueError(f"trial {number} needs {objectives} finite rewards, got {ended.reward!r}")
