"""What all tests share: programs compiled once, and nothing written outside the test's own folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from l2l.config import compilation_cache

# Before any test imports JAX: its programs come from the cache of earlier runs.
os.environ.update(compilation_cache())
os.environ.setdefault("WANDB_MODE", "offline")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
