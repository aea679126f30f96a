"""Lengths that may be padded: one program for candidates of different widths or depths."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.nn.number import ProgramInput


class Length(nnx.Pytree):
    """A length of an array or of a list of layers, of which the first `active` are in use.

    `size` is fixed in the program. `active` is the same integer if the length is plain; if it is padded, `active` is
    an input of the program (`[]`, int32). A padded array holds the candidate's own values first and zeros after them.
    Linear maps, convolutions, batch normalisation, our dropout and activations with f(0) = 0 keep those zeros and
    their gradients at zero; a layer that divides by the length must divide by `active`.
    """

    def __init__(self, size: int, active: Any = None) -> None:
        self.size = size
        self._active = None if active is None else ProgramInput(jnp.asarray(active, jnp.int32))

    @classmethod
    def of(cls, length: int | Length) -> Length:
        """The length itself, or the plain length of an integer."""
        return length if isinstance(length, Length) else cls(length)

    @property
    def is_plain(self) -> bool:
        """Whether all of it is in use, whatever the candidate."""
        return self._active is None

    @property
    def active(self) -> Any:
        """How much of it is in use: an integer, or `[]` if it is padded."""
        return self.size if self._active is None else self._active[...]

    def __mul__(self, times: int | Length) -> Length:
        """The length times another one; the part in use still comes first."""
        times = Length.of(times)
        active = None if self.is_plain and times.is_plain else self.active * times.active
        return Length(self.size * times.size, active)

    __rmul__ = __mul__

    def __sub__(self, count: int) -> Length:
        """The length without `count` of its elements; all of those must be in use."""
        return Length(self.size - count, None if self.is_plain else self.active - count)

    def mask(self) -> jax.Array:
        """Which indices are in use, `[size]`."""
        return jnp.arange(self.size) < self.active

    def reaches(self, n: Any) -> Any:
        """Whether there is an n-th element (counted from 1): a bool, or `[]` if the length is padded."""
        return n <= self.active
