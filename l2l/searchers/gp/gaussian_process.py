"""A Gaussian process over candidates of several tasks: its kernels under several settings, its fit, its predictions.

Source: Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, algorithm 2.1 and section 5.4.1;
Bonilla et al. 2008, Multi-task Gaussian Process Prediction, NeurIPS, equation 1 (the correlation of tasks).
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from l2l.encoding import Domain
from l2l.searchers.core.points import Points, is_active
from l2l.types import Array, Key

LENGTH_SCALES = (1 / 6, 1 / 3, 2 / 3)
"""Length-scales, as shares of the decisions: how many may differ before two candidates say little of each other."""
KERNELS = ((0, (0.03,)), (1, (0.03, 0.3)))
"""The kernels, 0 on decisions and 1 on option counts, each with its noise variances relative to the process's own.

The kernel on decisions sees which option stands where, and tells neighbours apart. The kernel on option counts sees how
often each option occurs, and more roughly where it stands.
"""
TASK_CORRELATIONS = (0.5, 0.0)
"""How much two tasks say of each other. With more than a half, the best of one task is believed to be the best here."""
NUMBER_WEIGHT = 8.0
"""Weight of the squared distance of two numbers: a third of the range counts about as much as another category."""
COUNT_LENGTH_SCALE = 1 / 3
"""Length-scale of the distance of option counts, as a share of the decisions."""
SMALLEST = 1e-6
"""The smallest variance."""
BLOCK = 64
"""Rows that are multiplied at once."""


class Features(NamedTuple):
    """N candidates as the kernels see them."""

    options: Array
    """[N, D * (K + 1)]: each category's option, the last meaning inactive; of a number only whether it is active."""
    counts: Array
    """[N, F * D + D * (K + 1)]: whether each option occurs once, twice, ... among the decisions that share it; then
    which option each decision has that shares its options with no other."""
    numbers: Array
    """[N, D]: the quantiles of active numbers, scaled so that squared distances count like categories."""
    norms: Array
    """[N, 2]: squared norms of the counts and of the numbers."""
    task: Array
    """[N]: the task of each candidate, 0 being the present search."""


class Process(NamedTuple):
    """The observations of R trials in arrays of a fixed size, under each of several settings."""

    settings: Array
    """[settings, 4]: length-scale, kernel (0 or 1), noise variance and task correlation."""
    features: Features
    inverse: Array
    """[settings, R, R]: the inverse of each kernel matrix's Cholesky factor; zero in unused rows."""
    size: Array
    """[]: how many observations there are."""


class Posterior(NamedTuple):
    """The process given its targets, under one setting."""

    setting: Array
    """[]: its index."""
    weights: Array
    """[R]: the standardised targets in the coordinates of the Cholesky factor."""
    scale: Array
    """[]: variance of the process."""


def compute_features(domain: Domain, points: Points, task: int | Array = 0) -> Features:
    """The features of points [N, D]; a decision with the code -1 is unknown, and counts as inactive."""
    width = domain.valid.shape[1]
    masks, ordinal = is_active(domain, points.codes) & (points.codes >= 0), jnp.asarray(domain.ordinal)
    options = jnp.where(masks, jnp.where(ordinal, 0, points.codes), width)
    one_hot = jax.nn.one_hot(options, width + 1)  # [N, D, K + 1]
    shared_options = jnp.asarray(domain.shared_options, jnp.float32)
    unshared = one_hot * ~jnp.asarray(domain.shared_options).any((1, 2))[:, None]
    occurrences = jnp.einsum("ndk,dkf->nf", one_hot[..., :width], shared_options)
    # As thresholds, so that a matrix product gives the distance of the counts.
    thresholds = occurrences[..., None] > jnp.arange(one_hot.shape[1])
    counts = jnp.concatenate([thresholds.reshape(len(one_hot), -1), unshared.reshape(len(one_hot), -1)], -1)
    numbers = jnp.where(masks & ordinal, points.quantiles, 0) * np.sqrt(NUMBER_WEIGHT)
    tasks = jnp.broadcast_to(jnp.asarray(task, jnp.int32), len(one_hot))
    norms = jnp.stack([(vectors * vectors).sum(-1) for vectors in (counts, numbers)], -1)
    return Features(one_hot.reshape(len(one_hot), -1), counts, numbers, norms, tasks)


