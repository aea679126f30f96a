"""The floor rule, held against every import: an arrow never points up, and wings do not know each other."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = {
    6: {"cli"},
    5: {"api", "compare", "show"},
    4: {"run", "objectives", "export", "optuna_sampler"},
    3: {
        *("searchers", "engine", "executors", "trackers", "tasks", "envs", "store"),
        *("reward", "rungs", "cohorts", "testing", "search_spaces"),
    },
    2: {"types", "abilities", "encoding"},
    1: {"space", "nn", "pareto", "machine", "errors", "files", "lazy"},
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
PARTS = {"searchers", "engine", "executors", "trackers", "tasks", "envs"}
WINGS = {*PARTS, "store"}
LINES_OF_A_FILE, LINES_OF_A_FUNCTION, LOOSE_MODULES = 400, 60, 14
ONLY = {
    "optuna": {
        *("l2l/store/log.py", "l2l/store/optuna_tables.py", "l2l/store/optuna_store.py", "l2l/store/database.py"),
        *("l2l/searchers/optuna_samplers.py", "l2l/searchers/optuna_replay.py"),
        "l2l/searchers/gp/study_reader.py",
        *("l2l/optuna_sampler/sampler.py", "l2l/optuna_sampler/inferred_space.py"),
    },
    "wandb": {"l2l/trackers/wandb.py"},
    "hydra": {f"l2l/cli/{name}.py" for name in ("compose", "config", "hydra_errors", "search")},
    "omegaconf": {"l2l/cli/compose.py", "l2l/cli/hydra_errors.py"},
    "sqlalchemy": {"l2l/store/optuna_store.py", "l2l/store/optuna_tables.py", "l2l/store/database.py"},
    "sklearn": {"l2l/tasks/digits.py"},
    "gymnasium": {"l2l/envs/__init__.py", "l2l/envs/search.py", "l2l/envs/vector.py"},
}
"""Where alone a library is imported."""


@functools.cache
def files() -> tuple[Path, ...]:
    """Every source file but `l2l/__init__.py`, whose public names load lazily."""
    paths = [path for folder in ("l2l", "search_spaces") for path in sorted((ROOT / folder).rglob("*.py"))]
    return tuple(path for path in paths if path != ROOT / "l2l/__init__.py")


@functools.cache
def parse(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def short_name(path: Path) -> str:
    """A file's path from the root."""
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    """A file's dotted name; a package's is that of its folder."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room(module: str) -> str:
    """The room of a dotted name: `searchers` for `l2l.searchers.controllers.policy`."""
    first, *rest = module.split(".")
    return rest[0] if first == "l2l" and rest else first


def names_in(node: ast.AST) -> Iterator[str]:
    """Dotted names that an import statement imports; of another statement none."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "a relative import"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported(path: Path) -> Iterator[str]:
    """Dotted names of all that a file imports, wherever in it the import stands."""
    for node in ast.walk(parse(path)):
        yield from names_in(node)


def imported_at_once(node: ast.AST) -> Iterator[str]:
    """Dotted names of what a module imports when it is imported: not in functions, not for the type checker alone."""
    for child in ast.iter_child_nodes(node):
        is_for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not is_for_types and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from names_in(child)
            yield from imported_at_once(child)


def arrows(path: Path) -> Iterator[tuple[str, str]]:
    """From room to room of ours, for every import of the file that leaves its room."""
    here = room(module_name(path))
    for name in imported(path):
        if name.split(".")[0] in ("l2l", "search_spaces") and name != "l2l.__version__" and room(name) != here:
            yield here, room(name)


def circles(graph: Mapping[str, Collection[str]]) -> dict[str, set[str]]:
    """What is left of a graph when all that leads nowhere has been taken away, again and again."""
    left = {here: set(targets) for here, targets in graph.items() if targets}
    while leaves := {there for targets in left.values() for there in targets} - set(left):
        left = {here: targets - leaves for here, targets in left.items() if targets - leaves}
    return left


def test_no_arrow_points_up() -> None:
    wrong = [
        f"{short_name(path)}: {here} (floor {FLOOR[here]}) imports {there} (floor {FLOOR.get(there)})"
        for path in files()
        for here, there in arrows(path)
        if FLOOR.get(there, 7) > FLOOR[here]
    ]
    assert not wrong, "\n".join(wrong)


