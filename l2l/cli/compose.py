"""Composes configurations with Hydra and makes their parts."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Generator, Sequence
from typing import Any

from l2l.cli import config
from l2l.cli.hydra_errors import explain_composition, explain_instantiation
from l2l.cli.overrides import rewrite_overrides
from l2l.errors import InputError, SearchError, flatten_message, suggest_names


def run_jobs(command: str, words: list[str], run: Callable[[dict[str, Any]], None], program: str | None = None) -> None:
    """Calls `run` with the configuration that the words make of `conf/COMMAND.yaml`; in a sweep once for each job.

    `program` is the name that Hydra shows, "l2l COMMAND" unless given.

    Raises: InputError or SearchError, the first one that a job raised; a sweep finishes its other jobs before.
    """
    import hydra
    from omegaconf import OmegaConf

    config.register_schemas()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
    sys.path.append(os.getcwd())  # a user's own space may be a module in the current folder
    errors: list[InputError | SearchError] = []
    crashes: list[Exception] = []

    @hydra.main(version_base="1.3", config_path=str(config.find_folder()), config_name=command)
    def run_job(cfg: Any) -> None:
        # Errors do not reach Hydra, which would print a traceback and end the sweep.
        try:
            with explain_composition(command, words):
                plain: Any = OmegaConf.to_container(cfg, resolve=True)
            run(plain)
        except (InputError, SearchError) as error:
            if errors:
                print(f"l2l: {flatten_message(error)}", file=sys.stderr)
            errors.append(error)
        except Exception as crash:
            crashes.append(crash)
            raise

    with replace_argv([program or f"l2l {command}", *rewrite_overrides(words, config.GROUPS)]):
        try:
            with explain_composition(command, words):
                run_job()
        except Exception:
            if crashes:  # not the command line's fault, so there is nothing to explain
                raise crashes[0] from None
            raise
    if errors:
        raise errors[0]


def compose_part(name: str, words: Sequence[str]) -> dict[str, Any]:
    """The configuration of one part, such as `searcher/evolution`; to be called inside a job of `run_jobs`."""
    from hydra import compose
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    group, _, value = name.partition("/")
    names = GlobalHydra.instance().config_loader().get_group_options(group)
    if value not in names:
        raise InputError(f"{group} has no value {value!r}: {suggest_names(value, names)}")
    with explain_composition("search", words):
        plain: Any = OmegaConf.to_container(compose(name, list(words)), resolve=True)
    return plain[group]


def instantiate_config(plain: dict[str, Any]) -> Any:
    """What a checked configuration describes: every node with a `_target_` becomes the result of that call.

    Raises: InputError if a part refuses its arguments.
    """
    from hydra.utils import instantiate

    with explain_instantiation():
        return instantiate(plain, _convert_="all")


@contextlib.contextmanager
def replace_argv(words: list[str]) -> Generator[None]:
    """Sets `sys.argv` for a while: `hydra.main` reads it and takes no arguments.

    `hydra.compose` does, but knows neither sweeps nor --help, --cfg and shell completion.
    """
    before, sys.argv = sys.argv, words
    try:
        yield
    finally:
        sys.argv = before
