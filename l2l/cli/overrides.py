"""What is typed behind a command, as Hydra wants it, and what Hydra says of it, as one sentence."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Generator, Sequence
from dataclasses import fields

from l2l.errors import InputError, SearchError, suggest_names


def sentence(error: BaseException) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split())


def of_nothing(words: Sequence[str]) -> str:
    """Which argument has no part to change."""
    for word in words:
        group = word.lstrip("+~").partition(".")[0]
        if group in ("rungs", "final") and "." in word.partition("=")[0]:
            return f"{word} has nothing to change: there is no {group} here; choose one with {group}=NAME."
    return "an override changes a part that is none: choose one with GROUP=NAME first."


def opened(words: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Overrides as Hydra wants them: `++` before arguments of a group's class, `~` for a group that is null."""
    # YAML files list only what differs from a class's defaults, so to Hydra any other argument is a new one.
    argument, nothing = (re.compile(rf"({'|'.join(groups)}){end}") for end in (r"\.[^=]+=.*", "=null"))
    gone = {found[1] for word in words if (found := nothing.fullmatch(word))}
    for word in words:
        if (found := argument.fullmatch(word)) and found[1] in gone:
            raise InputError(f"{word} has nothing to change: {found[1]}=null leaves that part out.")
    words = [f"++{word}" if argument.fullmatch(word) else word for word in words]
    return [f"~{word.removesuffix('=null')}" if nothing.fullmatch(word) else word for word in words]


@contextlib.contextmanager
def translated() -> Generator[None]:
    """Hydra's complaints as one sentence."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        causes: list[BaseException] = [error]
        while causes[-1].__cause__ is not None:
            causes.append(causes[-1].__cause__)
        for cause in causes:
            if isinstance(cause, InputError | SearchError):
                raise cause from None
        raise InputError(hydra_sentence(causes)) from error


def hydra_sentence(causes: Sequence[BaseException]) -> str:
    """What Hydra said, with the nearest name where it said that one is unknown."""
    from l2l.cli.config import GROUPS, CompareConfig, SearchConfig

    text = "\n".join(str(cause) for cause in causes)
    command = sys.argv[0].removeprefix("l2l ")  # as `_composed` has set it
    schema = CompareConfig if command == "compare" else SearchConfig
    known = [each.name for each in fields(schema) if not each.name.startswith("_")]
    if found := re.search(r"Could not override '(\w+)/(\w+)'", text):
        return f"this {found[1]} has no group {found[2]!r} to choose from; `l2l {command} --help` lists all groups."
    if found := re.search(r"Could not override '(\w+)", text):
        if found[1] in (*GROUPS, "experiment") and found[1] not in known:
            return f"{command} takes no {found[1]}: it has {', '.join(known).replace('rows', 'searcher')}."
        if found[1] not in known:
            return f"the key {found[1]!r} is unknown: {suggest_names(found[1], known)}"
        return f"{found[1]} takes no such value: give {found[1]}=NAME or {found[1]}.ARGUMENT=VALUE."
    if found := re.search(r"Could not delete '(\w+)", text):
        return f"there is no {found[1]} to leave out here; `l2l {command} --help` lists all groups."
    if found := re.search(r"Cannot find primary config 'searcher/([^']*)'", text):
        return f"searcher has no value {found[1]!r}: {suggest_names(found[1], _names('searcher'))}"
    if found := re.search(r"Could not (?:find|load) '([^']+)/([^'/]*)'", text):
        options = re.search(r"Available options in '[^']+':\s*((?:\s+\S+\n?)+)", text)
        return f"{found[1]} has no value {found[2]!r}: {suggest_names(found[2], options[1].split() if options else ())}"
    if found := re.search(r"Error merging override (\S+)", text):
        reason = str(causes[-1]).splitlines()[0]
        return f"{found[1]} does not fit: {reason}."
    if "override_grammar" in text:
        reason = ", ".join(text.splitlines()[:-1])
        quotes = "special signs in quotes"
        if "[" in reason:
            quotes += ", and those in others for the shell: 'KEY=[A,\"B C\"]'"
        return f"an override could not be read ({reason}): expected GROUP=NAME or KEY=VALUE, {quotes}."
    if found := re.search(r"Ambiguous value for argument '(.*)'", text):
        sweep = "" if command == "compare" else "add -m to sweep over them, or "
        return f"{found[1]} gives several values: {sweep}write a list as KEY=[A,B]."
    if found := re.search(r"Config group override must be a string or a list. Got (\w+)", text):
        return f"a group was given a value of type {found[1]}: expected the name of one of its values, GROUP=NAME."
    if found := re.search(r"Error in call to target '([^']+)'", text):
        return f"{found[1]} could not be called: {type(causes[-1]).__name__}: {sentence(causes[-1]).rstrip('.')}."
    first = " ".join(text.split("\n\n")[0].split())
    return f"{first.split('. ')[0].rstrip('.')}."


def _names(group: str) -> list[str]:
    """The values of a group."""
    from l2l.cli.config import folder

    return sorted(path.stem for path in (folder() / group).glob("*.yaml"))
