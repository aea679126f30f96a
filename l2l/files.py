"""What the files of a run folder promise: one driver at a time, and replaced whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Collection, Generator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from l2l.errors import InputError


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
