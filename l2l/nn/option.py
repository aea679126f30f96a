"""Options that may be chosen by data: one program for candidates that differ in an activation, a kernel or a flag."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.nn.number import ProgramInput

T = TypeVar("T")


class Option(nnx.Pytree):
    """One of a few options.

    A plain option is the only one of its `options`. Otherwise `index` is an input of the program (`[]`, int32), and
    the program holds every option.
    """

    def __init__(self, options: Iterable[Any], index: Any = None) -> None:
        self.options = tuple(options)
        self._index = None if index is None else ProgramInput(jnp.asarray(index, jnp.int32))

    @classmethod
    def of(cls, option: Any) -> Option:
        """The option itself, or the plain option of a value."""
        return option if isinstance(option, Option) else cls((option,))

    @property
    def is_plain(self) -> bool:
        """Whether the option is the same one for every candidate of the program."""
        return self._index is None

    @property
    def index(self) -> Any:
        """The index of the chosen option: 0, or `[]`."""
        return 0 if self._index is None else self._index[...]

    @property
    def value(self) -> Any:
        """The chosen option: a plain value, or `[]` where data choose among numbers."""
        return self.options[0] if self.is_plain else jnp.asarray(self.options)[self.index]

    def read(self) -> Any:
        """The chosen option, outside of a program: an index that is a tracer cannot be read."""
        return self.options[int(self.index)]

    def check(self, what: str, names: Iterable[str]) -> Option:
        """The option itself. Raises: ValueError if one of its options is not among `names`."""
        for name in self.options:
            if name not in (names := tuple(names)):
                raise ValueError(f"{what} {name!r} is unknown, expected one of {', '.join(map(str, names))}")
        return self

    def is_(self, option: Any) -> Any:
        """Whether `option` is the chosen one: a bool, or `[]` where data choose."""
        if self.is_plain:
            return self.options[0] == option
        return self.index == self.options.index(option) if option in self.options else jnp.zeros((), bool)

    def can_be(self, option: Any) -> bool:
        """Whether some candidate of the program may have this option."""
        return option in self.options

    def is_always(self, option: Any) -> bool:
        """Whether every candidate of the program has this option."""
        return self.is_plain and self.options[0] == option

    def map(self, function: Callable[[Any], Any]) -> Option:
        """The same choice among `function(option)`."""
        return Option(map(function, self.options), None if self.is_plain else self.index)

    def select(self, function: Callable[[Any], T]) -> T:
        """`function(option)` of the chosen option, for cheap functions: where data choose, all are computed."""
        if self.is_plain:
            return function(self.options[0])
        return jax.lax.select_n(self.index, *(function(option) for option in self.options))  # pyright: ignore

    def apply(self, function: Callable[..., T], *operands: Any) -> T:
        """`function(option, *operands)` of the chosen option; no other is computed (unless lanes differ)."""
        if self.is_plain:
            return function(self.options[0], *operands)
        return jax.lax.switch(self.index, [functools.partial(function, option) for option in self.options], *operands)

    def branch(self, option: Any, then: Callable[[], T], otherwise: Callable[[], T]) -> T:
        """`then()` if `option` is the chosen one, else `otherwise()`; only one is computed (unless lanes differ)."""
        if self.is_plain:
            return then() if self.options[0] == option else otherwise()
        return jax.lax.cond(self.is_(option), then, otherwise)
