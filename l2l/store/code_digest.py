"""What a user's code says: a digest of a function's source and of everything that it names in the user's own files."""

from __future__ import annotations

import ast
import functools
import hashlib
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
    made = underlying(function)
    home = sys.modules.get(str(getattr(made, "__module__", "")))
    found = _File.read(home)
    if home is None or found is None:
        return None
    root = str(getattr(made, "__qualname__", "")).partition(".")[0]
    files, seen, sums = {home.__name__: found}, set[tuple[str, str]](), hashlib.sha256()
    waiting = [(home.__name__, root)] if root in found.bound else [(home.__name__, name) for name in found.bound]
    while waiting:
        place, name = waiting.pop(0)
        if (place, name) in seen:
            continue
        seen.add((place, name))
        for statement in files[place].bound[name]:
            sums.update(f"{name}: {ast.unparse(statement)}\n".encode())
            waiting += [(place, other) for other in _loaded(statement) if other in files[place].bound]
            for module, names in _imported(statement, sys.modules[place]):
                if module not in files:
                    other = _File.read(sys.modules.get(module))
                    if other is None or module.partition(".")[0] in skip or not _beside(module, other, home):
                        continue
                    files[module] = other
                wanted = [name for name in names if name in files[module].bound]
                waiting += [(module, name) for name in wanted or files[module].bound]
    return sums.hexdigest()[:16]


def underlying(function: Any) -> Any:
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
        imported = {each.asname or each.name.partition(".")[0] for each in _aliases(tree)}
        for statement in tree.body:
            for name in _binds(statement, imported):
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


def _aliases(node: ast.AST) -> Iterator[ast.alias]:
    for each in ast.walk(node):
        if isinstance(each, ast.Import | ast.ImportFrom):
            yield from each.names


def _binds(statement: ast.stmt, imported: Collection[str]) -> set[str]:
    """The names that a top-level statement makes or changes."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test):
        return set()  # what a script does, not what it says
    found = {each.asname or each.name.partition(".")[0] for each in _aliases(statement)}
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store):
            found |= _owner(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            found |= _owner(node.value.func) - set(imported)  # `TABLE.update(…)`, but no call of a library
    return found


def _owner(node: ast.AST) -> set[str]:
    """The variable that an attribute or an entry belongs to, if it is one's."""
    inner = node
    while isinstance(inner, ast.Subscript | ast.Attribute):
        inner = inner.value
    return {inner.id} if isinstance(inner, ast.Name) and inner is not node else set()


def _loaded(statement: ast.stmt) -> list[str]:
    """The names that a statement looks up outside itself, in the order of the source."""
    nodes = list(ast.walk(statement))
    own: set[str] = set()
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        own = {each.arg for each in nodes if isinstance(each, ast.arg)}
        own |= {each.id for each in nodes if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
        own -= {name for each in nodes if isinstance(each, ast.Global) for name in each.names}
    names = [each.id for each in nodes if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)]
    return [name for name in dict.fromkeys(names) if name not in own]


def _imported(statement: ast.stmt, home: ModuleType) -> Iterator[tuple[str, list[str]]]:
    """The modules that a statement imports, each with the names taken from it (none: the module itself)."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Import):
            yield from ((each.name, []) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = (home.__package__ or "").split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for each in node.names:
                inner = f"{base}.{each.name}"
                yield (inner, []) if inner in sys.modules else (base, [each.name])


def _beside(name: str, file: _File, home: ModuleType) -> bool:
    """Whether a file is the user's own: of the package of `home`, or in the folder that holds it."""
    top = home.__name__.partition(".")[0]
    if name.partition(".")[0] == top:
        return True
    start = Path(str(home.__file__)).resolve()
    folder = start.parents[home.__name__.count(".") + (start.name == "__init__.py")]
    if folder.name in _INSTALLED or not file.path.is_relative_to(folder):
        return False
    return _INSTALLED.isdisjoint(file.path.relative_to(folder).parts)
