"""The one trial database: an Optuna study that holds what was asked and what came of it."""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
import sqlalchemy.exc
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from l2l.errors import InputError, SearchError
from l2l.files import exclusive
from l2l.space import Candidate, Categorical, Choice, Integer, SearchSpace
from l2l.store import fingerprint
from l2l.store.optuna_tables import Tables
from l2l.store.sqlite import check_database, connect
from l2l.store.trial_json import (
    check_end,
    check_place,
    measured_json,
    opened_json,
    plain_candidate,
    read_outcome,
    read_trial,
)
from l2l.types import Status, Trial

_STATES = {
    Status.RUNNING: TrialState.RUNNING,
    Status.COMPLETE: TrialState.COMPLETE,
    Status.FAILED: TrialState.FAIL,
    Status.PRUNED: TrialState.PRUNED,
}
_STATUSES = {state: status for status, state in _STATES.items()}
_ATTRIBUTE = "l2l"
"""Study attribute that holds the fingerprint."""
_TABLES = {"studies", "trials", "version_info", "alembic_version"}
"""Tables by which a file is known as Optuna's; the last one is filled last."""


@dataclass(frozen=True)
class Store:
    """Where trials are kept: `url=None` is `study.db` in the run folder, "memory" keeps nothing.

    Any other value is the address of a database that Optuna can use (`postgresql+psycopg://…`).

    Raises: InputError if `url` is none of these.
    """

    url: str | None = None

    def __post_init__(self) -> None:
        if self.url is None or self.url == "memory":
            return
        try:
            address = sqlalchemy.make_url(self.url)
            address.get_dialect()
        except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError, TypeError, ValueError):
            raise InputError(
                "store.url must be null, 'memory' or a database's address such as postgresql+psycopg://host/name; "
                "Optuna's journal files and Redis are not among them, because a torn last line ends a journal."
            ) from None
        if address.get_backend_name() == "sqlite" and address.database in (None, "", ":memory:"):
            raise InputError("store.url names a database that dies with the search; for that, use store.url=memory.")

    @contextmanager
    def attach(
        self,
        directory: Path,
        space: SearchSpace[Any],
        settings: Mapping[str, Any],
        *,
        objectives: int = 1,
        name: str = "l2l",
        begin: Callable[[], None] = lambda: None,
    ) -> Generator[TrialLog]:
        """The trials of the search in `directory`, for one driver at a time; a new study if there is none.

        `settings` are what the history depends on (seed, searcher, task), as JSON values by name.
        `name` tells studies of one server apart; that no other machine drives the same one
        is up to its users. In memory there is neither lock nor file. `begin` is called before a new study is
        made, when this driver holds the lock and nothing has been written; what it raises ends the attempt.

        Raises: InputError if another driver holds the study, it was made with other settings or is no study
            of ours; nothing is written then. SearchError if the database fails later.
        """
        started = time.perf_counter()
        wanted = fingerprint.record(settings, space, objectives)
        file, place = self._place(directory)
        with ExitStack() as stack:
            if self.url != "memory":
                stack.enter_context(exclusive(directory / "lock"))
            if self.url is not None and file is not None:  # other folders can name the same file
                stack.enter_context(exclusive(file.with_name(f"{file.name}.lock")))
            found = None
            if file is not None and check_database(file, _TABLES, last="alembic_version"):
                # Looked at first through a connection that cannot write.
                with _database(file, place, readonly=True) as storage:
                    found = _find(storage, None if self.url is None else name, wanted, place)
            if file is not None and found is None:
                begin()  # before the file is made; another kind of database can only be looked at from within
            storage: BaseStorage = InMemoryStorage()
            if self.url != "memory":
                storage = stack.enter_context(_database(file or str(self.url), place))
            with _writing(place):
                study = _find(storage, None if self.url is None else name, wanted, place)
                if study is None:
                    if file is None:
                        begin()
                    study = _create(storage, name, objectives)
                # A driver that was killed right after it had created the study left it without this.
                if _ATTRIBUTE not in storage.get_study_user_attrs(study):
                    storage.set_study_user_attr(study, _ATTRIBUTE, wanted)
                log = TrialLog(storage, study, space, objectives, place)
            log.seconds = time.perf_counter() - started
            yield log

    def _place(self, directory: Path) -> tuple[Path | None, str]:
        """The SQLite file, if it is one, and the words for the place in messages (without a password)."""
        if self.url is None:
            return directory / "study.db", str(directory)
        if self.url == "memory":
            return None, "the store"
        address = sqlalchemy.make_url(self.url)
        if address.get_backend_name() == "sqlite":
            return Path(str(address.database)), str(address.database)
        return None, address.render_as_string(hide_password=True)


