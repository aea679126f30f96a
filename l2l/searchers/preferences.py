"""Several objectives for a searcher of one: copies of it, each of which maximises another preference among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from l2l.abilities import HasTitle, UsesEarlierSearches
from l2l.errors import InputError
from l2l.searchers.controllers.controller import Controller
from l2l.space import Candidate, SearchSpace
from l2l.types import Key, Searcher, Trial

SLOPE = 0.05
"""What the sum adds to the largest, so that no candidate is preferred to one which is better in all."""
PRIMES = (2, 3, 5, 7, 11, 13, 17, 19)


class PreferencesState(NamedTuple):
    """What the copies know, and what all rewards are measured in."""

    inner: tuple[Any, ...]
    trial_count: int = 0
    """Trials so far; candidate n belongs to copy n modulo their number."""
    low: tuple[float, ...] = ()
    """The smallest reward so far, of each objective; empty before the first."""
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Preferences:
    """Asks `count` copies of a searcher in turn, each told of its own candidates what its preference makes of them.

    A preference weighs what is missing to the best of each objective so far, in units of its range: it minimises the
    largest of these, and a little of their sum (augmented Chebyshev), which reaches fronts of every shape. The weights
    are spread evenly, from one end of the front to the other.

    Raises: InputError if `count` is not at least 2, or later if a reward has one objective, or more than eight.
    Source: Knowles 2006, ParEGO, IEEE TEC 10, equation 2; Das and Dennis 1998, SIAM J. Optim. 8 (spread).
    """

    searcher: Searcher[Any] = Controller()  # noqa: RUF009  # frozen, hence safe to share
    count: int = 4

    def __post_init__(self) -> None:
        if type(self.count) is not int or self.count < 2:
            raise InputError(f"Preferences' count must be a whole number of at least 2, got {self.count!r}.")
        if isinstance(self.searcher, type) or not isinstance(self.searcher, Searcher):
            raise InputError(f"Preferences' searcher must be one of l2l.searchers, got {self.searcher!r:.80}.")

    @property
    def title(self) -> str:
        """The searcher's, as folders and reports name it, behind its own."""
        searcher = self.searcher
        name = searcher.title if isinstance(searcher, HasTitle) else type(searcher).__name__.lower()
        return f"preferences_{name}"

    def init(self, space: SearchSpace[Any], key: Key) -> PreferencesState:
        """Copies that know nothing."""
        return PreferencesState(tuple(self.searcher.init(space, jax.random.fold_in(key, n)) for n in range(self.count)))

    def digest(self, space: SearchSpace[Any]) -> str | None:
        """What the searcher brings along from earlier searches, in few letters; None if nothing."""
        return self.searcher.digest(space) if isinstance(self.searcher, UsesEarlierSearches) else None

    def ask(self, state: PreferencesState, key: Key, count: int) -> list[Candidate]:
        """`count` candidates, each of the copy whose turn it is."""
        turns = [(state.trial_count + place) % self.count for place in range(count)]
        asked = {
            n: iter(self.searcher.ask(state.inner[n], jax.random.fold_in(key, n), turns.count(n)))
            for n in sorted(set(turns))
        }
        return [next(asked[n]) for n in turns]

    def tell(self, state: PreferencesState, trials: Sequence[Trial]) -> PreferencesState:
        """The state after a batch. Raises: InputError if a reward has one objective, or more than eight."""
        seen = [trial.reward for trial in trials if trial.reward is not None]
        for reward in seen:
            if not 2 <= len(reward) <= len(PRIMES) + 1:
                raise InputError(
                    f"preferences are for 2 to {len(PRIMES) + 1} objectives, the reward has {len(reward)}; use the "
                    "searcher by itself, or reward=several."
                )
        low, high = state.low, state.high
        if seen:
            every = np.asarray([*seen, *([low, high] if low else [])], np.float64)
            low, high = tuple(every.min(0).tolist()), tuple(every.max(0).tolist())
        inner = list(state.inner)
        turns = [(state.trial_count + place) % self.count for place in range(len(trials))]
        for n in sorted(set(turns)):
            own = [trial for trial, turn in zip(trials, turns, strict=True) if turn == n]
            inner[n] = self.searcher.tell(inner[n], [_preferred(each, n, self.count, low, high) for each in own])
        return PreferencesState(tuple(inner), state.trial_count + len(trials), low, high)

    def summary(self, state: PreferencesState) -> Mapping[str, float]:
        """Each copy's own figures, in its own preference."""
        return {
            f"preference{n}_{name}": value
            for n, each in enumerate(state.inner)
            for name, value in self.searcher.summary(each).items()
        }


def _preferred(trial: Trial, number: int, count: int, low: Sequence[float], high: Sequence[float]) -> Trial:
    """The trial with the one reward that a preference makes of it."""
    if trial.reward is None:
        return trial
    span = np.asarray(high) - low
    missing = (np.asarray(high) - trial.reward) / np.where(span > 0, span, 1.0)
    weighed = weights(number, count, len(missing)) * missing
    return replace(trial, reward=(-float(weighed.max() + SLOPE * weighed.sum()),))


def weights(number: int, count: int, objectives: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The weights of one of `count` preferences, `[objectives]`, all above zero and of sum 1.

    Of two objectives they lie at equal distances; of more they come from a sequence that covers the simplex evenly.
    """
    if objectives == 2:
        first = (number + 0.5) / count
        return np.asarray([first, 1.0 - first])
    places = np.sort([radical_inverse(number + 1, prime) for prime in PRIMES[: objectives - 1]])
    found = np.diff(places, prepend=0.0, append=1.0)
    return np.maximum(found, 0.01) / np.maximum(found, 0.01).sum()


def radical_inverse(number: int, base: int) -> float:
    """The digits of a number behind the point, last first: evenly spread over [0, 1) for 1, 2, 3 and so on.

    Source: Halton 1960, Numerische Mathematik 2.
    """
    found, scale = 0.0, 1.0
    while number:
        scale /= base
        found += scale * (number % base)
        number //= base
    return found
