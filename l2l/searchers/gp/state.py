"""What a controller with a critic knows: its trials, what a Gaussian process makes of them, and its policy."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy.typing as npt

from l2l.encoding import Domain
from l2l.searchers.controllers.controller import ControllerState
from l2l.searchers.core.points import History, Points
from l2l.searchers.gp.gaussian_process import Process, featured, observed
from l2l.types import Array, Key

LIMIT = 512
"""Trials that the process holds; half of them make room then: all but the best and the latest."""


class Source(NamedTuple):
    """S trials of earlier searches."""

    points: Points
    """[S, D]: a decision that the other space had not has the code -1."""
    targets: Array
    """[S]: their ranks within their own search, as `ranked` gives them."""
    task: Array
    """[S]: 1 for the first search, then 2."""


class Critic(NamedTuple):
    """All trials, what the process makes of them, and the policy."""

    source: Source
    history: History
    process: Process
    """Of the source's trials and then of our own."""
    rows: Array
    """[R]: which trial each row of the process is, after the source's."""
    design: Points
    """[F, D]: the candidates to begin with."""
    controller: ControllerState
    key: Key
    """For what the policy draws to learn from."""

    def held(self) -> Array:
        """[]: how many trials the process holds."""
        return self.process.taken - len(self.source.targets)

    def targets(self) -> Array:
        """[R]: the targets of the trials that the process holds."""
        return ranked(self.history.impute_scores()[self.rows], jnp.arange(len(self.rows)) < self.held())

    def with_trials(self, domain: Domain, points: Points, scores: Array) -> Critic:
        """The state with N more trials, for which the history has room."""
        first = self.history.count
        rows = jax.lax.dynamic_update_slice_in_dim(self.rows, first + jnp.arange(len(scores)), self.held(), 0)
        kept = self.history.append(points, scores)
        return self._replace(history=kept, process=observed(self.process, featured(domain, points)), rows=rows)

    def spared(self, count: int) -> Critic:
        """The state whose process has room for `count` more: the best quarter of its trials stays, and the latest."""
        if len(self.history.scores) <= LIMIT:  # there is a row for each trial
            return self
        sources, worst = len(self.source.targets), self.history.impute_scores()

        # Lane by lane: under vmap a condition is evaluated both ways, and making room takes as long as many proposals.
        @jax.custom_batching.sequential_vmap
        def spare(process: Process, rows: Array, worst: Array) -> tuple[Process, Array]:
            full = process.taken - sources + count > len(rows)
            return jax.lax.cond(full, _spared, lambda *same: same[:2], process, rows, worst)

        process, rows = spare(self.process, self.rows, worst)
        return self._replace(process=process, rows=rows)


def _spared(process: Process, rows: Array, worst: Array) -> tuple[Process, Array]:
    """The process, and which trial each row is, with half of the rows free."""
    room = len(rows)
    sources = process.inverse.shape[1] - room
    place, held = jnp.arange(room), process.taken - sources
    scores = jnp.where(place < held, worst[rows], -jnp.inf)
    best = jnp.argsort(jnp.argsort(-scores, stable=True)) < room // 4
    stays = (place < held) & (best | (place >= held - room // 4))
    order = jnp.argsort(~stays, stable=True)
    features = jax.tree.map(lambda leaf: jnp.concatenate([leaf[:sources], leaf[sources:][order]]), process.features)
    bare = process._replace(inverse=jnp.zeros_like(process.inverse), taken=jnp.int32(0))

    def again(row: Array, process: Process) -> Process:
        return observed(process, jax.tree.map(lambda leaf: leaf[row][None], features))

    return jax.lax.fori_loop(0, sources + stays.sum(), again, bare), rows[order]


def ranked(scores: Array | npt.NDArray[Any], told: Array | npt.NDArray[Any]) -> Array:
    """The ranks of those scores [C] that are told [C] as normal quantiles, with mean 0 and variance 1; else 0."""
    scores, told = jnp.asarray(scores), jnp.asarray(told)
    count = jnp.maximum(told.sum(), 1)
    less = ((scores[None] < scores[:, None]) & told).sum(1)
    equal = ((scores[None] == scores[:, None]) & told).sum(1)
    quantiles = jax.scipy.special.ndtri(jnp.clip((less + equal / 2) / count, 1e-4, 1 - 1e-4))
    values = jnp.where(told, quantiles, 0)
    mean = values.sum() / count
    spread = jnp.sqrt((jnp.where(told, values - mean, 0) ** 2).sum() / count) + 1e-6
    return jnp.where(told, (values - mean) / spread, 0)