def test_wings_do_not_know_each_other() -> None:
    wrong = [
        f"{short_name(path)}: {here} imports {there}, and both are wings"
        for path in files()
        for here, there in arrows(path)
        if {here, there} <= WINGS
    ]
    assert not wrong, "\n".join(wrong)


def test_every_room_has_a_floor() -> None:
    rooms = {room(module_name(path)) for path in files()}
    assert rooms == set(FLOOR)
    folders = {path.name for path in (ROOT / "l2l").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert {*folders, "search_spaces"} <= rooms
    assert all(any((ROOT / "l2l" / name).glob("*.py")) for name in folders)


def test_rooms_of_a_floor_are_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in files():
        for here, there in arrows(path):
            graph.setdefault(here, set()).add(there)
    assert circles(graph) == {}


def test_files_are_no_circle() -> None:
    modules = {module_name(path): path for path in files()}
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for here, path in modules.items():
        for name in imported_at_once(parse(path)):
            # Either a module, or a name in one.
            there = name if name in modules else name.rpartition(".")[0]
            graph[here] |= {there} & (set(modules) - {here})
    assert sum(map(len, graph.values())) > 100
    assert circles(graph) == {}
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == {"a": {"b"}, "b": {"c"}, "c": {"b"}}


def test_files_and_functions_are_short() -> None:
    long: list[str] = []
    for path in files():
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LINES_OF_A_FILE:
            long.append(f"{short_name(path)} has {lines} lines")
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LINES_OF_A_FUNCTION:
                    long.append(f"{short_name(path)}: {node.name} has {lines} lines")
    assert not long, "\n".join(long)


def test_few_modules_lie_loose() -> None:
    assert len([path for path in (ROOT / "l2l").glob("*.py") if path.name != "__init__.py"]) <= LOOSE_MODULES


def test_libraries_are_imported_where_they_belong() -> None:
    users: dict[str, set[str]] = {}
    for path in files():
        for name in imported(path):
            users.setdefault(name.split(".")[0], set()).add(short_name(path))
    for library, allowed in ONLY.items():
        assert users.get(library, set()) <= allowed, library
    assert users["optuna"] == ONLY["optuna"]
    assert users["wandb"] == ONLY["wandb"]


def test_layers_need_jax_flax_and_numpy_only() -> None:
    for path in sorted((ROOT / "l2l/nn").glob("*.py")):
        for name in imported(path):
            first = name.split(".")[0]
            is_ours = name.startswith("l2l.nn.")
            assert is_ours or first in {"jax", "flax", "numpy", *sys.stdlib_module_names}, short_name(path)


def test_the_library_knows_no_space_of_its_own() -> None:
    for path in files():
        if path.is_relative_to(ROOT / "l2l"):
            first_names = {name.split(".")[0] for name in imported(path)}
            assert not first_names & {"search_spaces", "conf", "experiments", "tests"}, short_name(path)
            says_it = "search_spaces" in path.read_text(encoding="utf-8")
            assert not says_it or short_name(path) == "l2l/store/builtin_spaces.py"
    from l2l.store.builtin_spaces import BUILT_IN

    assert all((ROOT / f"{name.replace('.', '/')}.py").is_file() for name in BUILT_IN.values())


def test_the_loop_names_no_concrete_part() -> None:
    for path in sorted((ROOT / "l2l/run").glob("*.py")):
        parts = {name for name in imported(path) if room(name) in PARTS | {"objectives", "export"}}
        assert parts <= {"l2l.trackers.background.BackgroundTracker"}, path


def test_what_starts_without_jax() -> None:
    # Each in turn, so that the first to import it is the one that is named.
    program = """
import importlib, sys
rooms = "errors files space types abilities cli.config cli cli.entry store.trial_json store.log".split()
for name in ("l2l", *(f"l2l.{room}" for room in rooms)):
    importlib.import_module(name)
    heavy = {"jax", "flax", "optax"} & set(sys.modules)
    assert not heavy, (name, heavy)
    if name != "l2l.store.log":
        assert not {"numpy", "optuna", "hydra", "wandb"} & set(sys.modules), name
print("done")
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (process.returncode, process.stdout.strip()) == (0, "done"), process.stderr
