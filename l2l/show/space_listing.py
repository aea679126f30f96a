"""Lists a space: what may be chosen and when, which values share programs, and how many candidates there are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from l2l.show.svg import replace_unprintable
from l2l.show.text_columns import Column, align_columns
from l2l.space import Categorical, Choice, Integer, Real, SearchSpace, Value, list_allowed_values, options

COLUMNS = (Column("choice", 40), Column("options", 44), Column("exists if", 44), Column("programs", 30))
MAX_OPTIONS = 10
"""A choice with more options is listed with the first of them."""
NUMBER = "\0"
"""Stands for the number of a layer in choices that repeat."""


class _Line(NamedTuple):
    """A choice in words, without the number in its name: choices with equal words share a line."""

    name: str
    options: str
    condition: str
    programs: str


def list_choices(space: SearchSpace[Any]) -> str:
    """The choices of a space as a table, where repeated ones share a line, and the number of its candidates."""
    numbers_by_line: dict[_Line, list[str]] = {}
    for name, choice in space.choices.items():
        number = _find_number(name)
        numbers_by_line.setdefault(_describe_choice(space, name, choice, number), []).append(number)
    rows = [
        [cell.replace(NUMBER, _format_numbers(numbers)) for cell in line] for line, numbers in numbers_by_line.items()
    ]
    lines = align_columns(COLUMNS, rows, underline=True)
    repeated = [_format_numbers(numbers) for numbers in numbers_by_line.values() if len(numbers) > 1]
    if repeated:
        lines += ["", f"{repeated[0]} stands for each of these numbers, the same in the whole line."]
    return "\n".join([*lines, "", *_count_candidates(space)])


def _count_candidates(space: SearchSpace[Any]) -> list[str]:
    reals = sum(isinstance(choice, Real) and choice.low < choice.high for choice in space.choices.values())
    total = space.count(discrete=True)
    candidates = f"{total:,}" if total < 10**12 else f"{Decimal(total):.1e}"
    continuous = f", {reals} of them continuous" if reals else ""
    limitation = " by the discrete ones" if reals else ""
    name = replace_unprintable(space.name)
    return [f"{name}: {len(space.choices)} choices{continuous}", f"candidates: {candidates}{limitation}"]


def _find_number(name: str) -> str:
    """The first number in a name, which tells repeated choices apart; empty if there is none."""
    match = re.search(r"(?<!\d)(0|[1-9]\d*)(?!\d)", name)
    return match[0] if match else ""


def _replace_number(name: str, number: str) -> str:
    """A name with a placeholder for its first number, if that is `number`."""
    return name.replace(number, NUMBER, 1) if number and _find_number(name) == number else name


def _describe_choice(space: SearchSpace[Any], name: str, choice: Choice, number: str) -> _Line:
    parents = _read_parents(space, choice)
    # The conditions of a parent are listed in the parent's own line, and need not be repeated.
    grandparents = [pair for parent in parents for pair in _read_parents(space, space.choices[parent]).items()]
    implied = {
        parent
        for parent, values in grandparents
        if parent in parents and set(map(repr, values)) <= set(map(repr, parents[parent]))
    }
    conditions = [
        f"{_replace_number(parent, number)}{_describe_condition(space.choices[parent], values, number)}"
        for parent, values in parents.items()
        if parent not in implied
    ]
    return _Line(
        _replace_number(name, number), _describe_options(choice), " and ".join(conditions), _describe_programs(choice)
    )


def _read_parents(space: SearchSpace[Any], choice: Choice) -> dict[str, list[Value]]:
    """By parent, the values for which a choice exists."""
    return {
        parent: [space.choices[parent].read(value) for value in list_allowed_values(choice.when, parent)]
        for parent in choice.when
    }


def _describe_condition(parent: Choice, values: Sequence[Value], number: str) -> str:
    """The values of a parent for which a choice exists, in words."""
    parent_options = [] if isinstance(parent, Real) else list(options(parent))
    if all(type(option) is int for option in parent_options):
        at_least = [option for option in parent_options if isinstance(option, int) and number and option >= int(number)]
        if number and sorted(map(str, values)) == sorted(map(str, at_least)):
            return f" >= {NUMBER}"
    return f" = {' or '.join(_format_value(value) for value in values)}"


def _describe_options(choice: Choice) -> str:
    if isinstance(choice, Categorical):
        first = [_format_value(option) for option in choice.options[:MAX_OPTIONS]]
        more = [f"... ({len(choice.options):,} in all)"] if len(choice.options) > MAX_OPTIONS else []
        return ", ".join([*first, *more])
    if choice.low == choice.high:
        return _format_value(choice.low)
    step = f", every {choice.step}" if isinstance(choice, Integer) and choice.step > 1 else ""
    return f"{_format_value(choice.low)} to {_format_value(choice.high)}{step}{', logarithmic' if choice.log else ''}"


def _describe_programs(choice: Choice) -> str:
    """Whether candidates that differ in this choice alone may share a program, and how."""
    if choice.traced:
        return "shared, traced"
    if isinstance(choice, Integer) and choice.repeats:
        return "shared, repeats"
    if not isinstance(choice, Real) and choice.pad is not None:
        return f"shared, padded as {_format_value(choice.pad)}"
    return "one for each"


def _format_value(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text if text.isprintable() and text.strip() == text != "" else ascii(value)


def _format_numbers(numbers: Sequence[str]) -> str:
    """Numbers in words, with consecutive ones as a range."""
    runs: list[list[int]] = []
    for number in map(int, filter(None, numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
