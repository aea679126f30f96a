"""A Gaussian process over candidates of several tasks: its kernels under several settings, and what it predicts.

Source: Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, algorithm 2.1 and section 5.4.1;
Bonilla et al. 2008, Multi-task Gaussian Process Prediction, NeurIPS, equation 1 (the relation of tasks).
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from l2l.encoding import Domain
from l2l.searchers.core.points import Points, is_active
from l2l.types import Array, Key

SPANS = (1 / 6, 1 / 3, 2 / 3)
"""Length-scales, as shares of the decisions: how many may differ before two candidates say little of each other."""
VIEWS = ((0, (0.03,)), (1, (0.03, 0.3)))
"""Whether the kernel sees option counts, and variances of the noise relative to the process's own.

One view sees where options stand, and tells neighbours apart; the other sees how often each occurs, and more roughly.
"""
RELATIONS = (0.5, 0.0)
"""How much two tasks say of each other. With more than a half what was best there is believed to be best here."""
STEEP = 8.0
"""A number that moves by a third of its range counts like another category."""
COUNTS = 1 / 3
"""Length-scale of the kernel on option counts, as a share of the decisions."""
SMALLEST = 1e-6
BLOCK = 64
"""Rows that are multiplied at once."""


class Features(NamedTuple):
    """N candidates as the kernels see them."""

    options: Array
    """[N, D * (K + 1)]: which option each category has, the last being none; a number only says whether it is there."""
    counts: Array
    """[N, F * D + D * (K + 1)]: whether each option occurs once, twice, ... among the decisions that share it; then
    which option each decision has that shares its options with no other."""
    numbers: Array
    """[N, D]: the quantiles of active numbers, scaled so that squared distances count like categories."""
    lengths: Array
    """[N, 2]: squared lengths of the counts and of the numbers."""
    task: Array
    """[N]: the task that each was tried on, 0 being ours."""


class Process(NamedTuple):
    """R observations in arrays of a fixed size, under each of G settings."""

    settings: Array
    """[G, 4]: span, view (0 or 1), noise and relation."""
    features: Features
    inverse: Array
    """[G, R, R]: the inverse of each kernel matrix's Cholesky factor; zero in rows that nothing is in."""
    taken: Array
    """[]: how many observations there are."""


class Posterior(NamedTuple):
    """What the process says under one setting."""

    setting: Array
    """[]: its number."""
    weights: Array
    """[R]: the standardised targets in the factor's coordinates."""
    scale: Array
    """[]: variance of the process."""


def featured(domain: Domain, points: Points, task: int | Array = 0) -> Features:
    """The features of points [N, D]; a decision with the code -1 is not known, and counts as one that is inactive."""
    width = domain.valid.shape[1]
    masks, ordinal = is_active(domain, points.codes) & (points.codes >= 0), jnp.asarray(domain.ordinal)
    options = jnp.where(masks, jnp.where(ordinal, 0, points.codes), width)
    hot = jax.nn.one_hot(options, width + 1)  # [N, D, K + 1]
    shared_options = jnp.asarray(domain.shared_options, jnp.float32)
    lone = hot * ~jnp.asarray(domain.shared_options).any((1, 2))[:, None]
    often = jnp.einsum("ndk,dkf->nf", hot[..., :width], shared_options)
    # The squared distance of these is the distance of the counts, and comes out of a product.
    levels = often[..., None] > jnp.arange(hot.shape[1])
    counts = jnp.concatenate([levels.reshape(len(hot), -1), lone.reshape(len(hot), -1)], -1)
    numbers = jnp.where(masks & ordinal, points.quantiles, 0) * np.sqrt(STEEP)
    tasks = jnp.broadcast_to(jnp.asarray(task, jnp.int32), len(hot))
    lengths = jnp.stack([(each * each).sum(-1) for each in (counts, numbers)], -1)
    return Features(hot.reshape(len(hot), -1), counts, numbers, lengths, tasks)


def kernel(one: Features, other: Features, setting: Array) -> Array:
    """[..., N, M]: the covariance of N and M candidates, 1 between equals, under settings [..., 4]."""
    decisions = one.numbers.shape[1]
    span, view, _, relation = (each[..., None, None] for each in jnp.moveaxis(setting, -1, 0))
    counts, numbers = (
        jnp.maximum(one.lengths[:, place, None] + other.lengths[:, place] - 2 * product, 0)
        for place, product in enumerate((one.counts @ other.counts.T, one.numbers @ other.numbers.T))
    )
    differ = decisions - one.options @ other.options.T + numbers
    # Of two candidates that differ in one exchange the counts are two apart.
    exchanged = counts / 2 + numbers
    far = differ / (span * decisions) / (1 + 2 * view) + view * exchanged / (COUNTS * decisions)
    return jnp.where(one.task[:, None] == other.task, 1, relation) * jnp.exp(-far)


