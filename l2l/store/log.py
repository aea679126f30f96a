"""The trials of one study, read once and then kept in step with the database by its only writer."""

from __future__ import annotations

import bisect
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from l2l.errors import InputError
from l2l.space import Candidate, Categorical, Choice, Integer, SearchSpace
from l2l.store.database import translate_errors
from l2l.store.optuna_tables import OptunaTables
from l2l.store.trial_json import (
    check_end,
    check_order,
    make_plain_candidate,
    read_outcome,
    read_trial,
    write_measurements,
    write_opening,
)
from l2l.types import Status, Trial

_STATES = {
    Status.RUNNING: TrialState.RUNNING,
    Status.COMPLETE: TrialState.COMPLETE,
    Status.FAILED: TrialState.FAIL,
    Status.PRUNED: TrialState.PRUNED,
}
_STATUSES = {state: status for status, state in _STATES.items()}


class StudyLog:
    """The trials of one Optuna study; see `l2l.types.TrialLog`.

    What it returns is what a later process will read: a searcher gets equal trials live and after a resume.
    """

    seconds: float = 0.0
    """Time spent in the store so far."""

    def __init__(self, storage: BaseStorage, study: int, space: SearchSpace[Any], objectives: int, label: str) -> None:
        self._storage, self._study, self._objectives, self._label = storage, study, objectives, label
        self._distributions = {name: _distribution(choice) for name, choice in space.choices.items()}
        self._trials = _read_trials(storage.get_all_trials(study, deepcopy=False), label)
        self._ended_count = sum(trial.status is not Status.RUNNING for trial in self._trials)
        self._ids: dict[int, int] = {}
        """By trial number: the id in the database."""
        self._tables: OptunaTables | None = None
        self._batches: list[list[Trial]] = []
        first = 0
        while first < len(self._trials):
            self._collect_batch(self._trials[first])
            first += self._trials[first].batch[1]

    def recall(self, name: str, value: int) -> int:
        """The number of this name that the study was begun with; `value`, stored now, if it has none."""
        attribute = f"l2l_{name}"
        with self._measure_seconds():
            attributes = self._storage.get_study_user_attrs(self._study)
            if attribute not in attributes:
                self._storage.set_study_user_attr(self._study, attribute, value)
        return int(attributes.get(attribute, value))

    def count(self) -> int:
        """How many trials have ended, in whatever way."""
        return self._ended_count

    def trials(self) -> list[Trial]:
        """All trials in number order."""
        return list(self._trials)

    def batches(self) -> list[list[Trial]]:
        """The batches all of whose trials have ended, in order: what a searcher is told."""
        return list(self._batches)

    def list_running(self) -> list[Trial]:
        """The trials to run, or to run again after a crash, in number order; none of a half-opened batch."""
        opened_count = self.next_batch(1)[0]  # of trials in batches that were opened as a whole
        return [trial for trial in self._trials[:opened_count] if trial.status is Status.RUNNING]

    def next_batch(self, size: int) -> tuple[int, int]:
        """First number and size of the batch to ask for: the half-opened one that a crash left, or a new one."""
        if self._trials:
            first, opened_size = self._trials[-1].batch
            if first + opened_size > len(self._trials):
                return first, opened_size
        return len(self._trials), size

    def open(self, candidates: Sequence[Candidate], cohorts: Sequence[Sequence[int]] | None = None) -> list[Trial]:
        """Opens a whole batch: one RUNNING trial a candidate, in one step that a crash cannot split.

        `cohorts` are, per candidate, the numbers of the trials that share its program (default: its own).
        Trials of a half-opened batch must have the same candidates and stay as they are.

        Raises: InputError if they have others. SearchError if the database fails.
        """
        first, size = self.next_batch(len(candidates))
        if size != len(candidates) or not size:
            raise ValueError(f"batch {first} has {size} candidates, got {len(candidates)}")
        groups = [(first + i,) for i in range(size)] if cohorts is None else [tuple(cohort) for cohort in cohorts]
        if len(groups) != size or any(first + i not in group for i, group in enumerate(groups)):
            raise ValueError(f"batch {first}: every candidate needs a cohort with its own number in it")
        trials = [
            Trial(first + i, make_plain_candidate(candidate, first + i), (first, size), group)
            for i, (candidate, group) in enumerate(zip(candidates, groups, strict=True))
        ]
        templates = [self._template(trial) for trial in trials]  # all of them, before anything is written
        for stored, trial in zip(self._trials[first:], trials, strict=False):
            if stored.candidate != trial.candidate:
                raise InputError(
                    f"{self._label}: the searcher no longer proposes what it proposed for trial {trial.number} before "
                    "the interruption (other code or another machine); choose another out= and start again."
                )
        stored_count = len(self._trials) - first
        with self._measure_seconds():
            ids = self._add(templates[stored_count:])
        self._ids |= dict(enumerate(ids, first + stored_count))
        self._trials += trials[stored_count:]
        return self._trials[first:]

    def close(self, trial: Trial) -> Trial:
        """Stores how a trial ended; returns it as stored.

        Raises: ValueError if it is not running or cannot end so. SearchError if the database fails.
        """
        if not 0 <= trial.number < len(self._trials):
            raise ValueError(f"there is no trial {trial.number}")
        check_end(self._trials[trial.number], trial, self._objectives)
        # Plus zero: SQLite keeps no negative zero.
        values = None if trial.reward is None else tuple(float(value) + 0.0 for value in trial.reward)
        with self._measure_seconds():
            measured = self._write(trial, values)
        stored = self._trials[trial.number] = replace(measured, status=trial.status, reward=values)
        self._ended_count += 1
        self._collect_batch(stored)
        return stored

    def reach(self, trial: Trial) -> Trial:
        """Stores what a running trial has measured at a rung; returns the trial as stored.

        Raises: ValueError if it is not running or has no scores. SearchError if the database fails.
        """
        if self._trials[trial.number].status is not Status.RUNNING or not trial.scores:
            raise ValueError(f"trial {trial.number} is at no rung")
        with self._measure_seconds():
            stored = self._trials[trial.number] = self._write(trial)
        return stored

    def _add(self, templates: Sequence[FrozenTrial]) -> list[int]:
        if (tables := self._find_tables()) is not None:
            return tables.open(self._study, templates)
        return [self._storage.create_new_trial(self._study, template) for template in templates]

    def _write(self, trial: Trial, values: Sequence[float] | None = None) -> Trial:
        """Writes the outcome, the scores as Optuna's intermediate values, and how the trial ended if it has."""
        trial_id, outcome, opened = self._id(trial.number), write_measurements(trial), self._trials[trial.number]
        attributes = {"outcome": outcome}
        if trial.cohort != opened.cohort:  # it needed a program of fewer lanes
            opened = replace(opened, cohort=trial.cohort)
            attributes["trial"] = write_opening(opened)
        scores = {int(epoch): tuple(float(value) + 0.0 for value in score) for epoch, score in trial.scores.items()}
        steps, state = {epoch: score[0] for epoch, score in scores.items()}, _STATES[trial.status]
        if (tables := self._find_tables()) is not None:
            tables.write(trial_id, attributes, steps, state, values or ())
        else:
            for name, value in attributes.items():
                self._storage.set_trial_user_attr(trial_id, name, value)
            for step, value in steps.items():
                self._storage.set_trial_intermediate_value(trial_id, step, value)
            if state is not TrialState.RUNNING:
                self._storage.set_trial_state_values(trial_id, state, values)
        return replace(opened, outcome=read_outcome(outcome), scores=scores)

    def _find_tables(self) -> OptunaTables | None:
        """Optuna's SQL tables; None in memory, and where their version is unknown here."""
        if self._tables is None:
            self._tables = OptunaTables.of(self._storage)
        return self._tables

    def _id(self, number: int) -> int:
        if number not in self._ids:  # opened by an earlier process
            self._ids[number] = self._storage.get_trial_id_from_study_id_trial_number(self._study, number)
        return self._ids[number]

    def _collect_batch(self, trial: Trial) -> None:
        first, size = trial.batch
        batch = self._trials[first : first + size]
        if len(batch) == size and all(member.status is not Status.RUNNING for member in batch):
            bisect.insort(self._batches, batch, key=lambda trials: trials[0].number)

    def _template(self, trial: Trial) -> FrozenTrial:
        values = trial.candidate.values
        for name in values:
            if name not in self._distributions:
                raise ValueError(f"candidate {trial.number} has an unknown choice {name!r}")
        return FrozenTrial(
            number=trial.number,
            trial_id=-1,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=datetime.now(),
            datetime_complete=None,
            params=dict(values),
            distributions={name: self._distributions[name] for name in values},
            # This is what is read back: Optuna's columns confuse 1 with True and round integers above 2**53.
            user_attrs={"trial": write_opening(trial)},
            system_attrs={},
            intermediate_values={},
        )

    @contextmanager
    def _measure_seconds(self) -> Generator[None]:
        started = time.perf_counter()
        try:
            with translate_errors(self._label):
                yield
        finally:
            self.seconds += time.perf_counter() - started


def _distribution(choice: Choice) -> BaseDistribution:
    if isinstance(choice, Categorical):
        return CategoricalDistribution(choice.options)
    if isinstance(choice, Integer):
        return IntDistribution(choice.low, choice.high, log=choice.log, step=choice.step)
    return FloatDistribution(choice.low, choice.high, log=choice.log)


def _read_trials(stored: Sequence[FrozenTrial], label: str) -> list[Trial]:
    """The stored trials in number order. Raises: InputError if they are not what this store writes."""
    trials: list[Trial] = []
    for frozen in sorted(stored, key=lambda frozen: frozen.number):
        try:
            steps = frozen.intermediate_values
            trials.append(read_trial(frozen.number, _STATUSES[frozen.state], frozen.user_attrs, frozen.values, steps))
            check_order(trials)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{label}: trial {frozen.number} was changed, was not written by l2l, or one before it is missing; "
                "restore the study from a copy or choose another out=."
            ) from error
    return trials
