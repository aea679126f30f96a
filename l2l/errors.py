"""The two errors that users see as one sentence, and the checks that raise them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from types import UnionType
from typing import TypeGuard


class InputError(ValueError):
    """Bad input: one sentence that names the thing, what was expected and what to do (exit 2)."""


class SearchError(RuntimeError):
    """The search itself failed: one sentence that says why (exit 1)."""


def check_integer(
    name: str,
    value: object,
    low: int | None = None,
    high: int | None = None,
    *,
    optional: bool = False,
    reason: str = "",
) -> None:
    """Checks that `value` is an integer within the bounds, or None if it is `optional`.

    `name` says whose it is, for example "Evolution's population"; `reason` says why a bound is there.

    Raises: InputError if it is not; True and False are no integers.
    """
    if value is None and optional:
        return
    if type(value) is not int or (low is not None and value < low) or (high is not None and value > high):
        if low is not None and high is not None:
            bounds = f" from {low} to {high}"
        elif low is not None:
            bounds = f" of at least {low}"
        else:
            bounds = "" if high is None else f" of at most {high}"
        raise InputError(
            f"{name} must be an integer{bounds}{' or null' * optional}, got {value!r:.80}{'; ' * bool(reason)}{reason}."
        )


def check_number(
    name: str,
    value: object,
    low: float | None = None,
    high: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
    optional: bool = False,
) -> None:
    """Checks that `value` is a finite number within the bounds, or None if it is `optional`.

    `low` and `high` are allowed themselves, `above` and `below` are not.

    Raises: InputError if it is not; True and False are no numbers.
    """
    if value is None and optional:
        return
    is_inside = is_number(value) and (
        (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
        and (below is None or value < below)
    )
    if not is_inside:
        limits = (("of at least", low), ("above", above), ("of at most", high), ("below", below))
        bounds = " and ".join(f"{words} {limit}" for words, limit in limits if limit is not None)
        kind = f"a number {bounds}" if bounds else "a finite number"
        raise InputError(f"{name} must be {kind}{' or null' * optional}, got {value!r:.80}.")


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether `value` is a finite number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_part(name: str, value: object, expected: str, kind: type | UnionType) -> None:
    """Checks that `value` is a part of the right kind: an instance of `kind`, a class or a Protocol.

    `expected` says what belongs here, for example "a Searcher, such as l2l.searchers.Evolution()".

    Raises: InputError if it is not; a class in the place of its instance is refused too.
    """
    # A class has the members that a Protocol asks of its instances.
    if isinstance(value, type) or not isinstance(value, kind):
        raise InputError(f"{name} must be {expected}, got {value!r:.80}.")


def flatten_message(error: BaseException) -> str:
    """An error's message on one line."""
    return " ".join(str(error).split())


def suggest_names(name: str, names: Iterable[str]) -> str:
    """The end of a sentence about an unknown `name`: the names closest to it, or all of them."""
    names = sorted(names)
    if closest := difflib.get_close_matches(name, names, n=3, cutoff=0.5):
        return f"did you mean {' or '.join(map(repr, closest))}?"
    return f"expected one of {', '.join(map(repr, names))}." if names else "there are no names to choose from."
