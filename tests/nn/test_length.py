"""Lengths, plain and padded."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from l2l.nn.length import Length
from l2l.nn.number import ProgramInput


def test_a_padded_length_is_a_size_and_data() -> None:
    length = Length(64, jnp.int32(32))
    assert length.size == 64
    assert int(length.active) == 32
    assert (4 * length).size == 256
    assert int((length * 4).active) == 128
    assert not length.is_plain
    assert [int(leaf) for leaf in jax.tree.leaves(nnx.state(length, ProgramInput))] == [32]


def test_a_plain_length_is_an_integer_and_has_no_variables() -> None:
    length = Length.of(5)
    assert length.size == length.active == (5 * Length(1)).size == 5
    assert length.is_plain
    assert (length * 2).is_plain
    assert not jax.tree.leaves(nnx.state(length))
    assert Length.of(length) is length


def test_a_length_reaches_its_active_elements() -> None:
    assert [Length(2).reaches(n) for n in (1, 2, 5)] == [True, True, False]
    padded = Length(4, jnp.int32(2))
    assert [bool(padded.reaches(n)) for n in (1, 2, 3, 4)] == [True, True, False, False]
    np.testing.assert_array_equal(padded.mask(), [True, True, False, False])
    np.testing.assert_array_equal(Length(2).mask(), [True, True])