class TrialLog:
    """The trials of one study, read once and from then on kept in step with the database by its only writer.

    What it hands out is what a later process will read: a searcher that is told live and one that is told
    after a resume get equal trials.
    """

    seconds: float = 0.0
    """Time spent in the store so far."""

    def __init__(self, storage: BaseStorage, study: int, space: SearchSpace[Any], objectives: int, place: str) -> None:
        self._storage, self._study, self._objectives, self._place = storage, study, objectives, place
        self._distributions = {name: _distribution(choice) for name, choice in space.choices.items()}
        self._trials = _read_all(storage.get_all_trials(study, deepcopy=False), place)
        self._finished = sum(trial.status is not Status.RUNNING for trial in self._trials)
        self._rows: dict[int, int] = {}
        self._tables: Tables | None = None
        self._whole: list[list[Trial]] = []
        first = 0
        while first < len(self._trials):
            self._note_if_whole(self._trials[first])
            first += self._trials[first].batch[1]

    def count(self) -> int:
        """How many trials have finished, in whatever way."""
        return self._finished

    def trials(self) -> list[Trial]:
        """All trials in number order."""
        return list(self._trials)

    def batches(self) -> list[list[Trial]]:
        """The batches all of whose trials have finished, in order: what a searcher is told."""
        return list(self._whole)

    def running(self) -> list[Trial]:
        """The trials to run, or to run again after a crash, in number order; none of a half-opened batch."""
        opened = self.next(1)[0]
        return [trial for trial in self._trials[:opened] if trial.status is Status.RUNNING]

    def next(self, size: int) -> tuple[int, int]:
        """First number and size of the batch to ask for: the half-opened one that a crash left, or a new one."""
        if self._trials:
            first, asked = self._trials[-1].batch
            if first + asked > len(self._trials):
                return first, asked
        return len(self._trials), size

    def open(self, candidates: Sequence[Candidate], cohorts: Sequence[Sequence[int]] | None = None) -> list[Trial]:
        """Opens a whole batch: one RUNNING trial a candidate, in one step that a crash cannot split.

        `cohorts` are, per candidate, the numbers of the trials that share its program (default: its own).
        Trials of it that are open already are compared and kept.

        Raises: InputError if they hold other candidates. SearchError if the database fails.
        """
        first, size = self.next(len(candidates))
        if size != len(candidates) or not size:
            raise ValueError(f"batch {first} has {size} candidates, got {len(candidates)}")
        groups = [(first + i,) for i in range(size)] if cohorts is None else [tuple(each) for each in cohorts]
        if len(groups) != size or any(first + i not in group for i, group in enumerate(groups)):
            raise ValueError(f"batch {first}: every candidate needs a cohort with its own number in it")
        trials = [
            Trial(first + i, plain_candidate(candidate, first + i), (first, size), group)
            for i, (candidate, group) in enumerate(zip(candidates, groups, strict=True))
        ]
        templates = [self._template(trial) for trial in trials]  # all of them, before anything is written
        for stored, trial in zip(self._trials[first:], trials, strict=False):
            if stored.candidate != trial.candidate:
                raise InputError(
                    f"{self._place}: the searcher no longer proposes what it proposed for trial {trial.number} before "
                    "the interruption (other code or another machine); choose another out= and start anew."
                )
        begun = len(self._trials) - first
        with self._timed():
            rows = self._add(templates[begun:])
        self._rows |= dict(enumerate(rows, first + begun))
        self._trials += trials[begun:]
        return self._trials[first:]

    def close(self, trial: Trial) -> Trial:
        """Stores how a trial ended and gives it back as stored.

        Raises: ValueError if it is not running or its end is not one. SearchError if the database fails.
        """
        if not 0 <= trial.number < len(self._trials):
            raise ValueError(f"there is no trial {trial.number}")
        check_end(self._trials[trial.number], trial, self._objectives)
        # Plus zero: SQLite keeps no negative zero.
        values = None if trial.reward is None else tuple(float(value) + 0.0 for value in trial.reward)
        with self._timed():
            noted = self._note(trial, values)
        stored = self._trials[trial.number] = replace(noted, status=trial.status, reward=values)
        self._finished += 1
        self._note_if_whole(stored)
        return stored

    def reach(self, trial: Trial) -> Trial:
        """Stores what a running trial has measured at a rung, in one step, and gives the trial back as stored.

        Raises: ValueError if it is not running or has no scores. SearchError if the database fails.
        """
        if self._trials[trial.number].status is not Status.RUNNING or not trial.scores:
            raise ValueError(f"trial {trial.number} is at no rung")
        with self._timed():
            stored = self._trials[trial.number] = self._note(trial)
        return stored

    def _add(self, templates: Sequence[FrozenTrial]) -> list[int]:
        tables = self._in_tables()
        if tables is not None:
            return tables.open(self._study, templates)
        return [self._storage.create_new_trial(self._study, each) for each in templates]

    def _note(self, trial: Trial, values: Sequence[float] | None = None) -> Trial:
        """Stores the outcome, the scores as Optuna's intermediate values, and how it ended if it has."""
        row, outcome, opened = self._row(trial.number), measured_json(trial), self._trials[trial.number]
        attributes = {"outcome": outcome}
        if trial.cohort != opened.cohort:  # it needed a program of fewer lanes
            opened = replace(opened, cohort=trial.cohort)
            attributes["trial"] = opened_json(opened)
        scores = {int(epoch): tuple(float(each) + 0.0 for each in score) for epoch, score in trial.scores.items()}
        steps, state = {epoch: score[0] for epoch, score in scores.items()}, _STATES[trial.status]
        if (tables := self._in_tables()) is not None:
            tables.note(row, attributes, steps, state, values or ())
        else:
            for name, value in attributes.items():
                self._storage.set_trial_user_attr(row, name, value)
            for step, value in steps.items():
                self._storage.set_trial_intermediate_value(row, step, value)
            if state is not TrialState.RUNNING:
                self._storage.set_trial_state_values(row, state, values)
        return replace(opened, outcome=read_outcome(outcome), scores=scores)

    def _in_tables(self) -> Tables | None:
        """The tables of a database, None of one in memory, or where they are not those that we know."""
        if self._tables is None:
            self._tables = Tables.of(self._storage)
        return self._tables

    def _row(self, number: int) -> int:
        if number not in self._rows:  # opened by an earlier process
            self._rows[number] = self._storage.get_trial_id_from_study_id_trial_number(self._study, number)
        return self._rows[number]

    def _note_if_whole(self, trial: Trial) -> None:
        first, size = trial.batch
        batch = self._trials[first : first + size]
        if len(batch) == size and all(each.status is not Status.RUNNING for each in batch):
            bisect.insort(self._whole, batch, key=lambda each: each[0].number)

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
            # Optuna's own columns know neither 1 from True nor whole numbers above 2**53: this is what is read back.
            user_attrs={"trial": opened_json(trial)},
            system_attrs={},
            intermediate_values={},
        )

    @contextmanager
    def _timed(self) -> Generator[None]:
        started = time.perf_counter()
        try:
            with _writing(self._place):
                yield
        finally:
            self.seconds += time.perf_counter() - started


