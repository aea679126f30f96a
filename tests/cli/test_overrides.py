"""Command-line overrides as Hydra needs them."""

from __future__ import annotations

import pytest

from l2l.cli.config import GROUPS
from l2l.cli.overrides import rewrite_overrides
from l2l.errors import InputError


@pytest.mark.parametrize(
    ("words", "overrides"),
    [
        ("trials=3 out=runs/mine", "trials=3 out=runs/mine"),
        ("space=cnn searcher/policy=lstm", "space=cnn searcher/policy=lstm"),
        ("space.depth=[1,2] searcher.update.epochs=3", "++space.depth=[1,2] ++searcher.update.epochs=3"),
        ("+space.depth=1 ++space.depth=2", "+space.depth=1 ++space.depth=2"),
        ("final=null rungs=null", "~final ~rungs"),
        ("seed=0,1 -m trials=2", "-m seed=0,1 trials=2"),
        ("seed=0,1 --multirun", "--multirun seed=0,1"),
        ("--cfg job spaces.x=1", "--cfg job spaces.x=1"),
    ],
)
def test_overrides_are_rewritten(words: str, overrides: str) -> None:
    assert rewrite_overrides(words.split(), GROUPS) == overrides.split()


def test_an_argument_of_a_null_group_is_refused() -> None:
    with pytest.raises(InputError, match=r"^final\.seeds=3 has nothing to change: final=null leaves that part out\.$"):
        rewrite_overrides(["final.seeds=3", "final=null"], GROUPS)
