"""Random search: the contract, and that its draws are uniform."""

from __future__ import annotations

from collections import Counter

import jax
import numpy as np
import pytest

from l2l.errors import InputError
from l2l.searchers.random_search import Random
from l2l.space import SearchSpace
from l2l.testing import SPACES, SearcherContract


class TestRandom(SearcherContract):
    learns = False

    def searcher(self) -> Random:
        return Random()


def test_every_option_is_equally_likely() -> None:
    space = SPACES["plain"]
    state = Random().init(space, jax.random.key(0))
    candidates = Random().ask(state, jax.random.key(1), 2000)
    counts = Counter(repr(candidate.values["flag"]) for candidate in candidates)
    assert set(counts) == {"True", "1", "1.5", "None", "'x'"}
    assert all(330 < count < 470 for count in counts.values())


@pytest.mark.parametrize("bins", [1, 16])
@pytest.mark.parametrize("name", ["rate", "mix", "units", "size"])
def test_numbers_are_drawn_evenly_over_their_quantiles(name: str, bins: int) -> None:
    choice = SPACES["numbers"].choices[name]
    space = SearchSpace({name: choice}, lambda values, spec: None)
    candidates = Random(bins=bins).ask(Random(bins=bins).init(space, jax.random.key(0)), jax.random.key(1), 2000)
    # Against the space's own draws at evenly spread quantiles.
    values = np.sort([float(candidate.values[name]) for candidate in candidates])
    even = np.sort([float(choice.value_at((i + 0.5) / 2000)) for i in range(2000)])
    apart = [np.abs(np.searchsorted(values, x, "right") - np.searchsorted(even, x, "right")).max() for x in even[::50]]
    assert max(apart) / 2000 < 0.045


def test_a_longer_ask_begins_with_the_shorter_one() -> None:
    state = Random().init(SPACES["nested"], jax.random.key(0))
    asks = [Random().ask(state, jax.random.key(1), count) for count in (3, 9)]
    assert asks[0] == asks[1][:3]


def test_bad_bins_are_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match=r"^Random's bins must be an integer of at least 1, got 0\.5\.$"):
        Random(bins=0.5)  # type: ignore[arg-type]
