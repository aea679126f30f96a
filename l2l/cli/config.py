"""The configuration: the types of its roots, the folder of its YAML files, and a check of every key and value."""

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
    """The root of `conf/compare.yaml`: the arguments of `l2l.compare.compare`, with the names as `searchers`."""

    _target_: str = "l2l.compare.compare"
    _partial_: bool = True
    trials: int = 200
    batch: int = 1
    seeds: int = 20
    seed: int = 0
    workers: int | None = None
    out: str = "comparison"
    searchers: list[str] = field(default_factory=list[str])
    space: dict[str, Any] = field(default_factory=dict[str, Any])
    task: dict[str, Any] = field(default_factory=dict[str, Any])
    objective: dict[str, Any] = field(default_factory=dict[str, Any])
    reward: dict[str, Any] = field(default_factory=dict[str, Any])
    executor: dict[str, Any] = field(default_factory=dict[str, Any])


def find_folder() -> Path:
    """The folder of the YAML files: `l2l/conf` in an installed wheel, `conf` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def register_schemas() -> None:
    """Registers the roots' types with Hydra, under the names that `conf/search.yaml` and `conf/compare.yaml` use."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=SearchConfig)
    ConfigStore.instance().store(name="compare_schema", node=CompareConfig)


def resolve_paths(node: Any, key: str = "") -> Any:
    """The configuration with absolute paths of the files it names, so that a run can be resumed from any folder."""
    if isinstance(node, Mapping):
        return {key: resolve_paths(child, key) for key, child in typing.cast("Mapping[str, Any]", node).items()}
    if isinstance(node, list):
        return [resolve_paths(entry, key) for entry in typing.cast("list[Any]", node)]
    if key not in ("path", "prior") or not isinstance(node, str) or not node:
        return node
    scheme, mark, path = node.rpartition("sqlite:///")
    return f"{scheme}{mark}{Path(path).resolve()}" if Path(path.partition("#")[0]).exists() else node


def check(config: Mapping[str, Any], schema: type = SearchConfig) -> None:
    """Checks every part of a configuration against the signature of its `_target_`.

    In a comparison `searcher` has several parts by name, as `tracker` has in a search.

    Raises: InputError for an unknown part, one without `_target_`, a key that the target does not take, or a
        value of the wrong type.
    """
    keys = [field.name for field in fields(schema)]
    is_comparison = "searchers" in keys
    for key in config:
        if key not in keys and not (is_comparison and key == "searcher"):
            raise InputError(f"the key {key!r} is unknown: {suggest_names(key, keys[2:])}")
    for group in GROUPS:
        if group not in keys and group not in config:
            continue
        node: Any = config.get(group)
        if group == ("searcher" if is_comparison else "tracker") and isinstance(node, Mapping):
            label = "the searcher {!r}: searcher" if is_comparison else "tracker.{}"
            parts = {label.format(name): part for name, part in node.items()}
        else:
            parts = {group: node}
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
        for key, child in node.items():
            _check_node(f"{path}.{key}", child)


def _check_call(path: str, node: Mapping[str, Any]) -> None:
    """Checks a node's keys and values against the signature of its `_target_`."""
    target = _import_target(path, node["_target_"])
    # A dataclass itself, because `__init__` cannot resolve the annotations of fields that it inherits.
    function = target.__init__ if inspect.isclass(target) and not is_dataclass(target) else target
    try:
        parameters = dict(inspect.signature(target).parameters)
        hints = typing.get_type_hints(function)
    except (TypeError, ValueError, NameError):
        return  # It has no Python signature, or its hints exist for type checkers only: the call itself will fail.
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for key, value in node.items():
        if key.startswith("_") and key.endswith("_"):
            continue
        if key not in parameters:
            advice = suggest_names(key, [*parameters, *_list_nested(node)]) if parameters else "it takes none."
            raise InputError(f"{path}.{key} is unknown: {node['_target_']} does not take it; {advice}")
        if value == "???":
            raise InputError(f"{path}.{key} has no value; give {path}.{key}=VALUE.")
        if key in hints and not _matches(value, hints[key]):
            raise InputError(f"{path}.{key} must be {_describe_hint(hints[key])}, got {value!r}.")


def _list_nested(node: Mapping[str, Any]) -> list[str]:
    """The arguments of a node's own parts, as `part.argument`."""
    names: list[str] = []
    for key, part in node.items():
        if isinstance(part, Mapping) and "_target_" in part:
            target = _import_target(key, typing.cast("Mapping[str, Any]", part)["_target_"])
            with contextlib.suppress(TypeError, ValueError):  # not a Python signature
                names += [f"{key}.{argument}" for argument in inspect.signature(target).parameters]
    return names


def _import_target(path: str, name: Any) -> Any:
    """The class or function that a `_target_` names. Raises: InputError if it cannot be imported."""
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


def _matches(value: Any, hint: Any) -> bool:
    """Whether a plain YAML value can be what the annotation says; an annotation of another kind accepts any value."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(value, Mapping):
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_matches(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str, types.NoneType):
        return isinstance(value, hint)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return isinstance(value, list) and all(_matches(entry, arguments[0]) for entry in value if arguments)
    return not _is_part(hint)


def _is_part(hint: Any) -> bool:
    """Whether the annotation is a class of l2l: only a node with a `_target_` makes one, no plain value does."""
    return inspect.isclass(hint) and hint.__module__.startswith("l2l.")


def _describe_hint(hint: Any) -> str:
    """An annotation in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_describe_hint, arguments))
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list, each entry {_describe_hint(arguments[0])}" if arguments else "a list"
    if _is_part(hint):
        return f"a node whose _target_ makes a {hint.__name__}"
    words = {int: "an integer", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}
    return words.get(hint) or getattr(hint, "__name__", str(hint))
