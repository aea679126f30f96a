"""Numbers that a module holds: plain ones, or inputs of the program that the module is part of."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx


class ProgramInput(nnx.Variable[Any]):
    """An array inside a module by which the candidates of one program differ: no weight, absent from a found model."""


class Number(nnx.Pytree):
    """A number that layers compute with: plain, None, or an input of the program (`[]`)."""

    def __init__(self, value: Any) -> None:
        self.is_plain = value is None or isinstance(value, int | float)
        self._value: Any = value if self.is_plain else ProgramInput(jnp.asarray(value))

    @property
    def value(self) -> Any:
        """The plain number, or the array `[]`."""
        return self._value if self.is_plain else self._value[...]
