"""`l2l resume RUN`: continues the search that RUN's `config.yaml` describes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from l2l.cli.search import run_configuration
from l2l.errors import InputError, flatten_message
from l2l.run.run_folder import CONFIG


def resume(words: list[str]) -> None:
    """Continues a search from its last finished trial. Raises: InputError if the folder holds no search."""
    import yaml

    if len(words) != 1 or words[0].startswith("-"):
        hint = " For more trials give the search's own command again, with trials=N and out=RUN." if words[1:] else ""
        raise InputError(f"resume takes one run folder: l2l resume RUN.{hint}")
    path = Path(words[0]) / CONFIG
    if not path.is_file():
        raise InputError(
            f"{path} is missing: expected the folder of a search that `l2l search` began; "
            "a search that was begun in Python continues with the same call of l2l.search(..., out=RUN)."
        )
    sys.path.append(os.getcwd())  # a user's own space may be a module in the current folder
    try:
        plain = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML ({flatten_message(error)}); restore it from a copy.") from None
    if not isinstance(plain, dict) or plain.get("_target_") != "l2l.search":
        raise InputError(f"{path} is not the configuration of a search, or an older l2l wrote it.")
    run_configuration({**plain, "out": words[0]})
