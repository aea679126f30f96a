"""Every YAML composes, is checked and makes its part; the root's schema is the signature of the search."""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import inspect
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import OmegaConf

import l2l
from l2l import machine
from l2l.cli import config
from l2l.errors import InputError
from l2l.store.fingerprint import collect_settings, describe_builder, find_public_name
from l2l.testing import make_landscape, write_landscape

CONF = config.find_folder()
FILES = sorted(CONF.rglob("*.yaml"))
VALUES = {group: sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in config.GROUPS}
PARTS = [(group, name) for group, names in VALUES.items() for name in names]
ALONE = ("objective", "tabular")
"""The one value that chooses the values of other groups too."""
REQUIRED = {
    "reward=constrained": ["reward.limit=10000"],
    "reward=latency_penalised": ["reward.target=10000"],
    "objective=tabular": ["objective.path=toy.npz", "objective.codes=codes", "objective.reward=reward"],
    "space=tabular": ["space.path=toy.npz", "space.codes=codes"],
    "reward=several": ["reward.metrics={accuracy: true, parameters: false}"],
    "store=postgresql": ["store.url=postgresql+psycopg://me@host/trials"],
    "task=idx_images": ["task.name=kmnist"],
    "task=text": ["task.path=story.txt"],
    "task=labelled_text": ["task.path=reviews.txt"],
    "task=tabular": ["task.path=toy.npz", "task.metric=reward"],
}

STORED = json.loads((Path(__file__).parent / "stored_settings.json").read_text())
"""By value of a group: what a study of a search with it holds. A changed entry makes old run folders another study."""

DATA = {"nasbench201": "nasbench201/nasbench201.npz"}
"""What experiments read when they are made."""


@pytest.fixture(scope="module", autouse=True)
def _hydra() -> Iterator[None]:
    """Hydra, initialised once for all compositions of this file."""
    config.register_schemas()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@functools.cache
def compose_search(*overrides: str) -> dict[str, Any]:
    """The resolved configuration of `l2l search` with these overrides; shared, so copy it before changing it."""
    plain: Any = OmegaConf.to_container(compose("search", list(overrides)), resolve=True)
    return plain


def compose_value(group: str, name: str, complete: bool = True) -> dict[str, Any]:
    """The configuration of `l2l search GROUP=NAME`; if `complete` with the values that its YAML leaves open.

    A composition takes Hydra a third of a second. The first value of every group is composed in one go, the
    second one, and so on, and the wanted part is put into the default configuration.
    """
    if (group, name) == ALONE:
        return compose_search(*write_overrides(group, name, complete))
    index = VALUES[group].index(name)
    choices = [(other, names[index]) for other, names in VALUES.items() if index < len(names)]
    overrides = [word for choice in choices if choice != ALONE for word in write_overrides(*choice, complete)]
    return {**compose_search(), group: compose_search(*overrides)[group]}


def write_overrides(group: str, name: str, complete: bool) -> list[str]:
    """The overrides that choose a value of a group."""
    choice = f"{group}={name}"
    return [choice, *(REQUIRED.get(choice, []) if complete else [])]


def list_settings(group: str, part: Any) -> dict[str, Any]:
    """The settings of a part as a study holds them; of an executor, which a study does not depend on, its name."""
    if group == "space":
        return describe_builder(part)
    if group == "executor":
        return {group: find_public_name(type(part))}
    return {group: find_public_name(part.func)} if hasattr(part, "func") else collect_settings(**{group: part})


@pytest.fixture
def default() -> dict[str, Any]:
    """The configuration of a bare `l2l search`."""
    return copy.deepcopy(compose_search())


def list_targets(node: Any) -> list[dict[str, Any]]:
    """Every node with a `_target_`."""
    inner = [target for part in node.values() for target in list_targets(part)] if isinstance(node, Mapping) else []
    return [*([node] if isinstance(node, Mapping) and "_target_" in node else []), *inner]


def is_same(left: object, right: object) -> bool:
    return type(left) is type(right) and left == right


