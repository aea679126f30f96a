"""A task's files: finds them (as a path, in `$L2L_DATA`, or downloaded into the cache folder) and reads them."""

from __future__ import annotations

import gzip
import os
import textwrap
import zlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from l2l.errors import InputError

AGAIN = "the file is damaged or another one: copy or download it again"


def locate_file(path: str | os.PathLike[str], what: str, kind: str) -> Path:
    """Locates a file; a relative path that does not exist is also looked up in `$L2L_DATA`.

    `what` it is (a tabular benchmark) and `kind` (an .npz file) are for the error message.

    Raises: InputError if it is missing.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise InputError(f"a {what}'s path must be the name of {kind}, got {path!r}.")
    file = Path(path).expanduser()
    is_relative = not file.is_absolute()
    if (data := os.environ.get("L2L_DATA")) and not file.exists():
        file = Path(data).expanduser() / file  # an absolute path stays as it is
    if file.is_file():
        return file
    if file.is_dir():
        raise InputError(f"{file} is a folder; give the path of {kind}.")
    advice = "" if data else ", or set L2L_DATA to the folder that it is relative to"
    tried = f"{path} here, nor in L2L_DATA as {file}" if data and is_relative else str(file)
    raise InputError(f"there is no {what} {tried}; give the path of {kind}{advice}.")


def find_file(
    task: str, path: str | os.PathLike[str] | None, name: str, downloads: Mapping[str, str], files: str
) -> Path:
    """Finds a task's file `name`, or `name`.gz, in the folder `path`, else in `$L2L_DATA/<task>`, else in the cache.

    A missing file is downloaded into the cache if `downloads` (URL to checksum) has it; `files` (the four idx files)
    is for the error message. Raises: InputError if the file is missing.
    """
    task_cache = cache_folder(task)
    data = os.environ.get("L2L_DATA")
    if path is not None:
        folder = Path(path).expanduser()
    else:
        task_folder = Path(data).expanduser() / task if data else task_cache
        folder = task_folder if task_folder.is_dir() else task_cache
    for file in (folder / name, folder / f"{name}.gz"):
        if file.is_file():
            return file
    url = next((url for url in downloads if url.rsplit("/", 1)[-1] in (name, f"{name}.gz")), None)
    if url is not None and path is None and folder == task_cache:
        return fetch_file(url, downloads[url], folder)
    raise InputError(
        f"{task}: there is no file {name} (or {name}.gz) in {folder}; put {files} there, "
        f"or set L2L_DATA to the folder that holds {task}/."
    )


def cache_folder(name: str) -> Path:
    """The folder into which the files of the task `name` are downloaded."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "l2l" / name


def fetch_file(url: str, checksum: str, folder: Path) -> Path:
    """Downloads the file at `url` into `folder`; the checksum is of the download, not of a copy that a user put there.

    Raises: InputError if the download fails.
    """
    try:
        import pooch
    except ImportError:
        raise InputError(
            f"{url.rsplit('/', 1)[-1]} is not in {folder}: put it there, "
            "or run `pip install 'l2l[download]'` to have it fetched."
        ) from None
    try:
        return Path(pooch.retrieve(url, known_hash=checksum, fname=url.rsplit("/", 1)[-1], path=folder))
    except (OSError, ValueError) as error:
        reason = textwrap.shorten(str(error), 200, placeholder="...")
        raise InputError(f"{url} could not be downloaded ({reason}); put that file into {folder} yourself.") from error


@contextmanager
def open_file(path: Path) -> Generator[IO[bytes] | gzip.GzipFile]:
    """Opens a file for reading and unpacks it if it is gzipped, whatever its name. Raises: InputError."""
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not zipped:
                yield raw
                return
            with gzip.GzipFile(fileobj=raw) as file:
                yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: expected a whole gzip file, got one that breaks off ({error}); {AGAIN}.") from error
    except OSError as error:
        raise read_error(path, error) from error


def read_bytes(path: Path) -> bytes:
    """Reads a file's bytes. Raises: InputError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise read_error(path, error) from error


def decode_utf8(path: Path, encoded: bytes) -> str:
    """Decodes the bytes of a file as UTF-8. Raises: InputError if they are not UTF-8."""
    try:
        return encoded.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 (byte {error.start} is 0x{encoded[error.start]:02x}); convert it, or give "
            "task.unit=byte."
        ) from None


def read_error(path: Path, error: OSError) -> InputError:
    """The error for a file that exists and cannot be read."""
    return InputError(f"{path} cannot be read ({error.strerror or error}); make it readable.")
