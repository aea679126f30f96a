"""Lock files, and files that a crash leaves whole: the old content or the new one."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from l2l.errors import InputError


@contextmanager
def lock_file(path: Path) -> Generator[None]:
    """Holds the lock file `path` and creates its folders; at the end it is deleted with those that are still empty.

    The lock belongs to the process, so it ends with it however the process ends.

    Raises: InputError if another process holds it (with that process's id), or the folder cannot be written.
    """
    created = [folder for folder in path.parents if not folder.exists()]
    try:
        descriptor = _acquire(path)
    except OSError as error:
        raise InputError(f"cannot lock {path}: {error.strerror}; choose a folder that can be written.") from error
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        # Before the lock is released: a process that waits for this file then sees that it is gone (see `_acquire`).
        path.unlink(missing_ok=True)
        os.close(descriptor)
        with suppress(OSError):
            for folder in created:
                folder.rmdir()


def _acquire(path: Path) -> int:
    """A descriptor that holds the lock on the file that is now at `path`."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:  # the last holder has just removed the empty folder
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder may have removed the file between our `open` and our `flock`.
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


def write_atomically(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Writes `content` to `path` so that after a crash the file is the old one or the new one, whole.

    Without `durable` that holds for a process that is killed, not for a machine that loses power.

    Raises: OSError as the system raises it; the old file is then still there.
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
