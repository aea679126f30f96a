"""The number of programs that a space needs on a task."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from l2l.objectives import Trained
from l2l.show.programs import describe_programs
from l2l.tasks import Digits
from l2l.testing import SPACES
from search_spaces import cnn, mlp


@pytest.mark.parametrize(("sizes", "count"), [((32,), 1), ((32, 64), 2)])
def test_what_is_no_data_counts(sizes: Sequence[int], count: int) -> None:
    space = mlp.space(widths=(16,), batch_sizes=sizes)
    text = describe_programs(space, Trained(space, Digits()), 10)
    assert text == f"programs: {count} for 1,000 random candidates, as a search of 10 trials pads them"


@pytest.mark.parametrize("trials", [10, 1000])
def test_a_built_in_space_needs_few(trials: int) -> None:
    space = cnn.space()
    text = describe_programs(space, Trained(space, Digits(epochs=3)), trials)
    assert int(text.split()[1]) in range(3, 17)


def test_an_objective_without_programs() -> None:
    class Compiles:
        """No objective that shares programs."""

    text = describe_programs(SPACES["plain"], Compiles(), 10)  # pyright: ignore[reportArgumentType]
    assert text.startswith("programs: none")
