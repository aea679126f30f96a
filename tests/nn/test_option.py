"""Options, plain and chosen by data."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from l2l.nn.option import Option

PLAIN = Option.of(5)
CHOSEN = Option((3, 5), jnp.int32(1))


def test_an_option_that_data_choose_has_a_number_and_a_name() -> None:
    assert int(CHOSEN.value) == 5
    assert bool(CHOSEN.is_(5))
    assert not bool(CHOSEN.is_(3))
    assert not bool(CHOSEN.is_(7))
    assert CHOSEN.can_be(3)
    assert not CHOSEN.can_be(7)
    assert not CHOSEN.is_always(5)


def test_a_plain_option_is_its_value_and_has_no_variables() -> None:
    assert PLAIN.value == 5
    assert PLAIN.is_(5) is True
    assert PLAIN.is_(3) is False
    assert PLAIN.is_always(5)
    assert not jax.tree.leaves(nnx.state(PLAIN))
    assert Option.of(PLAIN) is PLAIN


@pytest.mark.parametrize("option", [PLAIN, CHOSEN])
def test_every_method_takes_the_chosen_option(option: Option) -> None:
    assert int(option.select(lambda k: jnp.int32(k * 10))) == 50
    assert int(option.apply(lambda k, x: x + k, jnp.int32(1))) == 6
    assert int(option.branch(5, lambda: jnp.int32(1), lambda: jnp.int32(2))) == 1
    assert int(option.branch(3, lambda: jnp.int32(1), lambda: jnp.int32(2))) == 2
    assert int(option.map(lambda k: k + 1).value) == 6


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(ValueError, match="kernel 5 is unknown, expected one of 3, 7"):
        CHOSEN.check("kernel", (3, 7))
    assert CHOSEN.check("kernel", iter((5, 3))) is CHOSEN
