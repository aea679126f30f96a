"""Where a task's files lie: as given, under `$L2L_DATA`, or fetched into the cache folder."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

from l2l.errors import InputError


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
    advice = "" if data else ", or set L2L_DATA to the folder that it is relative to"
    raise InputError(f"there is no {what} {given}; give the path of {kind}{advice}.")


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
