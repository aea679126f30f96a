"""The Gaussian process: against its textbook form, and its kernels on what they should and should not tell apart."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l.encoding import Encoding
from l2l.searchers.core.points import Points, locate_points, sample_points, zero_inactive
from l2l.searchers.gp.gaussian_process import Features, empty, featured, fitted, kernel, observed, predicted, widened
from l2l.space import Categorical, Real, SearchSpace
from l2l.testing import SPACES

CELL = SearchSpace({f"edge{n}": Categorical(options=("a", "b", "c")) for n in range(4)}, lambda values, spec: None)


def points(space: SearchSpace[None], count: int, seed: int = 0) -> tuple[Encoding, Points]:
    encoding = Encoding(space)
    return encoding, zero_inactive(encoding.domain, sample_points(encoding.domain, jax.random.key(seed), count))


def features(space: SearchSpace[None], count: int, task: int = 0) -> tuple[Encoding, Features]:
    encoding, found = points(space, count, task)
    return encoding, featured(encoding.domain, found, task)


@pytest.mark.parametrize("name", ["plain", "numbers", "conditional", "nested"])
def test_kernels_are_positive_and_one_between_equals(name: str) -> None:
    encoding, some = features(SPACES[name], 40)
    for setting in empty(encoding.domain, 1, several=True).settings:
        matrix = np.asarray(kernel(some, some, setting), np.float64)
        assert np.allclose(matrix, matrix.T, atol=1e-5)
        assert np.allclose(np.diag(matrix), 1, atol=1e-4)
        assert np.linalg.eigvalsh(matrix).min() > -1e-3


def test_predictions_are_those_of_the_textbook() -> None:
    encoding, seen = features(CELL, 12)
    _, new = features(CELL, 7, task=0)
    targets = np.sin(np.arange(12)).astype(np.float32)
    process = observed(empty(encoding.domain, 16), seen)
    posterior = fitted(process, jnp.pad(jnp.asarray(targets), (0, 4)))
    mean, spread = predicted(process, posterior, new)
    setting = process.settings[posterior.setting]
    among = np.asarray(kernel(seen, seen, setting), np.float64) + float(setting[2]) * np.eye(12)
    across = np.asarray(kernel(seen, new, setting), np.float64)
    scale = targets @ np.linalg.solve(among, targets) / 12
    np.testing.assert_allclose(mean, across.T @ np.linalg.solve(among, targets), atol=1e-4)
    variance = 1 - np.einsum("rm,rm->m", across, np.linalg.solve(among, across))
    np.testing.assert_allclose(spread, np.sqrt(np.maximum(variance, 1e-6) * scale), atol=1e-3)


def likelihoods(seen: Features, settings: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The logarithms of the marginal likelihoods [G], up to what all have in common."""
    count, found = len(targets), list[float]()
    for setting in settings:
        matrix = np.asarray(kernel(seen, seen, jnp.asarray(setting)), np.float64) + float(setting[2]) * np.eye(count)
        scale = targets @ np.linalg.solve(matrix, targets) / count
        found.append(-count / 2 * np.log(scale) - np.linalg.slogdet(matrix)[1] / 2)
    return np.array(found)


def test_the_likeliest_setting_is_taken() -> None:
    encoding, seen = features(CELL, 12)
    targets = np.cos(np.arange(12) * 1.7)
    process = observed(empty(encoding.domain, 12), seen)
    chosen = int(fitted(process, jnp.asarray(targets, jnp.float32)).setting)
    found = likelihoods(seen, np.asarray(process.settings), targets)
    assert found[chosen] == pytest.approx(found.max(), abs=1e-2)


def test_settings_are_drawn_as_often_as_they_are_likely() -> None:
    encoding, seen = features(CELL, 12)
    targets = np.cos(np.arange(12) * 1.7)
    process = observed(empty(encoding.domain, 12), seen)
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = jax.vmap(lambda key: fitted(process, jnp.asarray(targets, jnp.float32), 1, key).setting)(keys)
    settings = np.asarray(process.settings)
    found = np.where(settings[:, 1] == 1, likelihoods(seen, settings, targets), -np.inf)
    wanted = np.exp(found - found.max()) / np.exp(found - found.max()).sum()
    assert (wanted > 0.02).sum() > 1
    np.testing.assert_allclose(np.bincount(drawn, minlength=len(settings)) / 4000, wanted, atol=0.03)


