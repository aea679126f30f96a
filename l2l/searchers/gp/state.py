"""The state of a controller with a critic: its trials, the Gaussian process that is fitted to them, and its policy."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from l2l.encoding import Domain
from l2l.searchers.controllers.controller import ControllerState
from l2l.searchers.core.points import History, Points, pad_history
from l2l.searchers.gp.earlier_searches import EarlierTrials
from l2l.searchers.gp.gaussian_process import (
    Process,
    add_observations,
    compute_features,
    compute_normal_scores,
    widen_process,
)
from l2l.types import Array, Key

PROCESS_CAPACITY = 512
"""The most trials in the Gaussian process; when it is full, all but the best and the latest are evicted."""


class CriticState(NamedTuple):
    """All trials, the process on most of them, and the policy."""

    earlier: EarlierTrials
    """Trials of earlier searches, possibly none."""
    history: History
    process: Process
    """On the trials of earlier searches and then on trials of this one."""
    trial_indices: Array
    """[own]: the index in the history of each observation of a trial of this search."""
    design: Points
    """[first, D]: the candidates to begin with."""
    controller: ControllerState
    key: Key
    """For the samples of the policy that it learns from."""

    def count_observations(self) -> Array:
        """[]: how many trials of this search the process has."""
        return self.process.size - len(self.earlier.targets)

    def compute_targets(self) -> Array:
        """[own]: the normal scores of the trials of this search that the process has."""
        is_used = jnp.arange(len(self.trial_indices)) < self.count_observations()
        return compute_normal_scores(self.history.impute_scores()[self.trial_indices], is_used)

    def add_trials(self, domain: Domain, points: Points, scores: Array) -> CriticState:
        """The state with N more trials, for which history and process must have room."""
        indices = jax.lax.dynamic_update_slice_in_dim(
            self.trial_indices, self.history.count + jnp.arange(len(scores)), self.count_observations(), 0
        )
        process = add_observations(self.process, compute_features(domain, points))
        return self._replace(history=self.history.append(points, scores), process=process, trial_indices=indices)

    def widen(self, trials: int, observations: int) -> CriticState:
        """The state with room for at least so many trials in the history, and so many of them in the process."""
        process = widen_process(self.process, len(self.earlier.targets) + observations)
        indices = jnp.pad(self.trial_indices, (0, max(observations - len(self.trial_indices), 0)))
        return self._replace(history=pad_history(self.history, trials), process=process, trial_indices=indices)

    def make_room(self, count: int) -> CriticState:
        """The state whose process has room for `count` more trials; if it was full, half of them have left it."""
        if len(self.history.scores) <= PROCESS_CAPACITY:  # every trial has its row
            return self
        earlier_count, filled_scores = len(self.earlier.targets), self.history.impute_scores()

        # Lane by lane: under vmap both sides of a condition are evaluated, and an eviction takes as long as many asks.
        @jax.custom_batching.sequential_vmap
        def evict_if_full(process: Process, indices: Array, scores: Array) -> tuple[Process, Array]:
            is_full = process.size - earlier_count + count > len(indices)
            return jax.lax.cond(is_full, _evict_half, lambda *same: same[:2], process, indices, scores)

        process, indices = evict_if_full(self.process, self.trial_indices, filled_scores)
        return self._replace(process=process, trial_indices=indices)


def _evict_half(process: Process, trial_indices: Array, scores: Array) -> tuple[Process, Array]:
    """The process and its trial indices [own] after an eviction: the best quarter of them stays, and the latest one."""
    capacity = len(trial_indices)
    earlier_count = process.inverse.shape[1] - capacity
    rows, size = jnp.arange(capacity), process.size - earlier_count
    is_used = rows < size
    used_scores = jnp.where(is_used, scores[trial_indices], -jnp.inf)
    is_best = jnp.argsort(jnp.argsort(-used_scores, stable=True)) < capacity // 4
    stays = is_used & (is_best | (rows >= size - capacity // 4))
    order = jnp.argsort(~stays, stable=True)
    features = jax.tree.map(
        lambda leaf: jnp.concatenate([leaf[:earlier_count], leaf[earlier_count:][order]]), process.features
    )
    cleared = process._replace(inverse=jnp.zeros_like(process.inverse), size=jnp.int32(0))

    def observe_row(row: Array, process: Process) -> Process:
        return add_observations(process, jax.tree.map(lambda leaf: leaf[row][None], features))

    return jax.lax.fori_loop(0, earlier_count + stays.sum(), observe_row, cleared), trial_indices[order]