def import_target(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def test_the_schema_is_the_signature() -> None:
    parameters = inspect.signature(l2l.search).parameters
    schema = {field.name: field for field in dataclasses.fields(config.SearchConfig) if field.name[0] != "_"}
    assert set(schema) == set(parameters) - {"config"}
    settings = {name: field for name, field in schema.items() if name not in config.GROUPS}
    defaults = {name: parameters[name].default for name in settings}
    assert {name: field.default for name, field in settings.items()} == defaults
    assert set(settings) == {"trials", "batch", "seed", "out", "group"}
    assert set(config.GROUPS) == {path.name for path in CONF.iterdir() if path.is_dir()} - {"experiment"}
    assert import_target(config.SearchConfig()._target_) is l2l.search


@pytest.mark.parametrize(("group", "name"), PARTS, ids=str)
def test_every_value_of_a_group_makes_its_part(group: str, name: str, folder: Path) -> None:
    write_landscape(folder / "toy.npz", make_landscape(2, 2, ruggedness=0))
    choice = f"{group}={name}"
    plain = compose_value(group, name)
    config.check(plain)
    call = instantiate(plain, _convert_="all")
    assert call.func is l2l.search
    part, node = call.keywords[group], plain[group]
    if choice == "rungs=none":
        assert (part, node) == (None, None)
    elif group == "tracker":
        assert {key: type(tracker) for key, tracker in part.items()} == {
            key: import_target(child["_target_"]) for key, child in node.items()
        }
    elif node.get("_partial_"):
        assert part.func is import_target(node["_target_"])
    else:
        target = import_target(node["_target_"])
        assert type(part) is target or part.name == name
    assert list_settings(group, part) == STORED[choice]
    if choice in REQUIRED:
        with pytest.raises(InputError, match=rf"{REQUIRED[choice][0].split('=')[0]} has no value; give "):
            config.check(compose_value(group, name, complete=False))


@pytest.mark.parametrize(("group", "name"), [("rungs", "none"), ("searcher", "preferences"), ("task", "tabular")])
def test_values_of_other_groups_change_nothing(group: str, name: str) -> None:
    assert compose_value(group, name) == compose_search(*write_overrides(group, name, complete=True))


@pytest.mark.parametrize("name", [path.stem for path in FILES if path.parent.name == "experiment"])
def test_every_experiment_composes(name: str, default: dict[str, Any]) -> None:
    plain = compose_search(f"experiment={name}")
    config.check(plain)
    assert plain != default
    assert set(plain) == set(default)
    if name in DATA and not (Path(os.environ.get("L2L_DATA", "")) / DATA[name]).is_file():
        pytest.skip(f"set L2L_DATA to a folder with {DATA[name]}")
    assert instantiate(plain, _convert_="all").func is l2l.search


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_a_yaml_says_what_it_is_and_nothing_twice(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ")
    assert len(lines[0].split()) > 2
    for node in list_targets(yaml.safe_load(path.read_text())):
        target = import_target(node["_target_"])
        assert node["_target_"] == find_public_name(target)
        parameters = inspect.signature(target).parameters
        assert [name for name in parameters if name in node and is_same(node[name], parameters[name].default)] == []


def test_every_target_is_in_l2l_or_the_spaces_and_every_space_has_a_yaml() -> None:
    names = {node["_target_"] for path in FILES for node in list_targets(yaml.safe_load(path.read_text()))}
    assert all(name.startswith(("l2l.", "search_spaces.")) for name in names)
    spaces = {f"search_spaces.{path.stem}.space" for path in (CONF / "space").glob("*.yaml") if path.stem != "tabular"}
    assert spaces | {"l2l.objectives.benchmark_space"} <= names


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"trails": 3}, "the key 'trails' is unknown: did you mean 'trials' or 'task'?"),
    ({"searcher": None}, "searcher names no _target_; choose one of the group's values: searcher=NAME."),
    ({"space": {}}, "space names no _target_; choose one of the group's values: space=NAME."),
    ({"space": "mlp"}, "space names no _target_"),
    ({"tracker": {"console": None}}, "tracker.console names no _target_"),
    ({"tracker": 3}, "tracker names no _target_"),
    (
        {"searcher.learningrate": 3},
        "searcher.learningrate is unknown: l2l.searchers.Controller does not take it; did you mean "
        "'update.learning_rate'?",
    ),
    ({"searcher.policies": 3}, "searcher.policies is unknown: l2l.searchers.Controller does not take it; "),
    ({"searcher.update.learning_rate": "fast"}, "searcher.update.learning_rate must be a number, got 'fast'."),
    ({"searcher.update.learning_rate": True}, "searcher.update.learning_rate must be a number, got True."),
    (
        {"searcher.update.learningrate": 3},
        "searcher.update.learningrate is unknown: ",
    ),
    ({"searcher.baseline.normalise": 1}, "searcher.baseline.normalise must be true or false, got 1."),
    ({"searcher.baseline": 0.9}, "searcher.baseline must be a node whose _target_ makes a Baseline, got 0.9."),
    ({"searcher.update.minibatch": 2.5}, "searcher.update.minibatch must be an integer or null, got 2.5."),
    ({"searcher.bins": 2.5}, "searcher.bins must be an integer, got 2.5."),
    ({"searcher.policy": 3}, "searcher.policy must be a node whose _target_ makes a Policy, got 3."),
    (
        {"searcher.policy": {"_target_": "l2l.searchers.controllers.Lstm", "width": 3}},
        "searcher.policy.width is unknown: ",
    ),
    ({"space.widths": 8}, "space.widths must be a list, each entry an integer, got 8."),
    ({"space.widths": [8, "x"]}, "space.widths must be a list, each entry an integer, got [8, 'x']."),
    ({"task.epochs": "???"}, "task.epochs has no value; give task.epochs=VALUE."),
    (
        {"task._target_": "l2l.tasks.digits.Digit"},
        "task._target_ names 'l2l.tasks.digits.Digit', which cannot be",
    ),
    ({"task._target_": 3}, "task._target_ names 3, which cannot be imported"),
    ({"store.url": 5}, "store.url must be text or null, got 5."),
]


