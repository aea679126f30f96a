"""The two ways a search ends early, and the sentence each of them owes its reader."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input: one sentence that names the thing, what was expected and what to do (exit 2)."""


class SearchError(RuntimeError):
    """The search itself failed: one sentence that says why (exit 1)."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown `name`: the closest known names, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(repr(each) for each in close)}?"
    return f"expected one of {', '.join(repr(each) for each in names)}." if names else "nothing is known by that name."
