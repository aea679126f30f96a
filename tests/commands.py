"""Not a test: how a command of `l2l` has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


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
