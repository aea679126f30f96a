"""Multi-objective wrapper of a single-objective searcher: copies of it, each with another preference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from l2l.abilities import UsesEarlierSearches, get_title
from l2l.errors import InputError, check_integer, check_part
from l2l.searchers.controllers.controller import Controller
from l2l.space import Candidate, SearchSpace
from l2l.types import Key, Searcher, Trial

Weights: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

SUM_WEIGHT = 0.05
"""Weight of the sum beside the maximum, so that no candidate is preferred to one which is better in all objectives."""
MAX_OBJECTIVES = 9


class PreferencesState(NamedTuple):
    """The states of the copies, and the range of the rewards."""

    copies: tuple[Any, ...]
    trial_count: int = 0
    """Trials so far; trial n belongs to copy n modulo their number."""
    low: tuple[float, ...] = ()
    """The smallest reward so far, of each objective; empty before the first."""
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Preferences:
    """Asks `count` copies of a searcher in turn; each learns one reward for its own candidates, by its preference.

    A preference weighs how far each objective is from its best so far, in units of its range. It minimises the largest
    weighted distance plus a small part of their sum (augmented Chebyshev), which reaches fronts of every shape. The
    weights are distributed evenly, from one end of the front to the other.

    Raises: InputError if `count` is not at least 2, or later if a reward has one objective, or more than nine.
    Source: Knowles 2006, ParEGO, IEEE TEC 10, equation 2; Das and Dennis 1998, SIAM J. Optim. 8 (even weights).
    """

    searcher: Searcher[Any] = Controller()  # noqa: RUF009  # frozen, hence safe to share
    count: int = 4

    def __post_init__(self) -> None:
        check_integer("Preferences' count", self.count, 2)
        check_part("Preferences' searcher", self.searcher, "a Searcher, such as l2l.searchers.Controller()", Searcher)

    @property
    def title(self) -> str:
        """Its name in folders and reports: `preferences_` and that of its searcher."""
        return f"preferences_{get_title(self.searcher)}"

    def init(self, space: SearchSpace[Any], key: Key) -> PreferencesState:
        """The copies before any trial."""
        copies = (self.searcher.init(space, jax.random.fold_in(key, copy)) for copy in range(self.count))
        return PreferencesState(tuple(copies))

    def digest(self, space: SearchSpace[Any]) -> str | None:
        """A digest of what the searcher knows from earlier searches; None if nothing."""
        return self.searcher.digest(space) if isinstance(self.searcher, UsesEarlierSearches) else None

    def ask(self, state: PreferencesState, key: Key, count: int) -> list[Candidate]:
        """`count` candidates, each from the copy whose turn it is."""
        turns = self._list_turns(state, count)
        candidates = {
            copy: iter(self.searcher.ask(state.copies[copy], jax.random.fold_in(key, copy), turns.count(copy)))
            for copy in sorted(set(turns))
        }
        return [next(candidates[copy]) for copy in turns]

    def tell(self, state: PreferencesState, trials: Sequence[Trial]) -> PreferencesState:
        """The state after a batch. Raises: InputError if a reward has one objective, or more than nine."""
        rewards = [trial.reward for trial in trials if trial.reward is not None]
        for reward in rewards:
            if not 2 <= len(reward) <= MAX_OBJECTIVES:
                raise InputError(
                    f"preferences are for 2 to {MAX_OBJECTIVES} objectives, the reward has {len(reward)}; use the "
                    "searcher by itself, or reward=several."
                )
        low, high = state.low, state.high
        if rewards:
            extremes = [low, high] if low else []
            array = np.asarray([*rewards, *extremes], np.float64)
            low, high = tuple(array.min(0).tolist()), tuple(array.max(0).tolist())
        copies = list(state.copies)
        turns = self._list_turns(state, len(trials))
        for copy in sorted(set(turns)):
            batch = [trial for trial, turn in zip(trials, turns, strict=True) if turn == copy]
            batch = [_scalarise(trial, copy, self.count, low, high) for trial in batch]
            copies[copy] = self.searcher.tell(copies[copy], batch)
        return PreferencesState(tuple(copies), state.trial_count + len(trials), low, high)

    def _list_turns(self, state: PreferencesState, count: int) -> list[int]:
        """The copies that the next `count` trials belong to."""
        return [(state.trial_count + offset) % self.count for offset in range(count)]

    def summary(self, state: PreferencesState) -> Mapping[str, float]:
        """The figures of each copy, in its own preference."""
        return {
            f"preference{number}_{name}": value
            for number, copy in enumerate(state.copies)
            for name, value in self.searcher.summary(copy).items()
        }


def _scalarise(trial: Trial, copy: int, count: int, low: Sequence[float], high: Sequence[float]) -> Trial:
    """The trial with the single reward that the preference of a copy gives it."""
    if trial.reward is None:
        return trial
    span = np.asarray(high) - low
    distances = (np.asarray(high) - trial.reward) / np.where(span > 0, span, 1.0)
    weighted = compute_weights(copy, count, len(distances)) * distances
    return replace(trial, reward=(-float(weighted.max() + SUM_WEIGHT * weighted.sum()),))


def compute_weights(copy: int, count: int, objectives: int) -> Weights:
    """The weights `[objectives]` of one of `count` preferences, all above zero and of sum 1.

    For two objectives they are equally spaced. For more they come from a sequence that covers the simplex evenly.

    Source: Halton 1960, Numerische Mathematik 2.
    """
    if objectives == 2:
        first = (copy + 0.5) / count
        return np.asarray([first, 1.0 - first])
    from scipy.stats import qmc  # here, since it takes long to import

    # The sequence begins at the origin, which is left out.
    cuts = np.sort(qmc.Halton(objectives - 1, scramble=False).random(copy + 2)[-1])
    parts = np.maximum(np.diff(cuts, prepend=0.0, append=1.0), 0.01)
    return parts / parts.sum()
