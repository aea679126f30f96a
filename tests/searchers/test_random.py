"""Random search: the contract, and that its draws are uniform."""

from __future__ import annotations

from collections import Counter

import jax

from l2l.searchers.random import Random
from l2l.testing import SPACES, SearcherContract


class TestRandom(SearcherContract):
    learns = False

    def searcher(self) -> Random:
        return Random()


def test_every_option_is_equally_likely() -> None:
    space = SPACES["plain"]
    state = Random().init(space, jax.random.key(0))
    drawn = Random().ask(state, jax.random.key(1), 2000)
    counts = Counter(repr(candidate.values["flag"]) for candidate in drawn)
    assert set(counts) == {"True", "1", "1.5", "None", "'x'"}
    assert all(330 < count < 470 for count in counts.values())


def test_a_longer_ask_begins_with_the_shorter_one() -> None:
    state = Random().init(SPACES["nested"], jax.random.key(0))
    asks = [Random().ask(state, jax.random.key(1), count) for count in (3, 9)]
    assert asks[0] == asks[1][:3]
