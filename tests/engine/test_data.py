"""Orders, chunks and statistics."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l.engine.data import Data, compute_statistics, load_data, make_spec, sample_order, split_chunks
from l2l.errors import InputError
from l2l.tasks.digits import Digits
from l2l.types import Spec


@settings(deadline=None)
@given(examples=st.integers(1, 700), size=st.integers(1, 300))
def test_chunks_visit_every_example_once(examples: int, size: int) -> None:
    indices, weights = split_chunks(examples, size)
    assert sorted(indices[weights == 1]) == list(range(examples))
    assert set(np.unique(weights)) <= {0.0, 1.0}
    assert indices.max() < examples


@settings(deadline=None)
@given(examples=st.integers(1, 200), share=st.floats(0, 1), epochs=st.integers(1, 3))
def test_every_epoch_is_a_permutation_less_its_incomplete_batch(examples: int, share: float, epochs: int) -> None:
    batch = max(1, int(examples * share))
    steps = sample_order(jax.random.key(0), Spec((1,), 2, examples, epochs), batch)
    assert steps.shape == (epochs, examples // batch, batch)
    for epoch in steps:
        assert len(set(epoch.reshape(-1).tolist())) == epoch.size
        assert set(epoch.reshape(-1).tolist()) <= set(range(examples))


def test_order_is_a_function_of_the_key() -> None:
    spec = Spec((1,), 2, 100, 2)
    first, again, other = (sample_order(jax.random.key(seed), spec, 10) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first[0] != first[1]).any()
    # A stored search continues for ever, so this order may never change.
    assert first[0, 0].tolist() == GOLDEN


GOLDEN = [97, 14, 7, 62, 90, 44, 69, 98, 65, 68]


def test_batch_larger_than_the_split_is_refused() -> None:
    with pytest.raises(InputError, match="batch_size 101 must be from 1 to 100"):
        sample_order(jax.random.key(0), Spec((1,), 2, 100, 1), 101)


def test_statistics_come_from_the_training_split_alone() -> None:
    task = Digits()
    data = load_data(task)
    mean, scale = compute_statistics(task, data)
    assert mean.shape == scale.shape == (1,)
    np.testing.assert_allclose(mean[0], data.x.mean(), rtol=1e-6)
    poisoned = Data(data.x, data.y, data.validation_x * 100, data.validation_y)
    np.testing.assert_array_equal(compute_statistics(task, poisoned)[0], mean)


def test_a_constant_channel_is_not_divided_by_zero() -> None:
    flat = Data(np.full((5, 2, 2, 1), 3.0), np.zeros(5), None, None)
    assert compute_statistics(Digits(), flat)[1].tolist() == [1.0]


def test_spec_of_the_task() -> None:
    task = Digits(epochs=4)
    assert make_spec(task, load_data(task), None) == Spec((8, 8, 1), 10, 1077, 4)
    assert make_spec(task, load_data(task), 2).epochs == 2
    with pytest.raises(InputError, match="epochs must be an integer of at least 1"):
        make_spec(task, load_data(task), 0)
