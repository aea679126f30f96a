"""The checks of arguments: one sentence each that names the argument, what was expected and what came."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Sized

import pytest

from l2l.errors import InputError, check_integer, check_number, check_part, suggest_names


def read_sentence(check: Callable[[], None]) -> str:
    with pytest.raises(InputError) as caught:
        check()
    return str(caught.value)


def test_values_within_their_bounds_pass() -> None:
    check_integer("x", -3)
    check_integer("x", 1, 1)
    check_integer("x", 2**32 - 1, 0, 2**32 - 1)
    check_integer("x", None, 1, optional=True)
    check_number("x", 0.0, 0, 1)
    check_number("x", 1, 0, 1)
    check_number("x", 0.5, above=0, below=1)
    check_number("x", None, optional=True)
    check_part("x", [1], "a list", list)
    check_part("x", [1], "a list", Sequence)


@pytest.mark.parametrize(
    ("check", "sentence"),
    [
        (lambda: check_integer("x", "x", 1), "x must be an integer of at least 1, got 'x'."),
        (lambda: check_integer("x", True), "x must be an integer, got True."),
        (lambda: check_integer("x", 1.0, 0, 9), "x must be an integer from 0 to 9, got 1.0."),
        (lambda: check_integer("x", 10, 0, 9), "x must be an integer from 0 to 9, got 10."),
        (lambda: check_integer("x", 10, high=9), "x must be an integer of at most 9, got 10."),
        (lambda: check_integer("x", None, 1), "x must be an integer of at least 1, got None."),
        (lambda: check_integer("x", 0, 1, optional=True), "x must be an integer of at least 1 or null, got 0."),
        (lambda: check_integer("x", 1, 2, reason="why"), "x must be an integer of at least 2, got 1; why."),
        (lambda: check_number("x", "few"), "x must be a finite number, got 'few'."),
        (lambda: check_number("x", math.nan), "x must be a finite number, got nan."),
        (lambda: check_number("x", math.inf, above=0), "x must be a number above 0, got inf."),
        (lambda: check_number("x", True, above=0), "x must be a number above 0, got True."),
        (lambda: check_number("x", 0, above=0), "x must be a number above 0, got 0."),
        (lambda: check_number("x", 1, above=0, below=1), "x must be a number above 0 and below 1, got 1."),
        (lambda: check_number("x", 2, 0, 1), "x must be a number of at least 0 and of at most 1, got 2."),
        (lambda: check_number("x", 1, high=0, optional=True), "x must be a number of at most 0 or null, got 1."),
        (lambda: check_part("x", 3, "a list, such as []", list), "x must be a list, such as [], got 3."),
        (lambda: check_part("x", list, "a list", list), "x must be a list, got <class 'list'>."),
        (lambda: check_part("x", list, "a list", Sized), "x must be a list, got <class 'list'>."),
        (lambda: check_part("x", "y" * 99, "a list", list), f"x must be a list, got {repr('y' * 99)[:80]}."),
    ],
)
def test_other_values_are_refused_in_one_sentence(check: Callable[[], None], sentence: str) -> None:
    assert read_sentence(check) == sentence


def test_close_names_are_suggested_before_all_of_them() -> None:
    assert suggest_names("searcher", ["searchers", "task"]) == "did you mean 'searchers'?"
    assert suggest_names("zzz", ["b", "a"]) == "expected one of 'a', 'b'."
    assert suggest_names("zzz", []) == "there are no names to choose from."
