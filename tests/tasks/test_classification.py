"""The loss and the score against optax and against sums done by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from l2l.errors import InputError
from l2l.tasks.classification import Classification, check_labels, pick_split
from l2l.tasks.digits import Digits

TASK = Classification()
LOGITS = jnp.asarray(np.random.RandomState(0).normal(size=(7, 5)), jnp.float32)
TARGETS = jnp.asarray([0, 1, 2, 3, 4, 0, 1], jnp.int32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_loss_is_the_cross_entropy_with_smoothed_labels(smoothing: float) -> None:
    smoothed = optax.smooth_labels(jax.nn.one_hot(TARGETS, 5), smoothing)
    expected = optax.softmax_cross_entropy(LOGITS, smoothed)
    np.testing.assert_allclose(TASK.loss(LOGITS, TARGETS, smoothing), expected, rtol=1e-5)


def test_smoothing_may_be_traced_and_differ_by_lane() -> None:
    lanes = jax.jit(jax.vmap(TASK.loss, (None, None, 0)))(LOGITS, TARGETS, jnp.asarray([0.0, 0.2]))
    assert lanes.shape == (2, 7)
    np.testing.assert_allclose(lanes[1], TASK.loss(LOGITS, TARGETS, 0.2), rtol=1e-6)


def test_loss_of_equal_logits_is_the_logarithm_of_the_classes() -> None:
    np.testing.assert_allclose(TASK.loss(jnp.zeros((3, 8)), TARGETS[:3], 0.3), np.log(8), rtol=1e-6)


def test_half_precision_logits_are_scored_in_float32() -> None:
    loss = TASK.loss(LOGITS.astype(jnp.bfloat16), TARGETS, 0.1)
    assert loss.dtype == jnp.float32
    assert {name: value.dtype for name, value in TASK.score(LOGITS.astype(jnp.bfloat16), TARGETS).items()} == {
        "accuracy": jnp.float32,
        "loss": jnp.float32,
    }


def test_score_counts_hits_and_leaves_labels_unsmoothed() -> None:
    logits = jnp.asarray([[2.0, 0.0], [2.0, 0.0]])
    score = TASK.score(logits, jnp.asarray([0, 1]))
    assert score["accuracy"].tolist() == [1.0, 0.0]
    np.testing.assert_allclose(score["loss"], [np.log1p(np.exp(-2)), 2 + np.log1p(np.exp(-2))], rtol=1e-6)


def test_labels_are_whole_numbers_below_the_classes() -> None:
    check_labels(np.asarray([0, 9], np.uint8), 10, "labels")
    for labels, got in [([0, 10], "got 10"), ([-1, 3], "got -1"), ([0.5], "float64"), ([[1]], r"shape \[1, 1\]")]:
        with pytest.raises(InputError, match=got):
            check_labels(np.asarray(labels), 10, "labels")


def test_an_unknown_split_and_a_bad_count_say_what_is_expected() -> None:
    with pytest.raises(InputError, match="did you mean 'validation'"):
        pick_split({"train": 1, "validation": 2, "test": 3}, "valid", "digits")
    for value in (0, True, 2.0, "3"):
        with pytest.raises(InputError, match=r"^digits: epochs must be an integer of at least 1"):
            Digits(epochs=value)  # pyright: ignore[reportArgumentType]
