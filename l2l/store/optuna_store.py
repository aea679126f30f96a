"""The trial database: an Optuna study in a SQLite file, on a server or in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import sqlalchemy
import sqlalchemy.exc
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection

from l2l.errors import InputError
from l2l.files import lock_file
from l2l.space import SearchSpace
from l2l.store import fingerprint
from l2l.store.database import open_database, translate_errors
from l2l.store.log import StudyLog
from l2l.store.sqlite import check_database

_ATTRIBUTE = "l2l"
"""Study attribute that holds the fingerprint."""
_SQL_TABLES = {"studies", "trials", "version_info", "alembic_version"}
"""SQL tables that identify a database of Optuna's; the last one is filled last."""


class _Location(NamedTuple):
    """Where a study is stored."""

    file: Path | None
    """The SQLite file, if it is one."""
    label: str
    """What messages call it (without a password)."""


@dataclass(frozen=True)
class _Study:
    """A study to be found in a database, or created there."""

    name: str
    is_only: bool
    """Whether the database belongs to the run folder and has no other study, whatever its name."""
    fingerprint: Mapping[str, Any]
    objectives: int
    label: str

    def find(self, storage: BaseStorage) -> int | None:
        """The study's id, or None. Raises: InputError if a different study is in its place."""
        studies = [study for study in storage.get_all_studies() if self.is_only or study.study_name == self.name]
        if not studies:
            return None
        if len(studies) > 1:
            raise InputError(f"{self.label} holds {len(studies)} studies, a run folder has one; choose another out=.")
        study = storage.get_study_id_from_name(studies[0].study_name)
        if _ATTRIBUTE in studies[0].user_attrs:
            fingerprint.check_fingerprint(studies[0].user_attrs[_ATTRIBUTE], self.fingerprint, self.label)
        elif storage.get_n_trials(study) or len(studies[0].directions) != self.objectives:
            raise InputError(f"{self.label} holds a study that l2l did not write; choose another out=.")
        return study

    def is_in_file(self, file: Path) -> bool:
        """Whether a SQLite file has the study, through a connection that cannot write. Raises: InputError as `find`."""
        if not check_database(file, _SQL_TABLES, last="alembic_version"):
            return False
        with open_database(file, self.label, readonly=True) as storage:
            return self.find(storage) is not None

    def find_or_create(self, storage: BaseStorage) -> int:
        """The study's id. Raises: InputError as `find`."""
        study = self.find(storage)
        if study is None:
            study = self._create(storage)
        # A process that was killed right after it had created the study left it without this.
        if _ATTRIBUTE not in storage.get_study_user_attrs(study):
            storage.set_study_user_attr(study, _ATTRIBUTE, self.fingerprint)
        return study

    def _create(self, storage: BaseStorage) -> int:
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would announce the study on the console
        try:
            return storage.create_new_study([StudyDirection.MAXIMIZE] * self.objectives, self.name)
        finally:
            optuna.logging.set_verbosity(verbosity)


@dataclass(frozen=True)
class OptunaStore:
    """Stores trials in an Optuna study.

    `url=None` is the file `study.db` in the run folder, "memory" stores nothing beyond the process, and any other
    value is the URL of a database that Optuna can use (`postgresql+psycopg://…`).

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
                "store.url must be null, 'memory' or the URL of a database such as postgresql+psycopg://host/name; "
                "Optuna's journal files and Redis are not supported, because a torn last line ends a journal."
            ) from None
        if address.get_backend_name() == "sqlite" and address.database in (None, "", ":memory:"):
            raise InputError("store.url names a database that ends with the search; for that, use store.url=memory.")

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
    ) -> Generator[StudyLog]:
        """The trials of the search in `directory`, for one process at a time; a new study if there is none.

        See `l2l.types.Store`. In memory there is neither lock nor file. On a server nothing stops a process on another
        machine from using the same study.

        Raises: InputError if another process uses the study, it was made with other settings or l2l did not write it;
            nothing is written then. SearchError if the database fails later.
        """
        started = time.perf_counter()
        location = self._locate(directory)
        record = fingerprint.make_fingerprint(settings, space, objectives)
        study = _Study(name, self.url is None, record, objectives, location.label)
        with ExitStack() as stack:
            if self.url != "memory":
                stack.enter_context(lock_file(directory / "lock"))
            if location.file is not None:
                storage = self._open_file(stack, location.file, study, begin)
            else:
                storage = self._open_other(stack, study, begin)
            with translate_errors(location.label):
                log = StudyLog(storage, study.find_or_create(storage), space, objectives, location.label)
            log.seconds = time.perf_counter() - started
            yield log

    def _open_file(self, stack: ExitStack, file: Path, study: _Study, begin: Callable[[], None]) -> BaseStorage:
        """Opens a SQLite file for writing, after a look at it that leaves no trace."""
        if self.url is not None:  # other run folders can name the same file
            stack.enter_context(lock_file(file.with_name(f"{file.name}.lock")))
        if not study.is_in_file(file):
            begin()  # before the file is created
        return stack.enter_context(open_database(file, study.label))

    def _open_other(self, stack: ExitStack, study: _Study, begin: Callable[[], None]) -> BaseStorage:
        """Opens a server's database, or one in memory."""
        storage: BaseStorage = InMemoryStorage()
        if self.url is not None and self.url != "memory":
            storage = stack.enter_context(open_database(self.url, study.label))
        with translate_errors(study.label):
            if study.find(storage) is None:
                begin()
        return storage

    def _locate(self, directory: Path) -> _Location:
        if self.url is None:
            return _Location(directory / "study.db", str(directory))
        if self.url == "memory":
            return _Location(None, "the store")
        address = sqlalchemy.make_url(self.url)
        if address.get_backend_name() == "sqlite":
            return _Location(Path(str(address.database)), str(address.database))
        return _Location(None, address.render_as_string(hide_password=True))
