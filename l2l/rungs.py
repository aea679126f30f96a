"""Early stopping: pure functions from the scores at a rung to the trials that train on."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from l2l.errors import InputError, check_integer
from l2l.pareto import sort_best_first
from l2l.types import Status, Trial


@dataclass(frozen=True)
class Halving:
    """Of each batch, the best of every `eta` candidates train `eta` times as long; the first rung is at epoch `first`.

    Several objectives are ranked by non-domination, then by crowding distance.

    Raises: InputError if `eta` is below 2 or `first` below 1.
    Source: Jamieson and Talwalkar 2016, Non-stochastic Best Arm Identification and Hyperparameter Optimization,
    AISTATS, figure 3 (successive halving); `eta` as in Li et al. 2018, algorithm 1.
    """

    eta: int = 3
    first: int = 1

    def __post_init__(self) -> None:
        check_integer("rungs.eta", self.eta, 2)
        check_integer("rungs.first", self.first, 1)

    def check(self, total_epochs: int, objectives: int, batch: int) -> None:
        """Rejects trainings that end at the first rung, and batches too small to stop a trial. Raises: InputError."""
        _check_first_rung(self.first, total_epochs)
        if batch < self.eta:
            raise InputError(
                f"rungs=halving keeps the best of every {self.eta} candidates of a batch, and a batch has {batch} "
                f"here: let batch and trials be {self.eta} or more, or choose rungs=asha."
            )

    def list_rungs(self, number: int, total_epochs: int) -> list[int]:
        """`first`, and `eta` times as many each time."""
        return _list_powers(self.first, self.eta, total_epochs)

    def keep(self, rung: int, batch: Sequence[Trial], earlier: Sequence[Trial]) -> set[int]:
        """The best of the batch, at least one."""
        return _select_best(rung, batch, self.eta)


@dataclass(frozen=True)
class Asha(Halving):
    """Successive halving that compares a candidate with all that were ever scored at its rung.

    A candidate trains on if it is among the best of every `eta`, earlier batches included. In the paper a stopped
    candidate may be promoted later, once worse ones have arrived. Here, as in the paper's stopping variant, it stays
    stopped, so that the decisions depend on the order of the trials only.

    Raises: InputError if `eta` is below 2 or `first` below 1.
    Source: Li et al. 2020, A System for Massively Parallel Hyperparameter Tuning, MLSys, algorithm 2.
    """

    def check(self, total_epochs: int, objectives: int, batch: int) -> None:
        """Rejects trainings that end at the first rung. Raises: InputError."""
        _check_first_rung(self.first, total_epochs)

    def keep(self, rung: int, batch: Sequence[Trial], earlier: Sequence[Trial]) -> set[int]:
        """Those of the batch that are among the best so far; possibly none."""
        return _select_best(rung, [*earlier, *batch], self.eta) & {trial.number for trial in batch}


@dataclass(frozen=True)
class Hyperband(Asha):
    """ASHA in brackets: each bracket has its first rung later, and the last one trains its candidates in full.

    A trial's number decides its bracket. Brackets get candidates in the algorithm's proportions, so that all brackets
    train for about as many epochs; a candidate is compared with those of its own bracket.

    Raises: InputError if `eta` is below 2 or `first` below 1.
    Source: Li et al. 2018, Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization, JMLR 18,
    algorithm 1; brackets that run asynchronously as in Li et al. 2020, section 3.3.
    """

    def find_bracket(self, number: int, total_epochs: int) -> int:
        """The index, among the rungs of `Asha`, of this trial's first rung."""
        cycle = _list_brackets(len(_list_powers(self.first, self.eta, total_epochs)), self.eta)
        return cycle[number % len(cycle)]

    def list_rungs(self, number: int, total_epochs: int) -> list[int]:
        """Those of `Asha`, from the bracket's first one on."""
        return _list_powers(self.first, self.eta, total_epochs)[self.find_bracket(number, total_epochs) :]


@dataclass(frozen=True)
class Median:
    """Stops a candidate whose best score so far is below the median of what earlier trials averaged until this rung.

    The earlier trials are the complete ones of the batches before; while there are fewer than `startup` of them, no
    candidate is stopped. The first rung is after `first` epochs, the next ones after every `every` epochs.

    Raises: InputError if an argument is below 1, or a reward has several objectives.
    Source: Golovin et al. 2017, Google Vizier: A Service for Black-Box Optimization, KDD, section 3.2.2.
    """

    first: int = 1
    every: int = 1
    startup: int = 5

    def __post_init__(self) -> None:
        for name in ("first", "every", "startup"):
            check_integer(f"rungs.{name}", getattr(self, name), 1)

    def check(self, total_epochs: int, objectives: int, batch: int) -> None:
        """Rejects trainings that end at the first rung, and several objectives. Raises: InputError."""
        _check_first_rung(self.first, total_epochs)
        if objectives > 1:
            raise InputError(
                f"rungs=median compares one number, the reward has {objectives}; choose rungs=asha or rungs=halving."
            )

    def list_rungs(self, number: int, total_epochs: int) -> list[int]:
        """Every `every` epochs from `first` on."""
        return list(range(self.first, total_epochs, self.every))

    def keep(self, rung: int, batch: Sequence[Trial], earlier: Sequence[Trial]) -> set[int]:
        """Those that are not below the median; all of them while there are too few trials to compare with."""
        complete = [trial for trial in earlier if trial.status is Status.COMPLETE]
        if len(complete) < self.startup:
            return {trial.number for trial in batch}
        median = statistics.median(statistics.fmean(_list_scores(trial, rung)) for trial in complete)
        return {trial.number for trial in batch if max(_list_scores(trial, rung)) >= median}


def _select_best(rung: int, trials: Sequence[Trial], eta: int) -> set[int]:
    """The numbers of the best one in `eta` trials, by their scores at the rung; of equals the earlier ones."""
    order = sort_best_first([trial.scores[rung] for trial in trials])
    return {trials[index].number for index in order[: max(1, len(trials) // eta)]}


def _list_scores(trial: Trial, rung: int) -> list[float]:
    """The scores of a trial's first objective up to the rung."""
    return [score[0] for epoch, score in trial.scores.items() if epoch <= rung]


@functools.cache
def _list_brackets(last: int, eta: int) -> list[int]:
    """The brackets of consecutive trials, each spread evenly, so that any long stretch has trials of every bracket."""
    sizes = [math.ceil((last + 1) / (rungs + 1) * eta**rungs) for rungs in range(last, -1, -1)]
    slots = sorted(((index + 0.5) / size, bracket) for bracket, size in enumerate(sizes) for index in range(size))
    return [bracket for _, bracket in slots]


def _list_powers(first: int, eta: int, total_epochs: int) -> list[int]:
    """`first`, `first * eta`, `first * eta**2`, ... below `total_epochs`."""
    epochs: list[int] = []
    while first < total_epochs:
        epochs.append(first)
        first *= eta
    return epochs


def _check_first_rung(first: int, total_epochs: int) -> None:
    if first >= total_epochs:
        raise InputError(
            f"rungs.first must be below the {total_epochs} epochs of a training (objective.epochs), got {first}: "
            "there would be nothing to stop."
        )
