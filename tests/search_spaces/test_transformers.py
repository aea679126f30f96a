"""Transformers through the contract of spaces, on images and on text; and what their constructor refuses."""

from __future__ import annotations

import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from l2l.engine.bucket import bucket
from l2l.engine.ladder import ladders
from l2l.errors import InputError
from l2l.space import SearchSpace
from l2l.testing import SpaceContract
from l2l.types import Learner, Spec
from search_spaces import transformer

TEXT = Spec(inputs=(12,), outputs=7, examples=96, epochs=2, tokens=7, targets=(12,))


class TestOnImages(SpaceContract):
    spec = Spec(inputs=(9, 8, 2), outputs=4, examples=130, epochs=1)

    def space(self) -> SearchSpace[Learner]:
        return transformer.space(depth=(1, 2), widths=(8, 16), heads=(2, 4), head_sizes=(4,), batch_sizes=(32, 64))


class TestOnText(SpaceContract):
    spec = TEXT

    def space(self) -> SearchSpace[Learner]:
        return transformer.space(depth=(1, 2), widths=(8, 16), heads=(1, 4), head_sizes=(2, 4), batch_sizes=(32,))


@nnx.jit
def called(model: Any, x: jax.Array) -> jax.Array:
    """Compiled, which is quicker than one operation after another."""
    return model(x)


def test_text_is_read_from_left_to_right() -> None:
    space = transformer.space(depth=(1, 3), widths=(8,), batch_sizes=(32,))
    for seed in range(6):
        model: Any = space.build(space.sample(random.Random(seed)).values, TEXT).model(nnx.Rngs(seed))
        model.eval()
        x = jax.random.randint(jax.random.key(seed), (2, 12), 0, 7)
        y, changed = called(model, x), called(model, x.at[:, 7:].set((x[:, 7:] + 1) % 7))
        np.testing.assert_array_equal(y[:, :7], changed[:, :7])
        assert not np.array_equal(y[:, 7:], changed[:, 7:])


@pytest.mark.parametrize("seed", range(2))
def test_what_a_text_is_filled_up_with_changes_nothing(seed: int) -> None:
    short = Spec(inputs=(7,), outputs=3, examples=96, epochs=1, tokens=9)
    space = transformer.space(
        depth=(2, 3), widths=(8,), windows=(3,), positions=("none", "rotary", "alibi"), capacities=(8.0,)
    )
    values = space.sample(random.Random(seed)).values
    own: Any = space.build(values, short).model(nnx.Rngs(seed))
    wide: Any = space.build(values, short._replace(inputs=(12,))).model(nnx.Rngs(seed))
    own.eval(), wide.eval()
    x = jax.random.randint(jax.random.key(seed), (5, 7), 1, 9)
    filled = jnp.pad(x, ((0, 0), (0, 5)))
    np.testing.assert_allclose(called(wide, filled), called(own, x), rtol=1e-5, atol=1e-5)
    slopes = nnx.jit(nnx.grad(lambda model: jnp.sum(model(filled) ** 2)))(wide)
    table = slopes["embedding"]["table"]["embedding"][...]
    assert not np.any(table[0])
    assert np.any(table[1:])


def test_a_table_has_a_token_for_each_column() -> None:
    spec = Spec(inputs=(14,), outputs=2, examples=100, epochs=1)
    space = transformer.space(widths=(8,), windows=(4,))
    model: Any = space.build(space.sample(random.Random(0)).values, spec).model(nnx.Rngs(0))
    model.eval()
    assert called(model, jnp.ones((3, 14))).shape == (3, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"heads": (3,)}, "heads must be 1 or even"),
        ({"head_sizes": (7,)}, "head_sizes must be even"),
        ({"attentions": ("sparse",)}, "attention 'sparse' is unknown"),
        ({"positions": ("alibi",)}, "expected another of positions"),
        ({"positions": ("sine",)}, "position 'sine' is unknown"),
        ({"experts": (4,), "ks": (5,)}, "ks must be at most the number of experts, got 5 of 4"),
        ({"capacities": (0.0,)}, "capacities must be numbers above 0, got 0.0"),
        ({"forward": ()}, "forward: expected at least one value"),
        ({"depth": (3, 2)}, "depth must be"),
        ({"batch_sizes": (20,)}, "batch_sizes must be multiples of 32"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        transformer.space(**arguments)
    assert "\n" not in str(caught.value)


def test_a_hundred_candidates_have_few_programs() -> None:
    space = transformer.space()
    found = ladders(space, Spec((64,), 65, 15_685, 1, 65, (64,)))
    names = {bucket(space, space.sample(random.Random(seed)), found).name for seed in range(100)}
    assert len(names) <= 16
