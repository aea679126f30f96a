"""What makes two searches the same search: the settings that shape its history, and the space."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from l2l.errors import InputError
from l2l.space import SearchSpace
from l2l.store import code_digest
from l2l.store.builtin_spaces import BUILT_IN
from l2l.types import Task

FORMAT = 1
"""Version of everything the store writes; a file of a later one is refused."""

CODE = "space.code"
"""The digest of a user's own code; where a side has none, there is nothing to compare."""

_ABSENT = object()
_SHOWN = 5


def settings(skip: Sequence[str] = (), **parts: Any) -> dict[str, Any]:
    """The settings of a search's parts by dotted name, as plain values; `skip` names arguments to leave out."""
    flat: dict[str, Any] = {}

    def walk(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, entry in value.items():
                walk(f"{name}.{key}", entry)
        elif isinstance(value, list | tuple):
            flat[name] = [each if isinstance(each, bool | int | float | str | None) else str(each) for each in value]
        elif value is None or isinstance(value, bool | int | float | str):
            flat[name] = value
        elif isinstance(value, os.PathLike):
            flat[name] = os.fspath(value)
        else:
            flat[name] = public_name(type(value))
            for field, entry in _arguments(value).items():
                if field not in skip:
                    walk(f"{name}.{field}", entry)

    for name, part in parts.items():
        walk(name, part)
    return flat


def public_name(part: Any) -> str:
    """The dotted name by which users know a class or function: of the outermost package that offers it.

    A part of l2l may move from file to file without becoming another one.
    """
    module, name = part.__module__, part.__qualname__
    packages = itertools.accumulate(module.split("."), "{}.{}".format)
    homes = (home for home in packages if getattr(sys.modules.get(home), name, None) is part)
    return f"{next(homes, module)}.{name}"


def _arguments(part: Any) -> dict[str, Any]:
    """What a part was made with: a dataclass's fields, or the plain public attributes of any other object."""
    if dataclasses.is_dataclass(part):
        return {each.name: getattr(part, each.name) for each in dataclasses.fields(part) if each.init}
    plain = bool | int | float | str | None
    public = {name: value for name, value in getattr(part, "__dict__", {}).items() if not name.startswith("_")}
    return {name: value for name, value in public.items() if isinstance(value, plain)}


def builder(space: SearchSpace[Any]) -> dict[str, Any]:
    """What a space builds with, as far as it has a name: the function, its source, and a partial's arguments."""
    build, found = space.build, {"space": space.name}
    if isinstance(build, functools.partial):
        found["space.build.arguments"] = _said([*build.args, *sorted(build.keywords.items())])
        build = build.func
    names = (getattr(build, name, type(build).__name__) for name in ("__module__", "__qualname__"))
    found["space.build"] = ".".join(names)
    # What comes with l2l has a version; a user's own has nothing but its code to tell one from another.
    own = {name.partition(".")[0] for name in (__name__, *BUILT_IN.values())}
    code = None if found["space.build"].partition(".")[0] in own else code_digest.digest(build, own)
    return {**found, **({CODE: code} if code else {})}


def _said(value: Any) -> str:
    """A value in words that the next process finds as well."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_said(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple | set | frozenset):
        words = [_said(each) for each in value]
        return f"[{', '.join(sorted(words) if isinstance(value, set | frozenset) else words)}]"
    if value is None or isinstance(value, bool | int | float | str | os.PathLike):
        return repr(value)
    if isinstance(value, functools.partial):
        return f"{_said(value.func)}({_said([*value.args, *sorted(value.keywords.items())])})"
    made = code_digest.underlying(value)
    return f"{made.__module__}.{made.__qualname__}"


def data(task: Task) -> str:
    """Digest of the training and validation splits: other data in the same place are another search."""
    digest = hashlib.sha256()
    for split in ("train", "validation"):
        for array in task.load(split):
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def record(settings: Mapping[str, Any], space: SearchSpace[Any], objectives: int) -> dict[str, Any]:
    """The fingerprint as it is stored with a study: plain JSON.

    Raises: ValueError if a setting is not a JSON value.
    """
    made = {"format": FORMAT, "settings": dict(settings), "space": space.describe(), "objectives": objectives}
    try:
        return json.loads(json.dumps(made))
    except TypeError as error:
        raise ValueError(f"a fingerprint is made of JSON values: {error}.") from error


def check(stored: Any, wanted: Mapping[str, Any], place: str) -> None:
    """Compares the fingerprint in `place` with the one of this search.

    Raises: InputError that lists what differs, old value first, or says that a newer l2l wrote it.
    """
    version = stored.get("format") if isinstance(stored, dict) else None
    if type(version) is not int or version < 1:
        raise InputError(f"{place} has a fingerprint that l2l did not write; choose another out=.")
    if version > FORMAT:
        raise InputError(
            f"{place} was written by a newer l2l (format {version}, this one reads up to {FORMAT}); upgrade l2l."
        )
    old, new = _flat(stored), _flat(wanted)
    if CODE not in old or CODE not in new:
        old, new = ({key: value for key, value in each.items() if key != CODE} for each in (old, new))
    # Both sides know every choice that `choices` lists on both: one that is gone is one difference, not five.
    both = {name for name in new["choices"] if name in old["choices"]}
    keys = [key for key in {**old, **new} if not isinstance(key, tuple) or key[0] in both]
    lines = [
        f"{_name(key)} {_show(old.get(key, _ABSENT))} -> {_show(new.get(key, _ABSENT))}"
        for key in keys
        if _text(old.get(key, _ABSENT)) != _text(new.get(key, _ABSENT))
        and not (key not in old and new[key] is None)  # an argument that came later, and is not given
    ]
    if lines:
        more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        raise InputError(
            f"{place} holds another study: {', '.join(lines[:_SHOWN])}{more}; "
            "choose another out= or give the old values."
        )


def _flat(made: Mapping[str, Any]) -> dict[Any, Any]:
    """One entry a difference: settings by name, fields of choices by (choice, field)."""
    space: dict[str, dict[str, Any]] = made["space"]
    fields = {(name, field): value for name, choice in space.items() for field, value in choice.items()}
    # The order of the choices is part of the space: draws follow it.
    return {**made["settings"], "objectives": made["objectives"], "choices": list(space), **fields}


def _name(key: str | tuple[str, str]) -> str:
    if key == "task.data":
        return "task.data (a digest of its training and validation splits, so that other contents are seen)"
    return key if isinstance(key, str) else f"choices.{key[0]}.{key[1]}"


def _text(value: object) -> str:
    return "absent" if value is _ABSENT else json.dumps(value, sort_keys=True)


def _show(value: object) -> str:
    text = value if isinstance(value, str) and value else _text(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