def _distribution(choice: Choice) -> BaseDistribution:
    if isinstance(choice, Categorical):
        return CategoricalDistribution(choice.options)
    if isinstance(choice, Integer):
        return IntDistribution(choice.low, choice.high, log=choice.log, step=choice.step)
    return FloatDistribution(choice.low, choice.high, log=choice.log)


def _read_all(rows: Sequence[FrozenTrial], place: str) -> list[Trial]:
    """The stored trials in number order. Raises: InputError if they are not what this store writes."""
    trials: list[Trial] = []
    for row in sorted(rows, key=lambda row: row.number):
        try:
            steps = row.intermediate_values
            trials.append(read_trial(row.number, _STATUSES[row.state], row.user_attrs, row.values, steps))
            check_place(trials)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{place}: trial {row.number} was changed, was not written by l2l, or one before it is missing; "
                "restore the study from a copy or choose another out=."
            ) from error
    return trials


@contextmanager
def _database(where: Path | str, place: str, readonly: bool = False) -> Generator[RDBStorage]:
    """Optuna's storage on a SQLite file or a server's address. Raises: InputError if it cannot be opened."""
    with ExitStack() as stack:
        if isinstance(where, Path):
            # The connections are ours: they set the pragmas, and take a path with any character in it.
            url, options = "sqlite:///study.db", {"creator": lambda: connect(where, readonly, stack)}
        else:
            # An address is a template to Optuna, so braces in a password are doubled.
            url, options = where.replace("{", "{{").replace("}", "}}"), {"pool_pre_ping": True}
        try:
            storage = RDBStorage(url, options, skip_table_creation=readonly)
        except (ImportError, RuntimeError, sqlalchemy.exc.SQLAlchemyError, StorageInternalError) as error:
            raise InputError(f"{place} cannot be opened as a study: {_sentence(error)}") from error
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _find(storage: BaseStorage, name: str | None, wanted: Mapping[str, Any], place: str) -> int | None:
    """The study to go on with, or None; `name=None` takes the only one. Raises: InputError if it is another."""
    studies = [study for study in storage.get_all_studies() if name in (None, study.study_name)]
    if not studies:
        return None
    if len(studies) > 1:
        raise InputError(f"{place} holds {len(studies)} studies, a run folder has one; choose another out=.")
    study = storage.get_study_id_from_name(studies[0].study_name)
    if _ATTRIBUTE in studies[0].user_attrs:
        fingerprint.check(studies[0].user_attrs[_ATTRIBUTE], wanted, place)
    elif storage.get_n_trials(study) or len(studies[0].directions) != wanted["objectives"]:
        raise InputError(f"{place} holds a study that l2l did not write; choose another out=.")
    return study


def _create(storage: BaseStorage, name: str, objectives: int) -> int:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would announce the study on the console
    try:
        return storage.create_new_study([StudyDirection.MAXIMIZE] * objectives, name)
    finally:
        optuna.logging.set_verbosity(verbosity)


@contextmanager
def _writing(place: str) -> Generator[None]:
    try:
        yield
    except (StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise SearchError(
            f"the store in {place} failed: {_sentence(error)} Nothing is lost: once that is mended "
            "the same command continues."
        ) from error


def _sentence(error: BaseException) -> str:
    """What the database said, in one line."""
    while isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    origin = getattr(error, "orig", None) or error
    return f"{str(origin).strip().splitlines()[0].rstrip('.')}."
