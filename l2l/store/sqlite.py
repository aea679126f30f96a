"""A SQLite file: how it is opened, and whether it is a sound study."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path

from l2l.errors import InputError

_BUSY_SECONDS = 60
"""How long a write waits for another program that has the file."""


def connect(path: Path, readonly: bool, stack: ExitStack) -> sqlite3.Connection:
    """A connection to a SQLite file that `stack` closes: durable when it writes, without a trace when it does not.

    Raises: sqlite3.Error if the file cannot be opened or is no database.
    """
    uri = path.absolute().as_uri()
    if not readonly:
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False)
        stack.callback(connection.close)
        # A commit is on the disk when it returns, and readers (a dashboard) and the writer do not wait for each other.
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        return connection
    # A crash leaves commits beside the file; without them the file is all there is, and reading it makes no other.
    beside = path.with_name(f"{path.name}-wal")
    mode = "mode=ro" if beside.exists() and beside.stat().st_size else "immutable=1"
    connection = sqlite3.connect(f"{uri}?{mode}", uri=True, timeout=_BUSY_SECONDS, check_same_thread=False)
    stack.callback(connection.close)
    return connection


def check_database(path: Path, tables: Collection[str], last: str) -> bool:
    """Whether `path` is a sound SQLite file with all of its `tables`, of which `last` is filled last.

    False for no file, an empty one, or one whose making was interrupted.

    Raises: InputError if it is not a database, is damaged, or is another program's.
    """
    if not path.exists() or not path.stat().st_size:
        return False
    with ExitStack() as stack:
        try:
            connection = connect(path, True, stack)
            (verdict,) = connection.execute("pragma integrity_check(1)").fetchone()
            found = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
            filled = last in found and connection.execute(f'select count(*) from "{last}"').fetchone()[0]
        except (sqlite3.Error, OSError) as error:
            raise InputError(
                f"{path} is not a study or is damaged ({error}); restore it from a copy or choose another out=."
            ) from error
    if verdict != "ok":
        raise InputError(f"{path} is damaged ({verdict.strip()}); restore it from a copy or choose another out=.")
    if found and not found & set(tables):
        raise InputError(f"{path} is the database of another program; choose another out=.")
    return bool(filled)