def compute_kernel(first: Features, second: Features, setting: Array) -> Array:
    """[..., N, N']: the covariance of N and N' candidates, 1 between equals, under settings [..., 4].

    With D decisions, of which `m` differ, numbers at a squared distance `x`, option counts at a distance `c`,
    length-scale `s` and task correlation `r` (1 within a task):

        kernel 0, on decisions:      r exp(-(m + x) / (s D))
        kernel 1, on option counts:  r exp(-(m + x) / (3 s D) - (c / 2 + x) / (COUNT_LENGTH_SCALE D))

    The second one has a term on decisions too, three times as wide, so that it tells apart what has equal counts.
    """
    decisions = first.numbers.shape[1]
    length_scale, kernel, _, correlation = (values[..., None, None] for values in jnp.moveaxis(setting, -1, 0))
    count_distance = _measure_squared_distances(first.counts, second.counts, first.norms[:, 0], second.norms[:, 0])
    number_distance = _measure_squared_distances(first.numbers, second.numbers, first.norms[:, 1], second.norms[:, 1])
    decision_distance = decisions - first.options @ second.options.T + number_distance
    # Two candidates that differ in one exchange of options have counts at a distance of two.
    exchange_distance = count_distance / 2 + number_distance
    # The kernels differ in these two terms; selecting between their results instead would change the last digits.
    width = jnp.where(kernel == 1, 3, 1)
    exchange_distance = jnp.where(kernel == 1, exchange_distance, 0)
    distance = decision_distance / (length_scale * decisions) / width
    distance += exchange_distance / (COUNT_LENGTH_SCALE * decisions)
    return jnp.where(first.task[:, None] == second.task, 1, correlation) * jnp.exp(-distance)


def _measure_squared_distances(first: Array, second: Array, first_norms: Array, second_norms: Array) -> Array:
    """[N, N']: squared distances of vectors [N, F] and [N', F] with these squared norms."""
    return jnp.maximum(first_norms[:, None] + second_norms - 2 * (first @ second.T), 0)


def create_process(domain: Domain, capacity: int, several_tasks: bool = False) -> Process:
    """A process without observations, with room for `capacity`; of one task or of several."""
    decisions, width = domain.valid.shape
    options = jnp.zeros((capacity, decisions * (width + 1)))
    counts = jnp.zeros((capacity, domain.shared_options.shape[2] * decisions + decisions * (width + 1)))
    numbers, norms, task = (
        jnp.zeros((capacity, decisions)),
        jnp.zeros((capacity, 2)),
        jnp.zeros(capacity, jnp.int32),
    )
    features = Features(options, counts, numbers, norms, task)
    correlations = TASK_CORRELATIONS if several_tasks else (1.0,)
    settings = [
        (length_scale, kernel, noise, correlation)
        for correlation, length_scale, (kernel, noises) in itertools.product(correlations, LENGTH_SCALES, KERNELS)
        for noise in noises
    ]
    inverse = jnp.zeros((len(settings), capacity, capacity))
    return Process(jnp.asarray(settings, jnp.float32), features, inverse, jnp.int32(0))


def widen_process(process: Process, capacity: int) -> Process:
    """The same process with room for at least `capacity` observations."""
    extra = max(capacity - process.inverse.shape[1], 0)
    features = jax.tree.map(lambda leaf: jnp.pad(leaf, ((0, extra), *[(0, 0)] * (leaf.ndim - 1))), process.features)
    inverse = jnp.pad(process.inverse, ((0, 0), (0, extra), (0, extra)))
    return process._replace(features=features, inverse=inverse)


def add_observations(process: Process, features: Features) -> Process:
    """The process with N more observations, one after the other."""
    if len(features.task) == 1:
        return _add_observation(process, features)
    rows = jax.tree.map(lambda leaf: leaf[:, None], features)
    return jax.lax.scan(lambda process, row: (_add_observation(process, row), None), process, rows)[0]


