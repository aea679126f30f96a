"""Every YAML composes, is checked and makes its part; the root's schema is the signature of the search."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import os
from collections.abc import Mapping
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
from l2l.testing import landscape, write

CONF = config.find_folder()
FILES = sorted(CONF.rglob("*.yaml"))
PARTS = [(path.parent.name, path.stem) for path in FILES if path.parent.name in config.GROUPS]
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

DATA = {"nasbench201": "nasbench201/nasbench201.npz"}
"""What experiments read when they are made."""


def composed(*overrides: str) -> dict[str, Any]:
    """The resolved configuration of `l2l search` with these overrides."""
    config.register_schemas()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        plain: Any = OmegaConf.to_container(compose("search", list(overrides)), resolve=True)
    return plain


@pytest.fixture(scope="module")
def default() -> dict[str, Any]:
    """The configuration of a bare `l2l search`; copy it before changing it."""
    return composed()


def targets(node: Any) -> list[dict[str, Any]]:
    """Every node with a `_target_`."""
    inner = [found for part in node.values() for found in targets(part)] if isinstance(node, Mapping) else []
    return [*([node] if isinstance(node, Mapping) and "_target_" in node else []), *inner]


def same(left: object, right: object) -> bool:
    return type(left) is type(right) and left == right


def located(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def test_the_schema_is_the_signature() -> None:
    parameters = inspect.signature(l2l.search).parameters
    schema = {each.name: each for each in dataclasses.fields(config.SearchConfig) if each.name[0] != "_"}
    assert set(schema) == set(parameters) - {"config"}
    plain = {name: each for name, each in schema.items() if name not in config.GROUPS}
    assert {name: each.default for name, each in plain.items()} == {name: parameters[name].default for name in plain}
    assert set(plain) == {"trials", "batch", "seed", "out", "group"}
    assert set(config.GROUPS) == {path.name for path in CONF.iterdir() if path.is_dir()} - {"experiment"}
    assert located(config.SearchConfig()._target_) is l2l.search


@pytest.mark.parametrize(("group", "name"), PARTS, ids=str)
def test_every_value_of_a_group_makes_its_part(group: str, name: str, folder: Path) -> None:
    write(folder / "toy.npz", landscape(2, 2, ruggedness=0))
    choice = f"{group}={name}"
    plain = composed(choice, *REQUIRED.get(choice, []))
    config.check(plain)
    call = instantiate(plain, _convert_="all")
    assert call.func is l2l.search
    part, node = call.keywords[group], plain[group]
    if choice == "rungs=none":
        assert (part, node) == (None, None)
    elif group == "tracker":
        assert {each: type(made) for each, made in part.items()} == {
            each: located(inner["_target_"]) for each, inner in node.items()
        }
    elif node.get("_partial_"):
        assert part.func is located(node["_target_"])
    else:
        target = located(node["_target_"])
        assert type(part) is target or part.name == name
    if choice in REQUIRED:
        with pytest.raises(InputError, match=rf"{REQUIRED[choice][0].split('=')[0]} has no value; give "):
            config.check(composed(choice))


@pytest.mark.parametrize("name", [path.stem for path in FILES if path.parent.name == "experiment"])
def test_every_experiment_composes(name: str, default: dict[str, Any]) -> None:
    plain = composed(f"experiment={name}")
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
    for node in targets(yaml.safe_load(path.read_text())):
        parameters = inspect.signature(located(node["_target_"])).parameters
        assert [name for name in parameters if name in node and same(node[name], parameters[name].default)] == []


def test_every_target_of_ours_has_a_yaml_and_no_other_place() -> None:
    found = {node["_target_"] for path in FILES for node in targets(yaml.safe_load(path.read_text()))}
    assert all(name.startswith(("l2l.", "search_spaces.")) for name in found)
    spaces = {f"search_spaces.{path.stem}.space" for path in (CONF / "space").glob("*.yaml") if path.stem != "tabular"}
    assert spaces | {"l2l.objectives.benchmark_space"} <= found


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
    (folder / "mine_config.py").write_text("def any(**given): ...\ndef one(width: int, names: list[str] = []): ...\n")
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
    given = {
        "objective": {"path": "table.npz", "reward": "runs"}, "task": {"path": "elsewhere.npz"},
        "searcher": {
            "prior": ["runs", "sqlite:///table.npz#one", "sqlite:///a.db", "mysql://here"],
            "controller": {"prior": "runs"},
        },
        "out": "runs", "trials": 3,
    }  # fmt: skip
    assert config.resolve_paths(given) == {
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
    found = machine.compilation_cache()
    assert Path(found["JAX_COMPILATION_CACHE_DIR"]).parent == tmp_path / "l2l"
    assert found["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] == "-1"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    assert machine.compilation_cache()["JAX_COMPILATION_CACHE_DIR"] == "elsewhere"
