"""A digest of a user's code: a function's source and everything that it names in the user's own files."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

_INSTALLED = {"site-packages", "dist-packages"}


def digest(function: Any, skip: Collection[str] = ()) -> str | None:
    """Digest of a function's source and of all that it names, in its file and in those beside it.

    Comments, docstrings, layout and what the function never reaches do not count; nor does code outside the folder
    that its module or top-level package lies in, or in a package of `skip`. None where there is no file to read,
    as in a notebook.
    """
    target = unwrap(function)
    home = sys.modules.get(str(getattr(target, "__module__", "")))
    home_file = _File.read(home)
    if home is None or home_file is None:
        return None
    root = str(getattr(target, "__qualname__", "")).partition(".")[0]
    files, seen, sums = {home.__name__: home_file}, set[tuple[str, str]](), hashlib.sha256()
    waiting = (
        [(home.__name__, root)] if root in home_file.bound else [(home.__name__, name) for name in home_file.bound]
    )
    while waiting:
        here, name = waiting.pop(0)
        if (here, name) in seen:
            continue
        seen.add((here, name))
        for statement in files[here].bound[name]:
            sums.update(f"{name}: {ast.unparse(statement)}\n".encode())
            waiting += [(here, other) for other in _list_loaded_names(statement) if other in files[here].bound]
            for module, names in _list_imports(statement, sys.modules[here]):
                if module not in files:
                    other = _File.read(sys.modules.get(module))
                    if other is None or module.partition(".")[0] in skip or not _is_users_file(module, other, home):
                        continue
                    files[module] = other
                used = [name for name in names if name in files[module].bound]
                waiting += [(module, name) for name in used or files[module].bound]
    return sums.hexdigest()[:16]


@functools.cache
def digest_packages(*names: str) -> str:
    """Digest of all source files of these packages."""
    sums = hashlib.sha256()
    for name in names:
        spec = importlib.util.find_spec(name)
        folders = [Path(folder) for folder in (spec.submodule_search_locations if spec else None) or ()]
        for folder in folders:
            for path in sorted(folder.rglob("*.py")):
                content = path.read_bytes()
                sums.update(f"{name} {path.relative_to(folder)} {len(content)}\n".encode() + content)
    return sums.hexdigest()[:32]


def unwrap(function: Any) -> Any:
    """The function or class behind a partial, a bound method, a wrapped function or a callable object."""
    for _ in range(32):
        if isinstance(function, functools.partial):
            function = function.func
        elif callable(inner := getattr(function, "__wrapped__", getattr(function, "__func__", None))):
            function = inner
        else:
            break
    return function if hasattr(function, "__qualname__") else type(function)


class _File:
    """A module's top-level statements by the names that they bind."""

    def __init__(self, path: Path, tree: ast.Module) -> None:
        self.path = path
        self.bound: dict[str, list[ast.stmt]] = {}
        imported = {alias.asname or alias.name.partition(".")[0] for alias in _list_aliases(tree)}
        for statement in tree.body:
            for name in _list_bound_names(statement, imported):
                self.bound.setdefault(name, []).append(statement)

    @classmethod
    def read(cls, module: ModuleType | None) -> _File | None:
        """The module's file; None if it has none that can be read."""
        name = getattr(module, "__file__", None)
        try:
            if name is None or not name.endswith(".py"):
                return None
            path = Path(name).resolve()
            return cls(path, _Bare().visit(ast.parse(path.read_bytes())))
        except (OSError, SyntaxError, ValueError):
            return None


class _Bare(ast.NodeTransformer):
    """Takes the docstrings out."""

    def visit(self, node: ast.AST) -> Any:
        """The node without its docstring, and without those of all in it."""
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body[:1] = [] if len(node.body) > 1 or isinstance(node, ast.Module) else [ast.Pass()]
        return self.generic_visit(node)


def _list_aliases(node: ast.AST) -> Iterator[ast.alias]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import | ast.ImportFrom):
            yield from inner.names


def _list_bound_names(statement: ast.stmt, imported: Collection[str]) -> set[str]:
    """The names that a top-level statement makes or changes."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test):
        return set()  # what a script does, not what it says
    names = {alias.asname or alias.name.partition(".")[0] for alias in _list_aliases(statement)}
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store):
            names |= _find_owner(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            names |= _find_owner(node.value.func) - set(imported)  # `TABLE.update(…)`, but no call of a library
    return names


def _find_owner(node: ast.AST) -> set[str]:
    """The variable that an attribute or an entry belongs to, if it is one's."""
    inner = node
    while isinstance(inner, ast.Subscript | ast.Attribute):
        inner = inner.value
    return {inner.id} if isinstance(inner, ast.Name) and inner is not node else set()


def _list_loaded_names(statement: ast.stmt) -> list[str]:
    """The names that a statement looks up outside itself, in the order of the source."""
    nodes = list(ast.walk(statement))
    local: set[str] = set()
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        local = {node.arg for node in nodes if isinstance(node, ast.arg)}
        local |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        local -= {name for node in nodes if isinstance(node, ast.Global) for name in node.names}
    names = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    return [name for name in dict.fromkeys(names) if name not in local]


def _list_imports(statement: ast.stmt, home: ModuleType) -> Iterator[tuple[str, list[str]]]:
    """The modules that a statement imports, each with the names taken from it (none: the module itself)."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = (home.__package__ or "").split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield (inner, []) if inner in sys.modules else (base, [alias.name])


def _is_users_file(name: str, file: _File, home: ModuleType) -> bool:
    """Whether a file is the user's own: of the package of `home`, or in the folder that holds it."""
    top = home.__name__.partition(".")[0]
    if name.partition(".")[0] == top:
        return True
    start = Path(str(home.__file__)).resolve()
    folder = start.parents[home.__name__.count(".") + (start.name == "__init__.py")]
    if folder.name in _INSTALLED or not file.path.is_relative_to(folder):
        return False
    return _INSTALLED.isdisjoint(file.path.relative_to(folder).parts)