def empty(domain: Domain, room: int, several: bool = False) -> Process:
    """A process without observations, with room for `room`; of one task or of several."""
    rows, width = domain.valid.shape
    options = jnp.zeros((room, rows * (width + 1)))
    counts = jnp.zeros((room, domain.shared_options.shape[2] * rows + rows * (width + 1)))
    features = Features(options, counts, jnp.zeros((room, rows)), jnp.zeros((room, 2)), jnp.zeros(room, jnp.int32))
    relations = RELATIONS if several else (1.0,)
    settings = [
        (span, view, noise, relation)
        for relation, span, (view, noises) in itertools.product(relations, SPANS, VIEWS)
        for noise in noises
    ]
    return Process(jnp.asarray(settings, jnp.float32), features, jnp.zeros((len(settings), room, room)), jnp.int32(0))


def widened(process: Process, room: int) -> Process:
    """The same process with room for at least `room`."""
    more = max(room - process.inverse.shape[1], 0)
    features = jax.tree.map(lambda each: jnp.pad(each, ((0, more), *[(0, 0)] * (each.ndim - 1))), process.features)
    inverse = jnp.pad(process.inverse, ((0, 0), (0, more), (0, more)))
    return process._replace(features=features, inverse=inverse)


def observed(process: Process, new: Features) -> Process:
    """The process with N more observations, one after the other."""
    if len(new.task) == 1:
        return _observed(process, new)
    rows = jax.tree.map(lambda each: each[:, None], new)
    return jax.lax.scan(lambda process, row: (_observed(process, row), None), process, rows)[0]


def _observed(process: Process, new: Features) -> Process:
    here = process.taken
    known = jnp.arange(process.inverse.shape[1]) < here
    across = kernel(process.features, new, process.settings)[:, :, 0] * known  # [G, R]
    lower = jnp.einsum("gij,gj->gi", process.inverse, across)
    corner = jnp.sqrt(jnp.maximum(1 + process.settings[:, 2] - (lower * lower).sum(1), SMALLEST))
    row = -jnp.einsum("gi,gij->gj", lower, process.inverse) / corner[:, None]
    row = row.at[:, here].set(1 / corner)
    features = jax.tree.map(lambda old, each: old.at[here].set(each[0]), process.features, new)
    return process._replace(features=features, inverse=process.inverse.at[:, here].set(row), taken=here + 1)


def fitted(process: Process, targets: Array, view: Array | int | None = None, key: Key | None = None) -> Posterior:
    """The likeliest setting for targets [R], which are standardised and zero where nothing is observed.

    With `view` only settings of that view compete. With `key` one is drawn by how likely each is.
    """
    known = jnp.arange(len(targets)) < process.taken
    weights = jnp.einsum("gij,j->gi", process.inverse, targets)
    corners = jnp.diagonal(process.inverse, axis1=1, axis2=2)
    determinants = -2 * jnp.where(known, jnp.log(jnp.where(known, corners, 1)), 0).sum(1)
    count = jnp.maximum(process.taken, 1)
    scales = jnp.maximum((weights * weights).sum(1) / count, SMALLEST)
    likely = -count * jnp.log(scales) - determinants
    if view is not None:
        likely = jnp.where(process.settings[:, 1] == view, likely, -jnp.inf)
    best = jnp.argmax(likely)
    if key is not None:
        # `likely` is twice the logarithm of the likelihood, but for what all settings share.
        best = jax.random.categorical(key, likely / 2)
    return Posterior(best, weights[best], scales[best])


def predicted(process: Process, posterior: Posterior, new: Features) -> tuple[Array, Array]:
    """Mean [M] and standard deviation [M] at new candidates, without the noise of observing them."""
    known = jnp.arange(process.inverse.shape[1]) < process.taken
    across = kernel(process.features, new, process.settings[posterior.setting]) * known[:, None]
    inverse, room = process.inverse[posterior.setting], len(known)
    # In blocks of rows, since what is right of the diagonal is zero: half the work where there are many.
    blocks = [(first, min(first + BLOCK, room)) for first in range(0, room, BLOCK)]
    lower = jnp.concatenate([inverse[first:end, :end] @ across[:end] for first, end in blocks])  # [R, M]
    variance = jnp.maximum(1 - (lower * lower).sum(0), SMALLEST) * posterior.scale
    return posterior.weights @ lower, jnp.sqrt(variance)
