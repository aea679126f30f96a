"""`l2l show space=NAME`: a space as a table, and the number of its candidates."""

from __future__ import annotations

import importlib
import itertools
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from l2l.show.space_listing import list_choices
from l2l.space import Categorical, Choice, Integer, Real, SearchSpace, options

CHOICES: dict[str, Choice] = {
    "a": Categorical(options=(1, True, "1")),
    "b": Integer(low=0, high=4, step=2, when={"a": (1, "1")}),
    "c": Categorical(options=("x", "y"), when={"b": (2, 4)}),
    "r": Real(low=0.0, high=1.0, when={"c": "x"}),
    "d": Categorical(options=(None, 2), when={"a": True}),
}


some = st.sampled_from


@given(
    a=st.lists(some((1, True, "1")), min_size=1), b=st.lists(some((0, 2, 4)), min_size=1),
    c=some(("x", "y", ("x", "y"))), d=some(({"a": True}, {"b": 4, "c": "y"}, {})),
)  # fmt: skip
def test_discrete_candidates_are_counted_one_by_one(a: Any, b: Any, c: Any, d: Any) -> None:
    conditions = {"b": {"a": a}, "c": {"b": b}, "r": {"c": c}, "d": d}
    space = SearchSpace(
        {name: replace(choice, when=conditions.get(name, {})) for name, choice in CHOICES.items()},
        lambda values, spec: None,
    )
    values = [(0.5,) if isinstance(choice, Real) else options(choice) for choice in space.choices.values()]
    keys: set[str] = set()
    for row in itertools.product(*values):
        candidate = dict(zip(space.choices, row, strict=True))
        keys.add(space.complete(lambda name, _, candidate=candidate: candidate[name]).key)
    assert space.count(discrete=True) == len(keys)


def test_layers_that_repeat_are_listed_once() -> None:
    transformer = importlib.import_module("search_spaces.transformer")
    lines = list_choices(transformer.space(depth=(2, 60))).splitlines()
    rows = [line.split("  ")[0] for line in lines]
    assert rows.count("layer1..60_heads") == 1
    assert len(lines) < 50
    (window,) = [line for line in lines if line.startswith("layer1..60_window")]
    assert " ".join(window.split()) == "layer1..60_window 4, 8 layer1..60_attention = window shared, traced"
    (heads,) = [line for line in lines if line.startswith("layer1..60_heads")]
    assert "depth >= 1..60" in heads
    assert "padded as heads" in heads
    # A balance weight each; two learning rates, weight decay, warm-up, dropout and label smoothing.
    assert f"transformer: {1 + 60 * 20 + 3 + 9} choices, 66 of them continuous" in lines
    assert lines[-1].endswith("e+339 by the discrete ones")


def test_what_differs_is_listed_apart() -> None:
    text = list_choices(importlib.import_module("search_spaces.cnn").space(depth=(1, 3)))
    rows = {line.split()[0]: line for line in text.splitlines() if line}
    assert "max, average, none" in rows["layer2..3_pooling"]
    assert "max, average" in rows["layer1_pooling"]
    assert "one for each" in rows["batch_size"]
    assert "shared, repeats" in rows["depth"]
    assert "0.0003 to 0.01, logarithmic" in rows["adamw_learning_rate"]
    assert "optimizer = adamw" in rows["adamw_learning_rate"]
    small = SearchSpace({**CHOICES, "many": Categorical(options=tuple(range(99)))}, lambda values, spec: None, "s\x1b")
    table = list_choices(small)
    assert "8, 9, ... (99 in" in table
    assert "0 to 4, every 2" in table
    assert "b = 2 or 4" in table
    assert "\x1b" not in table
    # a is True: 2; else b, and of two of its three values c: 2 * (1 + 2 * 2); each 99 times.
    assert table.splitlines()[-2:] == [
        "s\ufffd: 6 choices, 1 of them continuous",
        "candidates: 1,188 by the discrete ones",
    ]
