"""What makes two searches the same search: the settings that its history depends on, and the space.

A part is stored under its public name, so that it may move from file to file without becoming another part.
"""

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
from l2l.store.builtin_spaces import BUILT_IN, is_built_in
from l2l.types import Task

FORMAT = 2
"""Version of everything that the store writes. Format 1 named parts by their files."""

CODE = "space.code"
"""The digest of a user's own code; compared where both sides have one."""

_ABSENT = object()
_SHOWN = 5


def collect_settings(skip: Sequence[str] = (), **parts: Any) -> dict[str, Any]:
    """The settings of a search's parts by dotted name, as plain values; `skip` names arguments to leave out."""
    flat: dict[str, Any] = {}

    def walk(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, entry in value.items():
                walk(f"{name}.{key}", entry)
        elif isinstance(value, list | tuple):
            flat[name] = [item if isinstance(item, bool | int | float | str | None) else str(item) for item in value]
        elif value is None or isinstance(value, bool | int | float | str):
            flat[name] = value
        elif isinstance(value, os.PathLike):
            flat[name] = os.fspath(value)
        else:
            flat[name] = find_public_name(type(value))
            for field, entry in _read_arguments(value).items():
                if field not in skip:
                    walk(f"{name}.{field}", entry)

    for name, part in parts.items():
        walk(name, part)
    return flat


def find_public_name(part: Any) -> str:
    """The dotted name by which users know a class or function: in the outermost package that offers it."""
    module, name = part.__module__, part.__qualname__
    packages = itertools.accumulate(module.split("."), "{}.{}".format)
    homes = (package for package in packages if getattr(sys.modules.get(package), name, None) is part)
    return f"{next(homes, module)}.{name}"


def describe_builder(space: SearchSpace[Any]) -> dict[str, Any]:
    """A space's name; of one that is not built in also its builder's name, digest of code and arguments."""
    build, settings = space.build, {"space": space.name}
    if isinstance(build, functools.partial):
        settings["space.build.arguments"] = _describe([*build.args, *sorted(build.keywords.items())])
        build = build.func
    if is_built_in(space):  # its name says how it builds, and the version of l2l does
        return settings
    settings["space.build"] = find_public_name(build if hasattr(build, "__qualname__") else type(build))
    # A user's own space has nothing but its code to tell it from another.
    packages = {name.partition(".")[0] for name in (__name__, *BUILT_IN.values())}
    is_ours = settings["space.build"].partition(".")[0] in packages
    digest = None if is_ours else code_digest.digest(build, packages)
    return {**settings, **({CODE: digest} if digest else {})}


def describe_built_in(space: SearchSpace[Any], task: Task) -> dict[str, Any] | None:
    """A space and a task that come with l2l, and l2l itself; None if one is the user's own or holds some of theirs."""
    home = __name__.partition(".")[0]
    if not is_built_in(space) or type(task).__module__.partition(".")[0] != home:
        return None
    if not _is_plain(_read_arguments(task)):
        return None
    packages = sorted({home, *(module.partition(".")[0] for module in BUILT_IN.values())})
    return {
        "source": code_digest.digest_packages(*packages),
        "space": [space.name, space.describe()],
        "task": collect_settings(task=task),
    }


def _is_plain(value: Any) -> bool:
    """Whether a value holds nothing but plain values, which `collect_settings` tells apart."""
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | os.PathLike)


def digest_data(task: Task) -> str:
    """Digest of the training and validation splits: other data in the same files are another search."""
    digest = hashlib.sha256()
    for split in ("train", "validation"):
        for array in task.load(split):
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def make_fingerprint(settings: Mapping[str, Any], space: SearchSpace[Any], objectives: int) -> dict[str, Any]:
    """The fingerprint as it is stored with a study: plain JSON.

    Raises: ValueError if a setting is not a JSON value.
    """
    fingerprint = {"format": FORMAT, "settings": dict(settings), "space": space.describe(), "objectives": objectives}
    try:
        return json.loads(json.dumps(fingerprint))
    except TypeError as error:
        raise ValueError(f"a fingerprint is made of JSON values: {error}.") from error