def test_room_that_is_not_used_changes_nothing() -> None:
    encoding, seen = features(CELL, 10)
    _, new = features(CELL, 5)
    targets = jnp.asarray(np.sin(np.arange(10)), jnp.float32)
    tight = observed(empty(encoding.domain, 10), seen)
    loose = widened(tight, 32)
    near = predicted(tight, fitted(tight, targets), new)
    far = predicted(loose, fitted(loose, jnp.pad(targets, (0, 22))), new)
    np.testing.assert_allclose(near, far, atol=1e-5)


def test_one_at_a_time_or_all_at_once() -> None:
    encoding, seen = features(CELL, 6)
    single = empty(encoding.domain, 8)
    for row in range(6):
        single = observed(single, jax.tree.map(lambda each, row=row: each[row : row + 1], seen))
    together = observed(empty(encoding.domain, 8), seen)
    np.testing.assert_allclose(single.inverse, together.inverse, atol=1e-5)
    assert int(single.taken) == int(together.taken) == 6


def test_an_exchange_of_options_is_near_for_the_counts_alone() -> None:
    encoding = Encoding(CELL)
    codes = np.array([[0, 1, 2, 0], [1, 0, 2, 0], [1, 1, 2, 0]], np.int32)  # an exchange, and another count
    some = featured(encoding.domain, Points(jnp.asarray(codes), jnp.zeros((3, 4))))
    by_place, by_count = (kernel(some, some, jnp.array([1 / 3, view, 0.1, 1.0])) for view in (0, 1))
    assert float(by_place[0, 1]) < float(by_place[0, 2])
    assert float(by_count[0, 1]) > float(by_count[0, 2])


def test_numbers_are_near_where_their_quantiles_are() -> None:
    encoding = Encoding(SPACES["numbers"])
    rate = np.array([0.1, 0.2, 0.9])
    quantiles = np.full((3, 5), 0.5, np.float32)
    quantiles[:, 0] = rate
    some = featured(encoding.domain, locate_points(encoding.domain, jnp.asarray(quantiles)))
    matrix = kernel(some, some, empty(encoding.domain, 1).settings[0])
    assert 1 > float(matrix[0, 1]) > float(matrix[0, 2])


def test_another_task_tells_as_much_as_the_relation_says() -> None:
    encoding, ours = features(CELL, 4)
    theirs = ours._replace(task=jnp.ones(4, jnp.int32))
    setting = jnp.array([1 / 3, 1.0, 0.1, 0.7])
    np.testing.assert_allclose(kernel(ours, theirs, setting), 0.7 * kernel(ours, ours, setting), atol=1e-6)
    assert len(empty(encoding.domain, 1, several=True).settings) > len(empty(encoding.domain, 1).settings)


def test_a_child_counts_where_its_parent_is_not_known() -> None:
    choices = {"kind": Categorical(options=("a", "b")), "x": Real(low=0.0, high=1.0, when={"kind": ["a"]})}
    encoding = Encoding(SearchSpace(choices, lambda values, spec: None))
    places = jnp.array([[0.0, 0.2], [0.0, 0.8]])
    codes = locate_points(encoding.domain, places).codes.at[:, 0].set(-1)
    some = featured(encoding.domain, Points(codes, places))
    assert float(kernel(some, some, empty(encoding.domain, 1).settings[0])[0, 1]) < 0.9


def test_what_is_not_known_is_like_nothing() -> None:
    encoding = Encoding(CELL)
    codes = jnp.array([[-1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]], jnp.int32)
    some = featured(encoding.domain, Points(codes, jnp.zeros((3, 4))))
    matrix = kernel(some, some, jnp.array([1 / 3, 0.0, 0.1, 1.0]))
    assert float(matrix[0, 1]) == pytest.approx(float(matrix[0, 2]))
    assert float(matrix[0, 1]) < 1
