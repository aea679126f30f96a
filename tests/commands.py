"""Not a test: what tests of commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

TINY = ("executor=inline", "tracker=none", "trials=1", "batch=1", "objective.epochs=1")
"""Overrides of a search that takes seconds."""
SMALL = ("space.depth=[1,1]", "space.widths=[8]", "space.batch_sizes=[128]")
"""Overrides of a space that needs one program."""
CUSTOM_SPACE = """
import optax
from flax import nnx
from l2l.space import Categorical, Real, SearchSpace
from l2l.types import Learner


class Flat(nnx.Module):
    def __init__(self, spec, rngs):
        self.head = nnx.Linear(64, spec.outputs, rngs=rngs)

    def __call__(self, x):
        return self.head(x.reshape(len(x), -1))


def build(values, spec):
    return Learner(lambda rngs: Flat(spec, rngs), optax.sgd(values["learning_rate"]), batch_size=128)


def space(rate: float = 0.1, batch: int = 128):
    if batch == 13:
        raise ValueError("thirteen is unlucky")
    return SearchSpace({"learning_rate": Real(low=rate, high=rate)}, build, "wild")
"""
"""A module `wild` with a user's own space."""


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ended]


def refused(ended: Ended) -> str:
    """The one sentence of a command that ended with code 2."""
    assert ended.code == 2, ended
    assert ended.out == ""
    assert ended.err.startswith("l2l: ")
    assert ended.err.count("\n") == 1
    sentence = ended.err.removeprefix("l2l: ").strip()
    assert sentence.endswith((".", "?"))
    return sentence


def read_files(folder: Path) -> dict[str, bytes]:
    """The content of every file under a folder, by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