def check_fingerprint(stored: Any, expected: Mapping[str, Any], label: str) -> None:
    """Compares the stored fingerprint with the one of this search; `label` is what messages call its store.

    Raises: InputError that lists the differences, old value first, or says that another version of l2l wrote it.
    """
    version = stored.get("format") if isinstance(stored, dict) else None
    if type(version) is not int or version < 1:
        raise InputError(f"{label} has a fingerprint that l2l did not write; choose another out=.")
    if version > FORMAT:
        raise InputError(
            f"{label} was written by a newer l2l (format {version}, this one reads format {FORMAT}); upgrade l2l."
        )
    if version < FORMAT:
        raise InputError(
            f"{label} was written by an older l2l (format {version}, this one reads format {FORMAT}); choose another "
            "out=, or continue it with the l2l that began it."
        )
    old, new = _flatten(stored), _flatten(expected)
    if CODE not in old or CODE not in new:
        old, new = ({key: value for key, value in side.items() if key != CODE} for side in (old, new))
    # A choice that one side lacks is one difference (in `choices`), not one for each of its fields.
    common = {name for name in new["choices"] if name in old["choices"]}
    keys = [key for key in {**old, **new} if not isinstance(key, tuple) or key[0] in common]
    differences = [
        f"{_name_key(key)} {_show(old.get(key, _ABSENT))} -> {_show(new.get(key, _ABSENT))}"
        for key in keys
        if _to_text(old.get(key, _ABSENT)) != _to_text(new.get(key, _ABSENT))
        and not (key not in old and new[key] is None)  # an argument that l2l got later, at its default
    ]
    if differences:
        more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise InputError(
            f"{label} holds another study: {', '.join(differences[:_SHOWN])}{more}; "
            "choose another out= or use the old values."
        )


def _read_arguments(part: Any) -> dict[str, Any]:
    """The arguments of a part: a dataclass's fields, or the plain public attributes of any other object."""
    if dataclasses.is_dataclass(part):
        return {field.name: getattr(part, field.name) for field in dataclasses.fields(part) if field.init}
    plain = bool | int | float | str | None
    public = {name: value for name, value in getattr(part, "__dict__", {}).items() if not name.startswith("_")}
    return {name: value for name, value in public.items() if isinstance(value, plain)}


def _describe(value: Any) -> str:
    """A value as text that is the same in every process."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_describe(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple | set | frozenset):
        texts = [_describe(item) for item in value]
        return f"[{', '.join(sorted(texts) if isinstance(value, set | frozenset) else texts)}]"
    if value is None or isinstance(value, bool | int | float | str | os.PathLike):
        return repr(value)
    if isinstance(value, functools.partial):
        return f"{_describe(value.func)}({_describe([*value.args, *sorted(value.keywords.items())])})"
    return find_public_name(code_digest.unwrap(value))


def _flatten(fingerprint: Mapping[str, Any]) -> dict[Any, Any]:
    """One entry for each possible difference: settings by name, fields of choices by (choice, field)."""
    space: dict[str, dict[str, Any]] = fingerprint["space"]
    fields = {(name, field): value for name, choice in space.items() for field, value in choice.items()}
    # The order of the choices is part of the space: random samples depend on it.
    return {**fingerprint["settings"], "objectives": fingerprint["objectives"], "choices": list(space), **fields}


def _name_key(key: str | tuple[str, str]) -> str:
    if key == "task.data":
        return "task.data (a digest of its training and validation splits, so that a change of the data is seen)"
    return key if isinstance(key, str) else f"choices.{key[0]}.{key[1]}"


def _to_text(value: object) -> str:
    return "absent" if value is _ABSENT else json.dumps(value, sort_keys=True)


def _show(value: object) -> str:
    text = value if isinstance(value, str) and value else _to_text(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
