"""The configuration as the command line sees it: the root's types, where the YAML lies, and a check of every key."""

from __future__ import annotations

import contextlib
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from l2l.errors import InputError, suggest_names

GROUPS = ("objective", "space", "task", "searcher", "reward", "executor", "store", "tracker", "final", "rungs")


@dataclass
class SearchConfig:
    """The root of `conf/search.yaml`: the arguments of `l2l.search`."""

    _target_: str = "l2l.search"
    _partial_: bool = True
    trials: int = 64
    batch: int = 8
    seed: int = 0
    out: str | None = None
    group: str | None = None
    space: dict[str, Any] = field(default_factory=dict[str, Any])
    task: dict[str, Any] = field(default_factory=dict[str, Any])
    searcher: dict[str, Any] = field(default_factory=dict[str, Any])
    objective: dict[str, Any] = field(default_factory=dict[str, Any])
    reward: dict[str, Any] = field(default_factory=dict[str, Any])
    executor: dict[str, Any] = field(default_factory=dict[str, Any])
    store: dict[str, Any] = field(default_factory=dict[str, Any])
    tracker: dict[str, Any] = field(default_factory=dict[str, Any])
    final: dict[str, Any] | None = None
    rungs: dict[str, Any] | None = None


@dataclass
class CompareConfig:
    """The root of `conf/compare.yaml`: the arguments of `l2l.compare.compare`, but that `rows` name its searchers."""

    _target_: str = "l2l.compare.compare"
    _partial_: bool = True
    trials: int = 200
    batch: int = 1
    seeds: int = 20
    seed: int = 0
    workers: int | None = None
    out: str = "comparison"
    rows: list[str] = field(default_factory=list[str])
    space: dict[str, Any] = field(default_factory=dict[str, Any])
    task: dict[str, Any] = field(default_factory=dict[str, Any])
    objective: dict[str, Any] = field(default_factory=dict[str, Any])
    reward: dict[str, Any] = field(default_factory=dict[str, Any])
    executor: dict[str, Any] = field(default_factory=dict[str, Any])


def folder() -> Path:
    """Where the YAML files lie: inside the wheel, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def register() -> None:
    """Puts the roots' schemas where `conf/search.yaml` and `conf/compare.yaml` find them."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=SearchConfig)
    ConfigStore.instance().store(name="compare_schema", node=CompareConfig)


def anchored(node: Any, name: str = "") -> Any:
    """The same configuration with the files it names by absolute paths, so that a run goes on from any folder."""
    if isinstance(node, Mapping):
        return {key: anchored(part, key) for key, part in typing.cast("Mapping[str, Any]", node).items()}
    if isinstance(node, list):
        return [anchored(part, name) for part in typing.cast("list[Any]", node)]
    if name not in ("path", "prior") or not isinstance(node, str) or not node:
        return node
    scheme, mark, place = node.rpartition("sqlite:///")
    return f"{scheme}{mark}{Path(place).resolve()}" if Path(place.partition("#")[0]).exists() else node


def check(config: Mapping[str, Any], schema: type = SearchConfig) -> None:
    """Holds every part of a configuration against the signature that its `_target_` names.

    Of a comparison `searcher` holds several parts by name, as `tracker` does of a search.

    Raises: InputError for an unknown part, one without `_target_`, a key that the target does not take, or a
        value of the wrong type.
    """
    known = [each.name for each in fields(schema)]
    compares = "rows" in known
    for name in config:
        if name not in known and not (compares and name == "searcher"):
            raise InputError(f"the key {name!r} is unknown: {suggest_names(name, known[2:])}")
    for group in GROUPS:
        if group not in known and group not in config:
            continue
        node: Any = config.get(group)
        several = group == ("searcher" if compares else "tracker") and isinstance(node, Mapping)
        label = "the row {!r}: searcher" if compares else "tracker.{}"
        parts = {label.format(name): part for name, part in node.items()} if several else {group: node}
        for path, part in parts.items():
            if part is None and group in ("final", "rungs"):
                continue
            if not isinstance(part, Mapping) or "_target_" not in part:
                raise InputError(f"{path} names no _target_; choose one of the group's values: {group}=NAME.")
            _check_node(path, part)


def _check_node(path: str, node: Any) -> None:
    if isinstance(node, Mapping):
        if "_target_" in node:
            _check_call(path, typing.cast("Mapping[str, Any]", node))
        for name, part in node.items():
            _check_node(f"{path}.{name}", part)


def _check_call(path: str, node: Mapping[str, Any]) -> None:
    target = _locate(path, node["_target_"])
    # A dataclass itself, whose inherited fields are read where their class stands.
    called = target.__init__ if inspect.isclass(target) and not is_dataclass(target) else target
    try:
        parameters = dict(inspect.signature(target).parameters)
        hints = typing.get_type_hints(called)
    except (TypeError, ValueError, NameError):
        return  # Not a Python signature, or hints for type checkers only: the call itself will tell.
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        return
    for name, value in node.items():
        if name.startswith("_") and name.endswith("_"):
            continue
        if name not in parameters:
            advice = suggest_names(name, [*parameters, *_inner(node)]) if parameters else "it takes none."
            raise InputError(f"{path}.{name} is unknown: {node['_target_']} does not take it; {advice}")
        if value == "???":
            raise InputError(f"{path}.{name} has no value; give {path}.{name}=VALUE.")
        if name in hints and not _fits(value, hints[name]):
            raise InputError(f"{path}.{name} must be {_words(hints[name])}, got {value!r}.")


def _inner(node: Mapping[str, Any]) -> list[str]:
    """What the parts of a part take, as `part.argument`."""
    found: list[str] = []
    for name, part in node.items():
        if isinstance(part, Mapping) and "_target_" in part:
            target = _locate(name, typing.cast("Mapping[str, Any]", part)["_target_"])
            with contextlib.suppress(TypeError, ValueError):  # not a Python signature
                found += [f"{name}.{argument}" for argument in inspect.signature(target).parameters]
    return found


def _locate(path: str, name: Any) -> Any:
    """What a `_target_` names."""
    from hydra.utils import get_object

    try:
        return get_object(name)
    except Exception as error:
        cause = error.__cause__ or error
        reason = (str(cause).splitlines() or [type(cause).__name__])[0]
        raise InputError(
            f"{path}._target_ names {name!r}, which cannot be imported ({reason}); "
            "expected the dotted path of a class or function that Python finds from this folder."
        ) from error


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain YAML value can be what the annotation says; annotations of other kinds fit everything."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(value, Mapping):
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in arguments)
    if origin is typing.Literal:
        return value in arguments
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str, types.NoneType):
        return isinstance(value, hint)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return isinstance(value, list) and all(_fits(each, arguments[0]) for each in value if arguments)
    return not _is_part(hint)


def _is_part(hint: Any) -> bool:
    """Whether the annotation is a class of ours: no plain value is one, only a node with a `_target_` makes it."""
    return inspect.isclass(hint) and hint.__module__.startswith("l2l.")


def _words(hint: Any) -> str:
    """An annotation as a reader says it."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_words(each) for each in arguments)
    if typing.get_origin(hint) is typing.Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if isinstance(typing.get_origin(hint), type) and issubclass(typing.get_origin(hint), Sequence):
        return f"a list, each entry {_words(arguments[0])}" if arguments else "a list"
    if _is_part(hint):
        return f"a node whose _target_ makes a {hint.__name__}"
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}
    return plain.get(hint) or getattr(hint, "__name__", str(hint))
