"""Connections to a database, and its errors as one sentence."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy.exc
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage

from l2l.errors import InputError, SearchError
from l2l.store.sqlite import connect


@contextmanager
def open_database(address: Path | str, label: str, readonly: bool = False) -> Generator[RDBStorage]:
    """Optuna's storage on a SQLite file or on a server's URL; `label` is what messages call it.

    Raises: InputError if it cannot be opened.
    """
    with ExitStack() as stack:
        if isinstance(address, Path):
            # Our own connections set the pragmas and accept a path with any character in it.
            url, options = "sqlite:///study.db", {"creator": lambda: connect(address, readonly, stack)}
        else:
            # Optuna formats the URL as a template, so braces in a password are doubled.
            url, options = address.replace("{", "{{").replace("}", "}}"), {"pool_pre_ping": True}
        try:
            storage = RDBStorage(url, options, skip_table_creation=readonly)
        except (ImportError, RuntimeError, sqlalchemy.exc.SQLAlchemyError, StorageInternalError) as error:
            raise InputError(f"{label} cannot be opened as a study: {describe_error(error)}") from error
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()


@contextmanager
def translate_errors(label: str) -> Generator[None]:
    """Turns a database's errors into a sentence. Raises: SearchError."""
    try:
        yield
    except (StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise SearchError(
            f"the store in {label} failed: {describe_error(error)} Nothing is lost: once that is fixed "
            "the same command continues."
        ) from error


def describe_error(error: BaseException) -> str:
    """The database's own message in one line."""
    while isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    origin: Any = error.orig if isinstance(error, sqlalchemy.exc.StatementError) else None
    return f"{str(origin or error).strip().splitlines()[0].rstrip('.')}."
