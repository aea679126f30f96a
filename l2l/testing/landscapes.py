"""Landscapes of rewards whose optimum is known, as tables: for tests and for trying a searcher without any data."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from l2l.errors import InputError, check_integer

LIMIT = 1_000_000
"""The most candidates of a landscape."""


class Landscape(NamedTuple):
    """Every candidate of D decisions among K options each, with its reward."""

    codes: npt.NDArray[np.int8]
    """[K ** D, D], in the order of the mixed radix: the last decision changes first."""
    rewards: npt.NDArray[np.float64]
    """[K ** D], from 0 to 1."""

    @property
    def best(self) -> int:
        """The row of the only reward that is 1."""
        return int(self.rewards.argmax())


def landscape(decisions: int = 6, options: int = 5, seed: int = 0, ruggedness: int = 2) -> Landscape:
    """An NK landscape: each decision's share depends on itself and on `ruggedness` others, drawn at random.

    With `ruggedness` 0 the decisions are independent; with `decisions` - 1 rewards of neighbours tell nothing.

    Raises: InputError if a size is out of range.
    Source: Kauffman and Weinberger 1989, The NK model of rugged fitness landscapes, J. Theor. Biol. 141, section 2.
    """
    check_integer("landscape: decisions", decisions, 1, 20)
    check_integer("landscape: options", options, 2, 100)
    check_integer("landscape: seed", seed, 0, 2**32 - 1)
    check_integer("landscape: ruggedness", ruggedness, 0, decisions - 1)
    if (size := options**decisions) > LIMIT:
        raise InputError(f"landscape: {options} ** {decisions} candidates are more than {LIMIT}; choose fewer.")
    codes = np.stack(np.unravel_index(np.arange(size), (options,) * decisions), -1)
    # RandomState, whose stream NumPy has promised never to change; a Generator's may.
    draw = np.random.RandomState(seed)
    rewards = np.zeros(size)
    for decision in range(decisions):
        others = draw.permutation(np.delete(np.arange(decisions), decision))[:ruggedness]
        shares = draw.uniform(size=(options,) * (ruggedness + 1))
        rewards += shares[tuple(codes[:, each] for each in (decision, *others))]
    return Landscape(codes.astype(np.int8), (rewards - rewards.min()) / np.ptp(rewards))


def write(path: str | os.PathLike[str], made: Landscape) -> None:
    """Writes the landscape as a table: columns `codes` [N, D] and `reward` [N]."""
    np.savez(path, codes=made.codes, reward=made.rewards)
