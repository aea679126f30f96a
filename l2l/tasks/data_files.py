"""A task's files: where they lie (as given, in `$L2L_DATA`, or fetched into the cache folder), and what they hold."""

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


def located(path: str | os.PathLike[str], what: str, kind: str) -> Path:
    """The file; a relative path that leads nowhere is looked for in `$L2L_DATA`.

    `what` it is (a table) and `kind` (an .npz file) are for the sentence. Raises: InputError if it is nowhere.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise InputError(f"a {what}'s path must be the name of {kind}, got {path!r}.")
    given = Path(path).expanduser()
    if (data := os.environ.get("L2L_DATA")) and not given.exists():
        given = Path(data).expanduser() / given  # an absolute path stays as it is
    if given.is_file():
        return given
    if given.is_dir():
        raise InputError(f"{given} is a folder; give the path of {kind}.")
    advice = "" if data else ", or set L2L_DATA to the folder that it is relative to"
    sought_twice = data and not Path(path).expanduser().is_absolute()
    tried = f"{path} here, nor in L2L_DATA as {given}" if sought_twice else str(given)
    raise InputError(f"there is no {what} {tried}; give the path of {kind}{advice}.")


def sought(task: str, path: str | os.PathLike[str] | None, name: str, downloads: Mapping[str, str], files: str) -> Path:
    """The file `name`, or `name`.gz, of a task: in the folder `path` if given, else `$L2L_DATA/<task>`, else the cache.

    A missing one is fetched into the cache if `downloads` (URL to checksum) has it; `files` (the four idx files) are
    for the sentence. Raises: InputError if it is nowhere.
    """
    own_cache = cache(task)
    data = os.environ.get("L2L_DATA")
    if path is not None:
        folder = Path(path).expanduser()
    else:
        own = Path(data).expanduser() / task if data else own_cache
        folder = own if own.is_dir() else own_cache
    for each in (name, f"{name}.gz"):
        if (folder / each).is_file():
            return folder / each
    url = next((url for url in downloads if url.rsplit("/", 1)[-1] in (name, f"{name}.gz")), None)
    if url is not None and path is None and folder == own_cache:
        return fetched(url, downloads[url], folder)
    raise InputError(
        f"{task}: there is no file {name} (or {name}.gz) in {folder}; put {files} there, "
        f"or set L2L_DATA to the folder that holds {task}/."
    )


def cache(name: str) -> Path:
    """The folder that the files of a task of this name are fetched into."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "l2l" / name


def fetched(url: str, checksum: str, folder: Path) -> Path:
    """The file at `url`, fetched into `folder`; its checksum is that of the download, not of a user's own copy.

    Raises: InputError if it cannot be.
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
def opened(path: Path) -> Generator[IO[bytes] | gzip.GzipFile]:
    """The file, unpacked if it is gzipped, whatever it is called. Raises: InputError."""
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
        raise unreadable(path, error) from error


def content(path: Path) -> bytes:
    """The file's bytes. Raises: InputError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def decoded(path: Path, encoded: bytes) -> str:
    """The characters of a file's bytes in UTF-8. Raises: InputError if they are none."""
    try:
        return encoded.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 (byte {error.start} is 0x{encoded[error.start]:02x}); convert it, or give "
            "task.unit=byte."
        ) from None


def unreadable(path: Path, error: OSError) -> InputError:
    """What to say of a file that is there and cannot be read."""
    return InputError(f"{path} cannot be read ({error.strerror or error}); make it readable.")
