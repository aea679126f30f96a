"""Explains Hydra's errors in one sentence: from their types and the overrides first, from their prose last."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from l2l.cli.config import GROUPS, CompareConfig, SearchConfig
from l2l.cli.overrides import SWEEP_FLAGS
from l2l.errors import InputError, SearchError, flatten_message, suggest_names

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from hydra.errors import OverrideParseException


@contextlib.contextmanager
def explain_composition(command: str, words: Sequence[str]) -> Generator[None]:
    """Turns an error of Hydra that the overrides `words` caused into an InputError of one sentence."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (InputError, SearchError):
        raise
    # Some checks of Hydra and OmegaConf raise no more than an AssertionError or a ValueError.
    except (HydraException, OmegaConfBaseException, AssertionError, ValueError) as error:
        raise InputError(explain_hydra_error(error, command, words)) from error


@contextlib.contextmanager
def explain_instantiation() -> Generator[None]:
    """Raises what a part of ours says of its arguments; any other error of a part as an InputError of one sentence."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        causes = list_causes(error)
        for cause in causes:
            if isinstance(cause, InputError | SearchError):
                raise cause from None
        # The exception holds the target's name in its message only.
        match = re.search(r"target '([^']+)'", str(error))
        name = match[1] if match else "a part of the configuration"
        reason = f"{type(causes[-1]).__name__}: {flatten_message(causes[-1]).rstrip('.')}"
        raise InputError(f"{name} could not be called: {reason}.") from error


def list_causes(error: BaseException) -> list[BaseException]:
    """The error, its cause, the cause's cause and so on."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    return causes


def explain_hydra_error(error: BaseException, command: str, words: Sequence[str]) -> str:
    """One sentence about an error that Hydra raised while it composed `l2l COMMAND WORDS`."""
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    causes = list_causes(error)
    for cause in causes:
        if isinstance(cause, OverrideParseException):
            return _explain_syntax(cause)
        if isinstance(cause, MissingConfigException) and cause.options is not None and cause.missing_cfg_file:
            group, _, name = cause.missing_cfg_file.rpartition("/")
            return f"{group} has no value {name!r}: {suggest_names(name, cause.options)}"
    overrides = _parse_overrides(words)
    has_sweep = not SWEEP_FLAGS.isdisjoint(words)
    for override in overrides:
        if sentence := _explain_override(override, command, has_sweep):
            return sentence
    if isinstance(error, AssertionError):
        return _explain_null_group(overrides)
    for cause in causes:
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            lines = [override.input_line for override in overrides if override.key_or_group == cause.full_key]
            line = str((lines or [cause.full_key])[-1]).replace("searchers=", "searcher=")
            return f"{line} does not fit: {str(cause).splitlines()[0].rstrip('.')}."
    # Hydra does not say which override it could not use but in its message, where its name stands.
    nested = [name for override in overrides if "/" in (name := override.key_or_group)]
    for name in nested:
        if f"'{name}'" in str(error):
            part, _, group = name.rpartition("/")
            return f"this {part} has no group {group!r} to choose from; `l2l {command} --help` lists all groups."
    first = flatten_message(error).split(". ")[0].rstrip(".")
    return f"{first}."


def _explain_syntax(error: OverrideParseException) -> str:
    """What is wrong with an override that Hydra's grammar does not accept; the last line of its message is a link."""
    reason = ", ".join(error.message.splitlines()[:-1])
    quotes = "special characters in quotes"
    if "[" in error.override:
        quotes += ", and those in others for the shell: 'KEY=[A,\"B C\"]'"
    return f"an override could not be read ({reason}): expected GROUP=NAME or KEY=VALUE, {quotes}."


def _parse_overrides(words: Sequence[str]) -> list[Override]:
    """The overrides among the words as Hydra's parser reads them; flags and their values are left out."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    overrides: list[Override] = []
    for word in words:
        if not word.startswith("-"):
            with contextlib.suppress(HydraException):
                overrides += parser.parse_overrides([word])
    return overrides


def _explain_override(override: Override, command: str, has_sweep: bool) -> str | None:
    """What is wrong with one override, if that can be seen without composing."""
    schema = CompareConfig if command == "compare" else SearchConfig
    keys = [field.name for field in fields(schema) if not field.name.startswith("_")]
    shown_keys = ["searcher" if key == "searchers" else key for key in keys]
    line = str(override.input_line)
    if override.is_sweep_override():
        if has_sweep:
            return None
        sweep = "" if command == "compare" else "add -m to sweep over them, or "
        return f"{line} gives several values: {sweep}write a list as KEY=[A,B]."
    value: Any = override.value()
    root = re.split(r"[./]", override.key_or_group)[0]
    if root == "hydra" or (command == "search" and root == "experiment"):
        return None
    if root not in keys:
        if root not in (*GROUPS, "experiment"):
            return f"the key {root!r} is unknown: {suggest_names(root, shown_keys)}"
        if override.is_delete() or value is None:
            return f"there is no {root} to leave out here; `l2l {command} --help` lists all groups."
        return f"{command} takes no {root}: it has {', '.join(shown_keys)}."
    if override.key_or_group in GROUPS and not isinstance(value, str | None):
        return f"{root} takes no such value: give {root}=NAME or {root}.ARGUMENT=VALUE."
    return None


def _explain_null_group(overrides: Sequence[Override]) -> str:
    """Which override is an argument of a group that is null: OmegaConf only fails an assertion there."""
    for override in overrides:
        group, dot, _ = override.key_or_group.partition(".")
        if group in ("rungs", "final") and dot:
            line = str(override.input_line)
            return f"{line} has nothing to change: there is no {group} here; choose one with {group}=NAME."
    return "an override changes a group that is null; choose one with GROUP=NAME first."