@pytest.mark.parametrize(("change", "words"), CHANGES, ids=[next(iter(change)) for change, _ in CHANGES])
def test_what_does_not_fit_is_named(default: dict[str, Any], change: dict[str, Any], words: str) -> None:
    plain = copy.deepcopy(default)
    for path, value in change.items():
        *nodes, last = path.split(".")
        node = plain
        for name in nodes:
            node = node[name]
        node[last] = value
    with pytest.raises(InputError) as caught:
        config.check(plain)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


def test_a_missing_part_is_named(default: dict[str, Any]) -> None:
    for group in config.GROUPS:
        plain = {name: part for name, part in default.items() if name != group}
        if group in ("final", "rungs"):
            config.check(plain)
            continue
        with pytest.raises(InputError, match=f"^{group} names no _target_"):
            config.check(plain)


def test_a_users_own_parts(default: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "mine_config.py").write_text(
        "def any(**arguments): ...\ndef one(width: int, names: list[str] = []): ...\n"
    )
    (folder / "mine_empty.py").write_text("raise RuntimeError\n")
    monkeypatch.syspath_prepend(folder)
    config.check({**default, "space": {"_target_": "mine_config.any", "any": object()}})
    config.check({**default, "space": {"_target_": "mine_config.one", "width": 3, "names": ["a"]}})
    with pytest.raises(InputError, match=r"^space\.width must be an integer, got 3\.5\.$"):
        config.check({**default, "space": {"_target_": "mine_config.one", "width": 3.5}})
    with pytest.raises(InputError, match=r"which cannot be imported \(.+\); expected the dotted path"):
        config.check({**default, "space": {"_target_": "mine_empty.space"}})


def test_files_are_named_by_absolute_paths(folder: Path) -> None:
    (folder / "table.npz").touch()
    (folder / "runs").mkdir()
    plain = {
        "objective": {"path": "table.npz", "reward": "runs"}, "task": {"path": "elsewhere.npz"},
        "searcher": {
            "prior": ["runs", "sqlite:///table.npz#one", "sqlite:///a.db", "mysql://here"],
            "controller": {"prior": "runs"},
        },
        "out": "runs", "trials": 3,
    }  # fmt: skip
    assert config.resolve_paths(plain) == {
        "objective": {"path": str(folder / "table.npz"), "reward": "runs"}, "task": {"path": "elsewhere.npz"},
        "searcher": {
            "prior": [str(folder / "runs"), f"sqlite:///{folder}/table.npz#one", "sqlite:///a.db", "mysql://here"],
            "controller": {"prior": str(folder / "runs")},
        },
        "out": "runs", "trials": 3,
    }  # fmt: skip


def test_the_compilation_cache_is_on_and_leaves_settings_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in machine.compilation_cache():
        monkeypatch.delenv(name)
    variables = machine.compilation_cache()
    assert Path(variables["JAX_COMPILATION_CACHE_DIR"]).parent == tmp_path / "l2l"
    assert variables["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] == "-1"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    assert machine.compilation_cache()["JAX_COMPILATION_CACHE_DIR"] == "elsewhere"
