"""SQLite files: how one is opened, and whether it is an intact database of Optuna's."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path

from l2l.errors import InputError

_BUSY_SECONDS = 60
"""How long a write waits while another program has the file."""


def connect(path: Path, readonly: bool, stack: ExitStack) -> sqlite3.Connection:
    """A connection to a SQLite file, which `stack` closes: durable if it writes, without a trace if it is read-only.

    Raises: sqlite3.Error if the file cannot be opened or is no database.
    """
    uri = path.absolute().as_uri()
    if not readonly:
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False)
        stack.callback(connection.close)
        # A commit is on the disk when it returns; readers (a dashboard) and the writer do not wait for one another.
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        return connection
    # After a crash the last commits are in a second file; without one, reading must not create it.
    log = path.with_name(f"{path.name}-wal")
    mode = "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"
    connection = sqlite3.connect(f"{uri}?{mode}", uri=True, timeout=_BUSY_SECONDS, check_same_thread=False)
    stack.callback(connection.close)
    return connection


def check_database(path: Path, tables: Collection[str], last: str) -> bool:
    """Whether `path` is an intact SQLite file with these SQL tables, of which `last` is filled last.

    False for no file, an empty file, or a file that was interrupted while it was created.

    Raises: InputError if it is no database, is damaged, or belongs to another program.
    """
    if not path.exists() or not path.stat().st_size:
        return False
    with ExitStack() as stack:
        try:
            connection = connect(path, True, stack)
            (verdict,) = connection.execute("pragma integrity_check(1)").fetchone()
            names = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
            is_filled = last in names and connection.execute(f'select count(*) from "{last}"').fetchone()[0]
        except (sqlite3.Error, OSError) as error:
            raise InputError(
                f"{path} is not a study or is damaged ({error}); restore it from a copy or choose another out=."
            ) from error
    if verdict != "ok":
        raise InputError(f"{path} is damaged ({verdict.strip()}); restore it from a copy or choose another out=.")
    if names and not names & set(tables):
        raise InputError(f"{path} is the database of another program; choose another out=.")
    return bool(is_filled)
