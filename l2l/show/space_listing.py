"""A space as a table: what may be chosen, when, what shares programs, and how many candidates there are."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from l2l.space import Categorical, Choice, Integer, Real, SearchSpace, Value, list_allowed_values, options

HEAD = ("choice", "options", "exists if", "programs")
CELLS = (40, 44, 44, 30)
"""The most signs of a line of each column."""
SOME = 10
"""Options that are all listed."""
NUMBER = "\0"
"""Where the number of a layer stands in what repeats."""


class _Row(NamedTuple):
    """A choice in words, but for the number in its name: those that are equal share a line."""

    name: str
    options: str
    exists: str
    programs: str


def listing(space: SearchSpace[Any]) -> str:
    """The choices of a space as a table, those that repeat once, and below it how many candidates they make."""
    found: dict[_Row, list[str]] = {}
    for name, choice in space.choices.items():
        number = _number(name)
        found.setdefault(_row(space, name, choice, number), []).append(number)
    rows = [tuple(each.replace(NUMBER, _run(numbers)) for each in row) for row, numbers in found.items()]
    lines = _table([HEAD, *rows])
    if several := next((_run(numbers) for numbers in found.values() if len(numbers) > 1), None):
        lines += ["", f"{several} stands for each of these numbers, the same all along a line."]
    return "\n".join([*lines, "", *_counts(space)])


def _counts(space: SearchSpace[Any]) -> list[str]:
    free = sum(isinstance(choice, Real) and choice.low < choice.high for choice in space.choices.values())
    total = space.count(discrete=True)
    candidates = f"{total:,}" if total < 10**12 else f"{Decimal(total):.1e}"
    continuous = f", {free} of them continuous" if free else ""
    beside = " by the discrete ones" if free else ""
    name = "".join(each if each.isprintable() else "\ufffd" for each in space.name)
    return [f"{name}: {len(space.choices)} choices{continuous}", f"candidates: {candidates}{beside}"]


def _number(name: str) -> str:
    """The first number in a name, by which what repeats is told apart; empty if there is none."""
    found = re.search(r"(?<!\d)(0|[1-9]\d*)(?!\d)", name)
    return found[0] if found else ""


def _without(name: str, number: str) -> str:
    """A name with its first number, if it is this one, left open."""
    return name.replace(number, NUMBER, 1) if number and _number(name) == number else name


def _row(space: SearchSpace[Any], name: str, choice: Choice, number: str) -> _Row:
    asked = _asked(space, choice)
    # What a parent needs in order to exist is said where the parent stands.
    needed = [(above, values) for parent in asked for above, values in _asked(space, space.choices[parent]).items()]
    said = {
        above for above, values in needed if above in asked and set(map(repr, values)) <= set(map(repr, asked[above]))
    }
    parts = [
        f"{_without(parent, number)}{_condition(space.choices[parent], values, number)}"
        for parent, values in asked.items()
        if parent not in said
    ]
    return _Row(_without(name, number), _options(choice), " and ".join(parts), _programs(choice))


def _asked(space: SearchSpace[Any], choice: Choice) -> dict[str, list[Value]]:
    """The values of its parents for which a choice exists."""
    return {
        parent: [space.choices[parent].read(each) for each in list_allowed_values(choice.when, parent)]
        for parent in choice.when
    }


def _condition(parent: Choice, values: Sequence[Value], number: str) -> str:
    """For which values of its parent a choice exists."""
    every = [] if isinstance(parent, Real) else list(options(parent))
    if all(type(each) is int for each in every):
        at_least = [each for each in every if isinstance(each, int) and number and each >= int(number)]
        if number and sorted(map(str, values)) == sorted(map(str, at_least)):
            return f" >= {NUMBER}"
    return f" = {' or '.join(_said(each) for each in values)}"


def _options(choice: Choice) -> str:
    if isinstance(choice, Categorical):
        shown = [_said(each) for each in choice.options[:SOME]]
        more = [f"... ({len(choice.options):,} in all)"] if len(choice.options) > SOME else []
        return ", ".join([*shown, *more])
    if choice.low == choice.high:
        return _said(choice.low)
    step = f", every {choice.step}" if isinstance(choice, Integer) and choice.step > 1 else ""
    return f"{_said(choice.low)} to {_said(choice.high)}{step}{', logarithmic' if choice.log else ''}"


def _programs(choice: Choice) -> str:
    """Whether candidates that differ in a choice alone may share a program, and how."""
    if choice.traced:
        return "shared, traced"
    if isinstance(choice, Integer) and choice.repeats:
        return "shared, repeats"
    if not isinstance(choice, Real) and choice.pad is not None:
        return f"shared, padded as {_said(choice.pad)}"
    return "one for each"


def _said(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text if text.isprintable() and text.strip() == text != "" else ascii(value)


def _run(numbers: Sequence[str]) -> str:
    """Numbers, those that follow one another as a range."""
    runs: list[list[int]] = []
    for each in map(int, filter(None, numbers)):
        if runs and each == runs[-1][-1] + 1:
            runs[-1].append(each)
        else:
            runs.append([each])
    return ",".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns, long cells in several lines."""
    cells = [[textwrap.wrap(cell, room) or [""] for cell, room in zip(row, CELLS, strict=True)] for row in rows]
    long = [max(len(line) for row in cells for line in row[column]) for column in range(len(HEAD))]
    lines: list[str] = []
    for at, row in enumerate(cells):
        for line in range(max(map(len, row))):
            texts = [cell[line] if line < len(cell) else "" for cell in row]
            lines.append("  ".join(f"{text:<{width}}" for text, width in zip(texts, long, strict=True)).rstrip())
        if not at:
            lines.append("  ".join("-" * width for width in long))
    return lines
