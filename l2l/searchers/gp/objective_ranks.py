"""Several objectives as one score: the rank of a reward among all rewards of the search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from l2l.pareto import sort_best_first
from l2l.searchers.core.base import ArraySearcherState
from l2l.types import Trial

Rewards = tuple[tuple[float, ...] | None, ...]
"""The rewards of all trials, None where one has failed."""


def has_several_objectives(state: ArraySearcherState, trials: Sequence[Trial]) -> bool:
    """Whether the search has several objectives, by the rewards of its earlier and its new trials."""
    return bool(state.rewards) or any(trial.reward is not None and len(trial.reward) != 1 for trial in trials)


def append_rewards(state: ArraySearcherState, trials: Sequence[Trial]) -> Rewards:
    """The rewards of the state's trials and then of the new ones; before the first reward all have failed."""
    return (*(state.rewards or (None,) * state.trial_count), *(trial.reward for trial in trials))


def score_by_rank(rewards: Rewards) -> npt.NDArray[np.float32]:
    """Scores [N] of N rewards: 0 for the best, -1 for the next and so on; nan where a trial has failed.

    The better front is better, and within a front the less crowded reward.
    """
    successful = [index for index, reward in enumerate(rewards) if reward is not None]
    order = sort_best_first([rewards[index] or () for index in successful])
    scores = np.full(len(rewards), np.nan, np.float32)
    scores[[successful[index] for index in order]] = -np.arange(len(order), dtype=np.float32)
    return scores


def replace_scores(state: ArraySearcherState, scores: npt.NDArray[np.float32]) -> ArraySearcherState:
    """The state whose trials have these scores, since new trials change the ranks of those before them."""
    history = state.arrays.history
    padded = np.array(history.scores)
    padded[: state.trial_count] = scores[: state.trial_count]
    return state._replace(arrays=state.arrays._replace(history=history._replace(scores=padded)))


def replace_rewards(trials: Sequence[Trial], scores: npt.NDArray[np.float32]) -> list[Trial]:
    """The trials with their scores [N] as their only reward."""
    return [
        trial if trial.reward is None else replace(trial, reward=(float(score),))
        for trial, score in zip(trials, scores, strict=True)
    ]
