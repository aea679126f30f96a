"""The floor rule, held against every import: an arrow never points up, and wings do not know each other."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    6: {"cli"},
    5: {"api", "compare", "show"},
    4: {"run", "objectives", "export", "optuna_sampler"},
    3: {
        *("searchers", "engine", "executors", "trackers", "tasks", "envs", "store"),
        *("reward", "rungs", "cohorts", "testing", "search_spaces"),
    },
    2: {"types", "encoding"},
    1: {"space", "nn", "pareto", "machine", "errors", "files", "builtin", "lazy", "interrupts"},
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
WINGS = {"searchers", "engine", "executors", "trackers", "tasks", "envs"}
ONLY = {
    "optuna": {
        *("l2l/store/log.py", "l2l/store/optuna_tables.py"),
        *("l2l/searchers/optuna_samplers.py", "l2l/searchers/optuna_replay.py"),
        "l2l/searchers/gp/earlier_searches.py",
        *("l2l/optuna_sampler/sampler.py", "l2l/optuna_sampler/inferred_space.py"),
    },
    "wandb": {"l2l/trackers/wandb.py"},
    "ray": {"l2l/executors/ray.py"},
    "hydra": {"l2l/cli/commands.py", "l2l/cli/overrides.py", "l2l/cli/config.py"},
    "omegaconf": {"l2l/cli/commands.py", "l2l/cli/overrides.py", "l2l/cli/config.py"},
    "sqlalchemy": {"l2l/store/log.py", "l2l/store/optuna_tables.py"},
    "sklearn": {"l2l/tasks/digits.py"},
    "gymnasium": {"l2l/envs/__init__.py", "l2l/envs/search.py", "l2l/envs/vector.py"},
}
"""Where alone a library is imported."""


def files() -> list[Path]:
    """Every source file but `l2l/__init__.py`, whose public names load lazily."""
    found = [path for folder in ("l2l", "search_spaces") for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if path != ROOT / "l2l/__init__.py"]


def room(module: str) -> str:
    """The room of a dotted name: `searchers` for `l2l.searchers.controllers.policy`."""
    first, *rest = module.split(".")
    return rest[0] if first == "l2l" and rest else first


def imported(path: Path) -> Iterator[str]:
    """Dotted names of all that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def arrows(path: Path) -> Iterator[tuple[str, str]]:
    """From room to room of ours, for every import of the file that leaves its room."""
    here = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for name in imported(path):
        if name.split(".")[0] in ("l2l", "search_spaces") and name != "l2l.__version__" and room(name) != here:
            yield here, room(name)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", files(), ids=named)
def test_no_arrow_points_up(path: Path) -> None:
    for here, there in arrows(path):
        assert there in FLOOR, f"{there} is in no floor"
        assert FLOOR[there] <= FLOOR[here], f"{here} (floor {FLOOR[here]}) imports {there} (floor {FLOOR[there]})"
        assert not {here, there} <= WINGS, f"{here} and {there} are wings"


def test_every_file_has_a_floor() -> None:
    rooms = {room(".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in files()}
    assert rooms <= set(FLOOR)
    assert len(rooms) > 20


def test_rooms_of_a_floor_are_no_ring() -> None:
    graph: dict[str, set[str]] = {}
    for path in files():
        for here, there in arrows(path):
            graph.setdefault(here, set()).add(there)
    while leaves := {there for targets in graph.values() for there in targets} - set(graph):
        graph = {here: targets - leaves for here, targets in graph.items()}
        graph = {here: targets for here, targets in graph.items() if targets}
    assert graph == {}


def test_libraries_are_imported_where_they_belong() -> None:
    found: dict[str, set[str]] = {}
    for path in files():
        for name in imported(path):
            found.setdefault(name.split(".")[0], set()).add(named(path))
    for library, places in ONLY.items():
        assert found.get(library, set()) <= places, library
    assert found["optuna"] == ONLY["optuna"]
    assert found["wandb"] == ONLY["wandb"]


def test_layers_need_jax_flax_and_numpy_only() -> None:
    for path in sorted((ROOT / "l2l/nn").glob("*.py")):
        for name in imported(path):
            first = name.split(".")[0]
            assert first in {"jax", "flax", "numpy"} or name.startswith("l2l.nn.") or first in sys.stdlib_module_names


def test_the_library_knows_no_space_of_its_own() -> None:
    for path in files():
        if path.is_relative_to(ROOT / "l2l"):
            assert not {name.split(".")[0] for name in imported(path)} & {
                "search_spaces",
                "conf",
                "experiments",
                "tests",
            }
            names = "search_spaces" in path.read_text(encoding="utf-8")
            assert not names or named(path) == "l2l/builtin.py"
    from l2l.builtin import BUILT_IN

    assert all((ROOT / f"{name.replace('.', '/')}.py").is_file() for name in BUILT_IN.values())


def test_the_loop_names_no_concrete_part() -> None:
    wings = {name for name in imported(ROOT / "l2l/run/loop.py") if room(name) in WINGS | {"objectives", "export"}}
    assert wings <= {"l2l.trackers.apart.Apart"}


def test_what_starts_without_jax() -> None:
    # Each in turn, so that the first to import it is the one that is named.
    program = """
import importlib, sys
rooms = "errors files space types cli.config cli cli.commands store.trial_json store.log".split()
for name in ("l2l", *(f"l2l.{room}" for room in rooms)):
    importlib.import_module(name)
    heavy = {"jax", "flax", "optax"} & set(sys.modules)
    assert not heavy, (name, heavy)
    if name != "l2l.store.log":
        assert not {"numpy", "optuna", "hydra", "wandb"} & set(sys.modules), name
print("done")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "done"), done.stderr
