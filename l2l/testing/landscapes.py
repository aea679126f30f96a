"""Landscapes of rewards with a known optimum, as tabular benchmarks: try a searcher without any data."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from l2l.errors import InputError, check_integer

MAX_CANDIDATES = 1_000_000
"""The most candidates of a landscape."""


class Landscape(NamedTuple):
    """Every candidate of D decisions among K options each, with its reward."""

    codes: npt.NDArray[np.int8]
    """[K ** D, D], in lexicographic order: the last decision varies fastest."""
    rewards: npt.NDArray[np.float64]
    """[K ** D], from 0 to 1."""

    @property
    def best_row(self) -> int:
        """The row of the only reward that is 1."""
        return int(self.rewards.argmax())


def make_landscape(decisions: int = 6, options: int = 5, seed: int = 0, ruggedness: int = 2) -> Landscape:
    """An NK landscape: each decision's part of the reward depends on itself and `ruggedness` random others.

    With `ruggedness` 0 the decisions are independent; with `decisions` - 1 the rewards of neighbours are unrelated.

    Raises: InputError if a size is out of range.
    Source: Kauffman and Weinberger 1989, The NK model of rugged fitness landscapes, J. Theor. Biol. 141, section 2.
    """
    check_integer("make_landscape: decisions", decisions, 1, 20)
    check_integer("make_landscape: options", options, 2, 100)
    check_integer("make_landscape: seed", seed, 0, 2**32 - 1)
    check_integer("make_landscape: ruggedness", ruggedness, 0, decisions - 1)
    if (size := options**decisions) > MAX_CANDIDATES:
        raise InputError(
            f"make_landscape: {options} ** {decisions} candidates are more than {MAX_CANDIDATES}; choose fewer."
        )
    codes = np.stack(np.unravel_index(np.arange(size), (options,) * decisions), -1)
    # RandomState, whose stream NumPy has promised never to change; a Generator's may.
    generator = np.random.RandomState(seed)
    rewards = np.zeros(size)
    for decision in range(decisions):
        others = generator.permutation(np.delete(np.arange(decisions), decision))[:ruggedness]
        parts = generator.uniform(size=(options,) * (ruggedness + 1))
        rewards += parts[tuple(codes[:, column] for column in (decision, *others))]
    return Landscape(codes.astype(np.int8), (rewards - rewards.min()) / np.ptp(rewards))


def write_landscape(path: str | os.PathLike[str], landscape: Landscape) -> None:
    """Writes the landscape as a tabular benchmark: columns `codes` [N, D] and `reward` [N]."""
    np.savez(path, codes=landscape.codes, reward=landscape.rewards)
