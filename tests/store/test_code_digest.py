"""The digest of a user's source: what a model is made of changes it, and nothing else does."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from l2l.store import code_digest

OWN = '''"""A space."""
import enum
import functools
import l2l
import numpy as np
from dataclasses import dataclass
from layers import block
import deep.parts as parts

SCALE = 2.0
WIDTHS = (32, 64)
TABLE = {"a": lambda x: x}
TABLE["b"] = lambda x: -x
TABLE.update(c=abs)
MATRIX = np.eye(3)
epochs = 5

class Kind(enum.Enum):
    """Kinds."""
    SMALL = 1

@dataclass
class Base:
    width: int = 8
    @property
    def used(self): return {"a", "b", "c"}

class Net(Base):
    def __call__(self, x): return inner(x) * SCALE + parts.shift(x)

@functools.cache
def inner(x):
    """Adds."""
    return [each + 1 for each in x]

def build(values, spec, /, extra=3):
    if spec.epochs:  # an attribute, not the global
        return block(WIDTHS, TABLE["a"], MATRIX, Kind.SMALL)
    return Net(), values["rate"]

def space(residual=False):
    if residual:
        def add(x): return x
    def local(values, spec): return add(build(values, spec))
    return local

def other(): return 1
found = l2l.search(space, trials=64) if False else None
if __name__ == "__main__":
    l2l.search(space, trials=64)
'''
LAYERS = "DEPTH = 2\ndef block(*sizes): return [DEPTH]\ndef unused(): return 0\n"
PARTS = "def shift(x): return x + 1\n"
FILES = {"own.py": OWN, "layers.py": LAYERS, "deep/__init__.py": "", "deep/parts.py": PARTS}


@pytest.fixture
def source_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    forget()


def forget() -> None:
    for name in ("own", "layers", "deep", "deep.parts"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def compute_digest(folder: Path, name: str = "build", old: str = "", new: str = "") -> str | None:
    """The digest after one edit."""
    assert any(old in text for text in FILES.values())
    for file, text in FILES.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(text.replace(old, new) if old else text)
    forget()
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        module = importlib.import_module("own")
    finally:
        sys.dont_write_bytecode = before
    return code_digest.digest(module.space() if name == "space" else getattr(module, name))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def other(): return 1", "def other(): return 2"),
        ("def build", "# a comment\n\ndef build"),
        ("trials=64", "trials=128"),
        ("epochs = 5", "epochs = 6"),
        ('"""Kinds."""', '"""Kinds of it."""'),
        ('"""Adds."""', ""),
        ("def unused(): return 0", "def unused(): return 1"),
    ],
)
def test_what_the_model_does_not_use_may_change(source_folder: Path, old: str, new: str) -> None:
    assert compute_digest(source_folder, old=old, new=new) == compute_digest(source_folder) is not None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SCALE = 2.0", "SCALE = 3.0"),
        ("(32, 64)", "(64, 128)"),
        ("lambda x: x}", "lambda x: x + x}"),
        ("lambda x: -x", "lambda x: x"),
        ("c=abs", "c=min"),
        ("np.eye(3)", "np.eye(4)"),
        ("SMALL = 1", "SMALL = 2"),
        ("width: int = 8", "width: int = 9"),
        ('"b", "c"', '"b", "d"'),
        ("each + 1", "each + 2"),
        ("@functools.cache", "@functools.lru_cache"),
        ("extra=3", "extra=4"),
        ("DEPTH = 2", "DEPTH = 3"),
        ("x + 1\n", "x + 2\n"),
    ],
)
def test_what_it_uses_may_not(source_folder: Path, old: str, new: str) -> None:
    assert compute_digest(source_folder, old=old, new=new) != compute_digest(source_folder)


def test_a_local_function_is_known_by_the_one_that_makes_it(source_folder: Path) -> None:
    """Its cell for `add` is empty, which is no reason to fall over."""
    edited_digest = compute_digest(source_folder, "space", "def add(x): return x", "def add(x): return -x")
    assert edited_digest != compute_digest(source_folder, "space")
    assert compute_digest(source_folder, "space", "(32, 64)", "(64, 128)") != compute_digest(source_folder, "space")


def test_without_a_file_there_is_no_digest() -> None:
    namespace: dict[str, object] = {"__name__": "nowhere"}
    exec("def build(values, spec): return 1", namespace)
    assert code_digest.digest(namespace["build"]) is None


@pytest.mark.parametrize("wrap", [lambda f: f.__get__(3), lambda f: __import__("functools").partial(f, 1)])
def test_what_is_wrapped_around_a_function_is_looked_through(wrap) -> None:
    assert code_digest.unwrap(wrap(forget)) is forget


def test_the_digest_of_a_package_is_that_of_all_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "sourced" / "inner").mkdir(parents=True)
    digests: list[str] = []
    for file, text in (("__init__.py", ""), ("inner/a.py", "1"), ("inner/a.py", "2"), ("inner/b.py", "2")):
        (tmp_path / "sourced" / file).write_text(text)
        code_digest.digest_packages.cache_clear()
        digests.append(code_digest.digest_packages("sourced"))
    assert len(set(digests)) == 4
    (tmp_path / "sourced" / "data.txt").write_text("no source")
    code_digest.digest_packages.cache_clear()
    assert code_digest.digest_packages("sourced") == digests[-1]
    code_digest.digest_packages.cache_clear()
