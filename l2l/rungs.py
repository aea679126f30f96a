"""Rules that stop candidates early: pure functions from the scores at a rung to those that train on."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from l2l.errors import InputError
from l2l.pareto import best_first
from l2l.types import Status, Trial


@dataclass(frozen=True)
class Halving:
    """Of each batch, the best of every `eta` candidates train `eta` times as long; `first` epochs come first.

    Several objectives are ranked by non-domination, then by crowding distance.

    Raises: InputError if `eta` is below 2 or `first` below 1.
    Source: Jamieson and Talwalkar 2016, Non-stochastic Best Arm Identification and Hyperparameter Optimization,
    AISTATS, figure 3 (successive halving); `eta` as in Li et al. 2018, algorithm 1.
    """

    eta: int = 3
    first: int = 1

    def __post_init__(self) -> None:
        _at_least("eta", self.eta, 2)
        _at_least("first", self.first, 1)

    def check(self, total: int, objectives: int, batch: int) -> None:
        """Refuses trainings that end at the first rung, and batches of which none is stopped. Raises: InputError."""
        _check_first(self.first, total)
        if batch < self.eta:
            raise InputError(
                f"rungs=halving keeps the best of every {self.eta} candidates of a batch, and a batch has {batch} "
                f"here: let batch and trials be {self.eta} or more, or choose rungs=asha."
            )

    def borders(self, number: int, total: int) -> list[int]:
        """`first`, and `eta` times as many each time."""
        return _powers(self.first, self.eta, total)

    def keep(self, rung: int, batch: Sequence[Trial], earlier: Sequence[Trial]) -> set[int]:
        """The best of the batch, one at least."""
        return _top(rung, batch, self.eta)


@dataclass(frozen=True)
class Asha(Halving):
    """Successive halving where a candidate is held against all that were ever scored at its rung.

    A candidate trains on if it is among the best of every `eta`, earlier batches included. In the paper one that
    was stopped may be promoted later, once others have come in below it; here, as in its stopping variant,
    stopped is stopped, so that what is decided depends on the order of the trials alone.

    Raises: InputError if `eta` is below 2 or `first` below 1.
    Source: Li et al. 2020, A System for Massively Parallel Hyperparameter Tuning, MLSys, algorithm 2.
    """

    def check(self, total: int, objectives: int, batch: int) -> None:
        """Refuses trainings that end at the first rung. Raises: InputError."""
        _check_first(self.first, total)

    def keep(self, rung: int, batch: Sequence[Trial], earlier: Sequence[Trial]) -> set[int]:
        """Those of the batch that are among the best so far; none, if all of them are worse."""
        return _top(rung, [*earlier, *batch], self.eta) & {trial.number for trial in batch}


@dataclass(frozen=True)
class Hyperband(Asha):
    """ASHA in brackets: in each the first rung comes later, and the last one trains its candidates in full.

    A trial's number says which bracket it is in; brackets get candidates in the algorithm's proportions, so that
    each of them is given about as many epochs, and candidates are held against those of their own bracket.

    Raises: InputError if `eta` is below 2 or `first` below 1.
    Source: Li et al. 2018, Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization, JMLR 18,
    algorithm 1; brackets that run asynchronously as in Li et al. 2020, section 3.3.
    """

    def bracket(self, number: int, total: int) -> int:
        """The rung of `Asha` that is the first one of this trial."""
        cycle = _cycle(len(_powers(self.first, self.eta, total)), self.eta)
        return cycle[number % len(cycle)]

    def borders(self, number: int, total: int) -> list[int]:
        """Those of `Asha`, from the bracket's first one on."""
        return _powers(self.first, self.eta, total)[self.bracket(number, total) :]


@dataclass(frozen=True)
class Median:
    """Stops a candidate whose best score so far is below the median of the earlier ones' averages up to there.

    The earlier ones are the complete trials of batches before; with fewer than `startup` of them nobody is
    stopped. The first look is after `first` epochs, and then there is one after every `every`.

    Raises: InputError if an argument is below 1, or a reward has several objectives.
    Source: Golovin et al. 2017, Google Vizier: A Service for Black-Box Optimization, KDD, section 3.2.2.
    """

    first: int = 1
    every: int = 1
    startup: int = 5

    def __post_init__(self) -> None:
        for name in ("first", "every", "startup"):
            _at_least(name, getattr(self, name), 1)

    def check(self, total: int, objectives: int, batch: int) -> None:
        """Refuses trainings that end at the first rung, and several objectives. Raises: InputError."""
        _check_first(self.first, total)
        if objectives > 1:
            raise InputError(
                f"rungs=median compares one number, the reward has {objectives}; choose rungs=asha or rungs=halving."
            )

    def borders(self, number: int, total: int) -> list[int]:
        """Every `every` epochs from `first` on."""
        return list(range(self.first, total, self.every))

    def keep(self, rung: int, batch: Sequence[Trial], earlier: Sequence[Trial]) -> set[int]:
        """Those that are not below the median; all of them while there is too little to compare with."""
        complete = [trial for trial in earlier if trial.status is Status.COMPLETE]
        if len(complete) < self.startup:
            return {trial.number for trial in batch}
        median = statistics.median(statistics.fmean(_so_far(trial, rung)) for trial in complete)
        return {trial.number for trial in batch if max(_so_far(trial, rung)) >= median}


def _top(rung: int, trials: Sequence[Trial], eta: int) -> set[int]:
    """The numbers of the best one in `eta` of these, by their scores at the rung; of equals the earlier ones."""
    order = best_first([trial.scores[rung] for trial in trials])
    return {trials[place].number for place in order[: max(1, len(trials) // eta)]}


def _so_far(trial: Trial, rung: int) -> list[float]:
    return [score[0] for epoch, score in trial.scores.items() if epoch <= rung]


@functools.cache
def _cycle(last: int, eta: int) -> list[int]:
    """The brackets of consecutive trials; those of each lie evenly, so a batch has some of every one that is large."""
    sizes = [math.ceil((last + 1) / (left + 1) * eta**left) for left in range(last, -1, -1)]
    places = sorted(((place + 0.5) / size, bracket) for bracket, size in enumerate(sizes) for place in range(size))
    return [bracket for _, bracket in places]


def _powers(first: int, eta: int, total: int) -> list[int]:
    found: list[int] = []
    while first < total:
        found.append(first)
        first *= eta
    return found


def _at_least(name: str, value: object, low: int) -> None:
    if type(value) is not int or value < low:
        raise InputError(f"rungs.{name} must be a whole number of at least {low}, got {value!r}.")


def _check_first(first: int, total: int) -> None:
    if first >= total:
        raise InputError(
            f"rungs.first must be below the {total} epochs of a training (objective.epochs), got {first}: "
            "there would be nothing to stop."
        )
