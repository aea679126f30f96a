"""The fingerprint of a user's own code: what changes a search changes it, and nothing else does."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest

from l2l import fingerprint
from l2l.space import Real, SearchSpace
from search_spaces import mlp

SOURCE = """
SCALE = 2.0

class Base:
    def used(self): return {"a", "b", "c"}

class Net(Base):
    def __call__(self, x): return inner(x) * SCALE

def inner(x): return [each + 1 for each in x]

def build(values, spec, /, extra=3): return Net(), values["rate"]

def other(): return 1
"""


def code(source: str) -> str:
    module = types.ModuleType("own")
    exec(compile(source, "own.py", "exec"), vars(module))
    return fingerprint.code(module.build)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def other(): return 1", "def other(): return 2"),
        ("def build", "# a comment\n\ndef build"),
    ],
)
def test_what_the_model_does_not_use_may_change(old: str, new: str) -> None:
    assert old in SOURCE
    assert code(SOURCE.replace(old, new)) == code(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [("SCALE = 2.0", "SCALE = 3.0"), ("each + 1", "each + 2"), ('"b"', '"d"'), ("extra=3", "extra=4"), ("rate", "r")],
)
def test_what_it_uses_may_not(old: str, new: str) -> None:
    assert old in SOURCE
    assert code(SOURCE.replace(old, new)) != code(SOURCE)


def test_another_process_finds_the_same(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(SOURCE)
    program = "import own; from l2l import fingerprint; print(fingerprint.code(own.build))"
    found = {
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        for _ in range(3)
    }
    assert found == {code(SOURCE) + "\n"}


def test_only_a_users_own_space_is_known_by_its_code() -> None:
    own = SearchSpace({"rate": Real(low=0, high=1)}, lambda values, spec: values["rate"])
    assert "space.code" in fingerprint.builder(own)
    assert "space.code" not in fingerprint.builder(mlp.space())
