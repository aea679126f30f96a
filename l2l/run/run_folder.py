"""The run folder: where it lies, and what is written to it before the first trial."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from l2l.errors import InputError
from l2l.files import write_atomically

CONFIG = "config.yaml"
RESULT = "result.json"
TRIALS = "trials.csv"


def choose_run_folder(out: str | Path | None, name: str) -> Path:
    """The run folder: `out`, or a new folder below `runs` that no other search has taken.

    Raises: InputError if `out` is empty, or no new folder can be made.
    """
    if out is not None:
        if not str(out):
            raise InputError("out is empty; give the run's folder as out=FOLDER.")
        return Path(out)
    stem = Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    for folder in (stem, *(stem.with_name(f"{stem.name}-{n}") for n in range(2, 1000))):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(
                f"{folder} cannot be created ({error.strerror}); choose another folder with out=FOLDER."
            ) from None
        return folder
    raise InputError(f"{stem} and a thousand folders like it exist already; choose a folder with out=FOLDER.")


def begin_run_folder(directory: Path, config: Mapping[str, Any] | None) -> None:
    """Writes the configuration before there is a study, so that every folder with a study can be resumed.

    Raises: InputError if the folder has results whose trials are lost, or cannot be written.
    """
    if (directory / RESULT).exists():
        raise InputError(
            f"{directory} holds the results of a search whose trials are gone (study.db is missing or empty, or they "
            "were in memory only); restore it from a copy or choose another out=."
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if config is not None:
            write_config(directory, config)
    except OSError as error:
        raise InputError(
            f"{directory} cannot be written to ({error.strerror}); choose another folder with out=FOLDER."
        ) from None


def write_config(directory: Path, config: Mapping[str, Any]) -> None:
    """Writes the resolved configuration, from which `l2l resume` continues."""
    import yaml

    text = "# The search's configuration, resolved: `l2l resume` continues from it.\n"
    write_atomically(directory / CONFIG, text + yaml.safe_dump(dict(config), sort_keys=False))


def delete_other_folders(directory: Path, names: Collection[str]) -> None:
    """Deletes the numbered folders in `directory`, half-written ones too, whose names are not among `names`."""
    for folder in (*directory.glob("[0-9]*/"), *directory.glob(".[0-9]*/")):
        if folder.name not in names and not folder.is_symlink():
            shutil.rmtree(folder)
