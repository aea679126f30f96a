"""The Gaussian process: against its textbook form, and what its kernels should and should not tell apart."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l.encoding import Encoding
from l2l.searchers.core.points import Points, locate_points, sample_points, zero_inactive
from l2l.searchers.gp import gaussian_process
from l2l.searchers.gp.gaussian_process import Features, compute_normal_scores, create_process, widen_process
from l2l.space import Categorical, Real, SearchSpace
from l2l.testing import SPACES

add_observations, compute_features, compute_kernel, fit_posterior, predict = map(
    jax.jit,
    (
        gaussian_process.add_observations,
        gaussian_process.compute_features,
        gaussian_process.compute_kernel,
        gaussian_process.fit_posterior,
        gaussian_process.predict,
    ),
)
CELL = SearchSpace({f"edge{n}": Categorical(options=("a", "b", "c")) for n in range(4)}, lambda values, spec: None)


def sample_features(space: SearchSpace[None], count: int, task: int = 0) -> tuple[Encoding, Features]:
    """The features of `count` uniform candidates of a space."""
    encoding = Encoding(space)
    points = zero_inactive(encoding.domain, sample_points(encoding.domain, jax.random.key(task), count))
    return encoding, compute_features(encoding.domain, points, task)


@pytest.mark.parametrize("name", ["plain", "numbers", "conditional", "nested"])
def test_kernels_are_positive_and_one_between_equals(name: str) -> None:
    encoding, candidates = sample_features(SPACES[name], 40)
    for setting in create_process(encoding.domain, 1, several_tasks=True).settings:
        matrix = np.asarray(compute_kernel(candidates, candidates, setting), np.float64)
        assert np.allclose(matrix, matrix.T, atol=1e-5)
        assert np.allclose(np.diag(matrix), 1, atol=1e-4)
        assert np.linalg.eigvalsh(matrix).min() > -1e-3


def test_predictions_are_those_of_the_textbook() -> None:
    encoding, seen = sample_features(CELL, 12)
    _, new = sample_features(CELL, 7, task=0)
    targets = np.sin(np.arange(12)).astype(np.float32)
    process = add_observations(create_process(encoding.domain, 16), seen)
    posterior = fit_posterior(process, jnp.pad(jnp.asarray(targets), (0, 4)))
    mean, std = predict(process, posterior, new)
    setting = process.settings[posterior.setting]
    seen_covariance = np.asarray(compute_kernel(seen, seen, setting), np.float64) + float(setting[2]) * np.eye(12)
    new_covariance = np.asarray(compute_kernel(seen, new, setting), np.float64)
    scale = targets @ np.linalg.solve(seen_covariance, targets) / 12
    np.testing.assert_allclose(mean, new_covariance.T @ np.linalg.solve(seen_covariance, targets), atol=1e-4)
    variance = 1 - np.einsum("rm,rm->m", new_covariance, np.linalg.solve(seen_covariance, new_covariance))
    np.testing.assert_allclose(std, np.sqrt(np.maximum(variance, 1e-6) * scale), atol=1e-3)


def log_likelihoods(seen: Features, settings: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The logarithms of the marginal likelihoods [G], up to what all have in common."""
    count, values = len(targets), list[float]()
    for setting in settings:
        matrix = np.asarray(compute_kernel(seen, seen, jnp.asarray(setting)), np.float64)
        matrix += float(setting[2]) * np.eye(count)
        scale = targets @ np.linalg.solve(matrix, targets) / count
        values.append(-count / 2 * np.log(scale) - np.linalg.slogdet(matrix)[1] / 2)
    return np.array(values)


def test_the_likeliest_setting_is_taken() -> None:
    encoding, seen = sample_features(CELL, 12)
    targets = np.cos(np.arange(12) * 1.7)
    process = add_observations(create_process(encoding.domain, 12), seen)
    setting = int(fit_posterior(process, jnp.asarray(targets, jnp.float32)).setting)
    likelihoods = log_likelihoods(seen, np.asarray(process.settings), targets)
    assert likelihoods[setting] == pytest.approx(likelihoods.max(), abs=1e-2)


def test_settings_are_sampled_as_often_as_they_are_likely() -> None:
    encoding, seen = sample_features(CELL, 12)
    targets = np.cos(np.arange(12) * 1.7)
    process = add_observations(create_process(encoding.domain, 12), seen)
    keys = jax.random.split(jax.random.key(0), 4000)

    def sample_setting(key: jax.Array) -> jax.Array:
        return gaussian_process.fit_posterior(process, jnp.asarray(targets, jnp.float32), 1, key).setting

    samples = jax.jit(jax.vmap(sample_setting))(keys)
    settings = np.asarray(process.settings)
    likelihoods = np.where(settings[:, 1] == 1, log_likelihoods(seen, settings, targets), -np.inf)
    expected = np.exp(likelihoods - likelihoods.max()) / np.exp(likelihoods - likelihoods.max()).sum()
    assert (expected > 0.02).sum() > 1
    np.testing.assert_allclose(np.bincount(samples, minlength=len(settings)) / 4000, expected, atol=0.03)


