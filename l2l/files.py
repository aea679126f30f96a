"""What the files of a run folder promise: one driver at a time, and replaced whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Collection, Generator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from l2l.errors import InputError

_BUSY_SECONDS = 60
"""How long a write waits for another program that has the file."""


@contextmanager
def exclusive(path: Path) -> Generator[None]:
    """Holds the lock file `path`, making its folder if need be; on the way out nothing empty is left behind.

    The lock belongs to the process, so it ends with it however the process ends.

    Raises: InputError if another process holds it (with that process's id), or the folder cannot be written.
    """
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        descriptor = _acquire(path)
    except OSError as error:
        raise InputError(f"cannot lock {path}: {error.strerror}; choose a folder that can be written.") from error
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        # Before the lock is given up: whoever waits for this file then sees that it is gone (see `_acquire`).
        path.unlink(missing_ok=True)
        os.close(descriptor)
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


def _acquire(path: Path) -> int:
    """A descriptor that holds the lock on the file that `path` names now."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:  # the holder before us has just removed the empty folder
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before us may have removed the file between our `open` and our `flock`.
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise InputError(
                f"{path.parent} is in use by another search (process {holder}); "
                "wait for it, stop it or choose another out=."
            ) from None
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def replace(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Writes `content` to `path` so that after a crash the file is the old one or the new one, whole.

    Without `durable` that holds for a process that is killed, not for a machine that loses its power.

    Raises: OSError as the system gives it; the old file then still stands.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if not durable:
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)


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


def keep(directory: Path, names: Collection[str]) -> None:
    """Takes away the numbered folders in `directory`, also half-written ones, that are not of these names."""
    for each in (*directory.glob("[0-9]*/"), *directory.glob(".[0-9]*/")):
        if each.name not in names and not each.is_symlink():
            shutil.rmtree(each)


def folder(out: str | Path | None, name: str) -> Path:
    """The run folder: the given one, or a new one that no other search has taken.

    Raises: InputError if it is empty, or no new one can be made.
    """
    if out is not None:
        if not str(out):
            raise InputError("out is empty; give the run's folder as out=FOLDER.")
        return Path(out)
    stem = Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    for found in (stem, *(stem.with_name(f"{stem.name}-{n}") for n in range(2, 1000))):
        try:
            found.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(f"{found} cannot be made ({error.strerror}); choose a place with out=FOLDER.") from None
        return found
    raise InputError(f"{stem} and a thousand like it exist already; choose a folder with out=FOLDER.")
