"""What a new search learns from earlier ones: their trials as points of its space, as far as the names agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
import numpy as np

from l2l.encoding import Domain, Encoding
from l2l.errors import InputError
from l2l.searchers.core.points import Points, sample_points, zero_inactive
from l2l.searchers.gp.gaussian_process import compute_normal_scores
from l2l.types import Array, Key

if TYPE_CHECKING:
    from l2l.searchers.gp.study_reader import EarlierTrial

TRIAL_LIMIT = 128
"""The most trials taken from earlier searches, as many from each; a quarter are its best, the rest spread evenly."""
SEARCH_MINIMUM = 8
"""The least that `TRIAL_LIMIT` leaves to one search of many."""
UNKNOWN = -1
"""The code of a decision that is missing from the earlier space, or whose value is missing from the new one."""


class EarlierTrials(NamedTuple):
    """Trials of earlier searches, as points of a new search's space."""

    points: Points
    """[earlier, D]: an unknown decision has the code -1."""
    targets: Array
    """[earlier]: the normal scores of their rewards within their own search."""
    task: Array
    """[earlier]: 1 for trials of the first search, 2 for those of the second and so on."""

    def complete(self, domain: Domain, key: Key) -> Points:
        """The points [earlier, D], with unknown decisions sampled uniformly."""
        samples, is_known = sample_points(domain, key, len(self.targets)), self.points.codes >= 0
        return zero_inactive(
            domain, Points(*(jnp.where(is_known, a, b) for a, b in zip(self.points, samples, strict=True)))
        )


class EncodedTrials(NamedTuple):
    """Trials of one earlier search, as points of a new search's space."""

    codes: np.ndarray
    """[earlier, D]"""
    quantiles: np.ndarray
    """[earlier, D]"""
    scores: np.ndarray
    """[earlier]"""


def load_earlier_trials(locations: Sequence[str | Path], encoding: Encoding) -> EarlierTrials:
    """The trials of the searches at these run folders or Optuna storages. Raises: InputError if one cannot be used."""
    searches = [encode_search(location, encoding, share_limit(len(locations))) for location in locations]
    codes = np.concatenate([trials.codes for trials in searches])
    quantiles = np.concatenate([trials.quantiles for trials in searches])
    targets = [compute_normal_scores(trials.scores, np.ones(len(trials.scores), bool)) for trials in searches]
    task = [np.full(len(trials.scores), number, np.int32) for number, trials in enumerate(searches, 1)]
    points = Points(codes, quantiles)  # pyright: ignore[reportArgumentType]
    return EarlierTrials(points, np.concatenate([*map(np.asarray, targets)]), np.concatenate(task))  # pyright: ignore[reportArgumentType]


def share_limit(searches: int) -> int:
    """How many trials are taken from each of several searches."""
    return max(TRIAL_LIMIT // searches, SEARCH_MINIMUM)


def encode_search(location: str | Path, encoding: Encoding, limit: int = TRIAL_LIMIT) -> EncodedTrials:
    """At most `limit` trials of the search in a run folder or an Optuna storage, as points of the encoding's space.

    Raises: InputError if there is no such search, none of its trials has succeeded, or it shares no name of a choice
    and no value with the space.
    """
    # Here, so that a search without a prior starts without Optuna.
    from l2l.searchers.gp.study_reader import read_trials

    trials = read_trials(location)
    names = {decision.name for decision in encoding.decisions}
    earlier_names = sorted({name for trial in trials for name in trial.values})
    shared_names = [name for name in earlier_names if name in names]
    if not shared_names:
        raise InputError(
            f"prior={location} shares no choice with this space: it has {', '.join(earlier_names[:8])}, and the space "
            f"{', '.join(sorted(names)[:8])}."
        )
    trials = _select_trials(trials, limit)
    codes = np.full((len(trials), len(encoding.decisions)), UNKNOWN, np.int32)
    quantiles = np.zeros(codes.shape, np.float32)
    for row, trial in enumerate(trials):
        for column, decision in enumerate(encoding.decisions):
            try:
                value = decision.choice.read(trial.values[decision.name])
            except (KeyError, InputError):
                continue
            codes[row, column] = code = decision.code(value)
            quantiles[row, column] = encoding.quantile(column, code, value)
    if not (codes >= 0).any():
        raise InputError(
            f"prior={location} shares no value of a choice with this space, though both have "
            f"{', '.join(shared_names[:8])}."
        )
    return EncodedTrials(codes, quantiles, np.array([trial.score for trial in trials], np.float32))


def _select_trials(trials: Sequence[EarlierTrial], limit: int) -> list[EarlierTrial]:
    """At most `limit` trials: a quarter of them the best ones, the others evenly spread over the search."""
    if len(trials) <= limit:
        return list(trials)
    order, best_count = sorted(range(len(trials)), key=lambda index: (-trials[index].score, index)), limit // 4
    rest = sorted(order[best_count:])
    spread = [rest[int(position)] for position in np.linspace(0, len(rest) - 1, limit - best_count)]
    return [trials[index] for index in sorted({*order[:best_count], *spread})]