def test_targets_are_normal_quantiles_of_the_ranks_of_known_scores() -> None:
    targets = np.asarray(compute_normal_scores(np.array([5.0, 1, 9, 0, 0]), np.array([True, True, True, False, False])))
    assert targets[2] > targets[0] > targets[1]
    assert targets[3] == targets[4] == 0
    assert targets[:3].mean() == pytest.approx(0, abs=1e-5)
    assert targets[:3].std() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(compute_normal_scores(np.array([5.0, 1, 9e9]), np.ones(3, bool)), targets[:3], atol=1e-6)


def test_unused_capacity_changes_nothing() -> None:
    encoding, seen = sample_features(CELL, 10)
    _, new = sample_features(CELL, 5)
    targets = jnp.asarray(np.sin(np.arange(10)), jnp.float32)
    tight = add_observations(create_process(encoding.domain, 10), seen)
    loose = widen_process(tight, 32)
    predictions = predict(tight, fit_posterior(tight, targets), new)
    same_predictions = predict(loose, fit_posterior(loose, jnp.pad(targets, (0, 22))), new)
    np.testing.assert_allclose(predictions, same_predictions, atol=1e-5)


def test_observations_may_come_one_by_one_or_all_at_once() -> None:
    encoding, seen = sample_features(CELL, 6)
    single = create_process(encoding.domain, 8)
    for row in range(6):
        single = add_observations(single, jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], seen))
    together = add_observations(create_process(encoding.domain, 8), seen)
    np.testing.assert_allclose(single.inverse, together.inverse, atol=1e-5)
    assert int(single.size) == int(together.size) == 6


def test_two_candidates_that_differ_in_an_exchange_are_close_by_their_counts_only() -> None:
    encoding = Encoding(CELL)
    codes = np.array([[0, 1, 2, 0], [1, 0, 2, 0], [1, 1, 2, 0]], np.int32)  # an exchange, and another count
    features = compute_features(encoding.domain, Points(jnp.asarray(codes), jnp.zeros((3, 4))))
    by_decision, by_count = (
        compute_kernel(features, features, jnp.array([1 / 3, kernel, 0.1, 1.0])) for kernel in (0, 1)
    )
    assert float(by_decision[0, 1]) < float(by_decision[0, 2])
    assert float(by_count[0, 1]) > float(by_count[0, 2])


@pytest.mark.parametrize("kernel", [0, 1])
def test_kernels_are_those_of_the_docstring(kernel: int) -> None:
    _, features = sample_features(SPACES["nested"], 8)
    matrix = np.asarray(compute_kernel(features, features, jnp.array([1 / 3, kernel, 0.1, 1.0])), np.float64)
    options, counts, numbers = (np.asarray(part, np.float64) for part in features[:3])
    decisions = numbers.shape[1]
    differing = decisions - options @ options.T
    c, x = (((part[:, None] - part[None]) ** 2).sum(-1) for part in (counts, numbers))
    exponent = {
        0: (differing + x) / (decisions / 3),
        1: (differing + x) / decisions + (c / 2 + x) / (decisions / 3),
    }[kernel]
    np.testing.assert_allclose(matrix, np.exp(-exponent), atol=1e-5)


def test_numbers_are_near_where_their_quantiles_are() -> None:
    encoding = Encoding(SPACES["numbers"])
    quantiles = np.full((3, 4), 0.5, np.float32)
    quantiles[:, 0] = [0.1, 0.2, 0.9]
    features = compute_features(encoding.domain, locate_points(encoding.domain, jnp.asarray(quantiles)))
    matrix = compute_kernel(features, features, create_process(encoding.domain, 1).settings[0])
    assert 1 > float(matrix[0, 1]) > float(matrix[0, 2])


def test_two_tasks_are_as_similar_as_their_correlation_says() -> None:
    encoding, features = sample_features(CELL, 4)
    other = features._replace(task=jnp.ones(4, jnp.int32))
    setting = jnp.array([1 / 3, 1.0, 0.1, 0.7])
    np.testing.assert_allclose(
        compute_kernel(features, other, setting), 0.7 * compute_kernel(features, features, setting), atol=1e-6
    )
    several_tasks, one_task = (create_process(encoding.domain, 1, several_tasks=flag) for flag in (True, False))
    assert len(several_tasks.settings) > len(one_task.settings)


def test_a_child_counts_where_its_parent_is_unknown() -> None:
    choices = {"kind": Categorical(options=("a", "b")), "x": Real(low=0.0, high=1.0, when={"kind": ["a"]})}
    encoding = Encoding(SearchSpace(choices, lambda values, spec: None))
    quantiles = jnp.array([[0.0, 0.2], [0.0, 0.8]])
    codes = locate_points(encoding.domain, quantiles).codes.at[:, 0].set(-1)
    features = compute_features(encoding.domain, Points(codes, quantiles))
    assert float(compute_kernel(features, features, create_process(encoding.domain, 1).settings[0])[0, 1]) < 0.9


def test_an_unknown_decision_is_equally_far_from_all_options() -> None:
    encoding = Encoding(CELL)
    codes = jnp.array([[-1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]], jnp.int32)
    features = compute_features(encoding.domain, Points(codes, jnp.zeros((3, 4))))
    matrix = compute_kernel(features, features, jnp.array([1 / 3, 0.0, 0.1, 1.0]))
    assert float(matrix[0, 1]) == pytest.approx(float(matrix[0, 2]))
    assert float(matrix[0, 1]) < 1