def _add_observation(process: Process, features: Features) -> Process:
    """The process with one more observation: one more row of each inverse Cholesky factor."""
    index = process.size
    is_used = jnp.arange(process.inverse.shape[1]) < index
    covariance = compute_kernel(process.features, features, process.settings)[:, :, 0] * is_used  # [settings, R]
    lower = jnp.einsum("gij,gj->gi", process.inverse, covariance)
    corner = jnp.sqrt(jnp.maximum(1 + process.settings[:, 2] - (lower * lower).sum(1), SMALLEST))
    row = -jnp.einsum("gi,gij->gj", lower, process.inverse) / corner[:, None]
    row = row.at[:, index].set(1 / corner)
    features = jax.tree.map(lambda rows, new: rows.at[index].set(new[0]), process.features, features)
    return process._replace(features=features, inverse=process.inverse.at[:, index].set(row), size=index + 1)


def compute_normal_scores(scores: Array | npt.NDArray[Any], is_known: Array | npt.NDArray[Any]) -> Array:
    """The ranks of the known scores [N] as normal quantiles, standardised to mean 0 and variance 1; 0 elsewhere."""
    scores, is_known = jnp.asarray(scores), jnp.asarray(is_known)
    count = jnp.maximum(is_known.sum(), 1)
    smaller = ((scores[None] < scores[:, None]) & is_known).sum(1)
    equal = ((scores[None] == scores[:, None]) & is_known).sum(1)
    quantiles = jax.scipy.special.ndtri(jnp.clip((smaller + equal / 2) / count, 1e-4, 1 - 1e-4))
    values = jnp.where(is_known, quantiles, 0)
    mean = values.sum() / count
    std = jnp.sqrt((jnp.where(is_known, values - mean, 0) ** 2).sum() / count) + 1e-6
    return jnp.where(is_known, (values - mean) / std, 0)


def fit_posterior(
    process: Process, targets: Array, kernel: Array | int | None = None, key: Key | None = None
) -> Posterior:
    """The posterior under the likeliest setting, for targets [R] that are standardised, and zero in unused rows.

    With `kernel` only settings of that kernel compete. With `key` the setting is sampled, each in proportion to its
    likelihood.
    """
    is_used = jnp.arange(len(targets)) < process.size
    weights = jnp.einsum("gij,j->gi", process.inverse, targets)
    diagonals = jnp.diagonal(process.inverse, axis1=1, axis2=2)
    log_determinants = -2 * jnp.where(is_used, jnp.log(jnp.where(is_used, diagonals, 1)), 0).sum(1)
    count = jnp.maximum(process.size, 1)
    scales = jnp.maximum((weights * weights).sum(1) / count, SMALLEST)
    # Twice the logarithm of the likelihood, up to what all settings share.
    log_likelihoods = -count * jnp.log(scales) - log_determinants
    if kernel is not None:
        log_likelihoods = jnp.where(process.settings[:, 1] == kernel, log_likelihoods, -jnp.inf)
    setting = jnp.argmax(log_likelihoods)
    if key is not None:
        setting = jax.random.categorical(key, log_likelihoods / 2)
    return Posterior(setting, weights[setting], scales[setting])


def predict(process: Process, posterior: Posterior, features: Features) -> tuple[Array, Array]:
    """Mean [N] and standard deviation [N] at N candidates, without observation noise."""
    is_used = jnp.arange(process.inverse.shape[1]) < process.size
    covariance = compute_kernel(process.features, features, process.settings[posterior.setting]) * is_used[:, None]
    inverse, capacity = process.inverse[posterior.setting], len(is_used)
    # In blocks of rows, since everything right of the diagonal is zero: half the work where there are many rows.
    blocks = [(first, min(first + BLOCK, capacity)) for first in range(0, capacity, BLOCK)]
    lower = jnp.concatenate([inverse[first:end, :end] @ covariance[:end] for first, end in blocks])  # [R, N]
    variance = jnp.maximum(1 - (lower * lower).sum(0), SMALLEST) * posterior.scale
    return posterior.weights @ lower, jnp.sqrt(variance)
