"""Contract suites: the duties of searchers, spaces and stores as tests, for the parts of l2l and for yours.

Subclass one in a test file and return your part; pytest runs the rest:

    class TestMine(SearcherContract):
        def searcher(self):
            return Mine()
"""

from __future__ import annotations

import pytest

# Before they are imported: a failed assertion then shows its values, as in a test file.
pytest.register_assert_rewrite("l2l.testing.searchers", "l2l.testing.spaces", "l2l.testing.stores")

from l2l.testing.landscapes import Landscape, make_landscape, write_landscape  # noqa: E402
from l2l.testing.searchers import SPACES, TOY, RewardContract, SearcherContract, finish_trials, toy_reward  # noqa: E402
from l2l.testing.spaces import SpaceContract  # noqa: E402
from l2l.testing.stores import StoreContract  # noqa: E402

__all__ = [
    "SPACES",
    "TOY",
    "Landscape",
    "RewardContract",
    "SearcherContract",
    "SpaceContract",
    "StoreContract",
    "finish_trials",
    "make_landscape",
    "toy_reward",
    "write_landscape",
]
