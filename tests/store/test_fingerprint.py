"""The fingerprint of a user's own space, and of what it is built with."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import l2l.searchers.controllers.controller
from l2l.errors import InputError
from l2l.objectives.benchmark_table import refuse_to_build
from l2l.space import Real, SearchSpace
from l2l.store import fingerprint
from search_spaces import mlp

CHOICES = {"rate": Real(low=0, high=1)}


def build(values: dict[str, float], spec: object, act: object = None, sizes: object = ()) -> float:
    return values["rate"]


def test_only_a_users_own_space_is_known_by_its_code() -> None:
    assert "space.code" in fingerprint.describe_builder(SearchSpace(CHOICES, build))
    assert "space.code" not in fingerprint.describe_builder(mlp.space())


def test_a_partials_arguments_are_named_without_their_addresses() -> None:
    builder = partial(build, act=partial(build, 1), sizes={"c", "a", "b"})
    assert fingerprint.describe_builder(SearchSpace(CHOICES, builder))["space.build.arguments"] == (
        f"[['act', {__name__}.build([1])], ['sizes', ['a', 'b', 'c']]]"
    )


def test_where_a_side_has_no_code_there_is_nothing_to_compare() -> None:
    reference = fingerprint.make_fingerprint(
        fingerprint.describe_builder(SearchSpace(CHOICES, build)), SearchSpace(CHOICES, build), 1
    )
    settings = dict(reference["settings"])
    with pytest.raises(InputError, match=r"space\.code"):
        fingerprint.check_fingerprint({**reference, "settings": {**settings, "space.code": "other"}}, reference, "RUN")
    del settings["space.code"]
    fingerprint.check_fingerprint({**reference, "settings": settings}, reference, "RUN")
    fingerprint.check_fingerprint(reference, {**reference, "settings": settings}, "RUN")


def test_another_process_finds_the_same(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from l2l.space import Real, SearchSpace\nNAMES = {'abc', 'def', 'ghi'}\n"
        "def build(values, spec): return NAMES\n"
        "def space(): return SearchSpace({'rate': Real(low=0, high=1)}, build)\n"
    )
    program = "import own; from l2l.store import fingerprint; print(fingerprint.describe_builder(own.space()))"
    outputs = {
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    }
    assert len(outputs) == 1
    assert "space.code" in outputs.pop()


@pytest.mark.parametrize(
    ("change", "words"),
    [(-1, r"RUN was written by an older l2l \(format 1, this one"), (1, r"by a newer l2l \(format 3, .*upgrade l2l")],
)
def test_another_format_is_refused_in_one_sentence(change: int, words: str) -> None:
    expected = fingerprint.make_fingerprint({}, SearchSpace(CHOICES, build), 1)
    with pytest.raises(InputError, match=words):
        fingerprint.check_fingerprint({**expected, "format": fingerprint.FORMAT + change}, expected, "RUN")


def test_a_class_goes_by_the_name_that_its_package_offers() -> None:
    assert fingerprint.find_public_name(l2l.searchers.controllers.controller.Controller) == "l2l.searchers.Controller"
    assert fingerprint.find_public_name(build) == f"{__name__}.build"
    benchmark = SearchSpace(CHOICES, refuse_to_build, "tabular")
    assert fingerprint.describe_builder(benchmark)["space.build"] == "l2l.objectives.refuse_to_build"
