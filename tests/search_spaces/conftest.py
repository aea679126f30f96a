"""Marks what is exact in `SpaceContract`: here and not there, since a user's pytest does not know the marker."""

from __future__ import annotations

import pytest

from l2l.testing import SpaceContract

for test in (
    SpaceContract.test_padded_and_alone_agree,
    SpaceContract.test_candidates_of_one_program_do_not_see_each_other,
):
    pytest.mark.exact(test)
