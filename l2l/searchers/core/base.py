"""A searcher written on arrays, so that it works on every space and whole searches of it compile to one program."""

from __future__ import annotations

import abc
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from l2l.encoding import Encoding, Tables, rewards
from l2l.errors import InputError
from l2l.searchers.core.points import Points
from l2l.space import Candidate, SearchSpace
from l2l.types import START, Array, Key, Trial

# A state that holds its encoding stays a pytree whose leaves are all numbers.
jax.tree_util.register_static(Encoding)

LARGEST = float(np.finfo(np.float32).max) / 8
"""A reward beyond it counts as this much, so that distances between rewards stay finite."""


class Proposal(NamedTuple):
    """N candidates as arrays, and what the searcher remarks of each."""

    codes: Array
    """[N, D]"""
    uniforms: Array
    """[N, D] in [0, 1): the place inside a bin."""
    remarks: Mapping[str, Array]
    """Each [N]; they become the candidates' notes, but for whole numbers below 0, which say that there is none."""


class CodedState(NamedTuple):
    """A pytree: the encoding is static, all else are numbers."""

    encoding: Encoding
    inner: Any
    """What the searcher itself keeps, on arrays."""
    told: int = 0
    """Trials so far."""
    rewards: tuple[tuple[float, ...] | None, ...] = ()
    """Of every trial, where there are several objectives; None if it failed."""


@dataclass(frozen=True)
class Coded(abc.ABC):
    """What a searcher owes in arrays, all of it pure and traceable; hashable, since programs are kept by it.

    Raises: InputError if `bins` is below 1.
    """

    bins: int = field(default=16, kw_only=True)
    """Codes of a Real and of a long Integer."""

    def __post_init__(self) -> None:
        if type(self.bins) is not int or self.bins < 1:
            name = type(self).__name__
            raise InputError(f"{name}'s bins must be a whole number of at least 1, got {self.bins!r}.")

    @abc.abstractmethod
    def start(self, tables: Tables, key: Key) -> Any:
        """The state before any trial."""

    @abc.abstractmethod
    def propose(self, inner: Any, tables: Tables, key: Key, count: int) -> Proposal:
        """`count` candidates."""

    @abc.abstractmethod
    def learn(self, inner: Any, tables: Tables, points: Points, scores: Array) -> Any:
        """The state after N trials with scores [N], nan where one has failed."""

    def figures(self, inner: Any) -> Mapping[str, Array]:
        """What is worth a curve, each [], nan where there is nothing to tell yet."""
        return {}

    def source(self, encoding: Encoding) -> Any:
        """What earlier searches tell of a space; None where there is none."""
        return None

    def informed(self, inner: Any, tables: Tables, source: Any) -> Any:
        """The state before any trial, with what earlier searches tell."""
        return inner

    def roomy(self, inner: Any, count: int) -> Any:
        """The same state with room for `count` trials in all."""
        return inner

    def init(self, space: SearchSpace[Any], key: Key) -> CodedState:
        """The state before any trial, with what earlier searches tell. Raises: InputError if one cannot be read."""
        encoding = Encoding(space, self.bins)
        inner, source = _start(self, encoding.tables, key), self.source(encoding)
        return CodedState(encoding, inner if source is None else _inform(self, inner, encoding.tables, source))

    def ask(self, state: CodedState, key: Key, count: int) -> list[Candidate]:
        """`count` candidates; their notes hold what the searcher remarks."""
        found = jax.device_get(_propose(self, state.inner, state.encoding.tables, key, count))
        return state.encoding.decode(found.codes, found.uniforms, [_note(found.remarks, row) for row in range(count)])

    def tell(self, state: CodedState, trials: Sequence[Trial]) -> CodedState:
        """The state after a batch. Raises: InputError on several objectives."""
        encoding, candidates = state.encoding, [trial.candidate for trial in trials]
        scores = np.clip(rewards(trials), -LARGEST, LARGEST).astype(np.float32)
        codes, _ = encoding.encode(candidates)
        points = Points(codes, encoding.places(candidates))  # pyright: ignore[reportArgumentType]
        told = state.told + len(trials)
        inner = self.roomy(state.inner, told)
        return state._replace(inner=_learn(self, inner, encoding.tables, points, scores), told=told)

    def summary(self, state: CodedState) -> Mapping[str, float]:
        """The searcher's figures; empty before there are any."""
        found = {name: float(value) for name, value in self.figures(state.inner).items()}
        return {name: value for name, value in found.items() if np.isfinite(value)}


def _note(remarks: Mapping[str, Array], row: int) -> dict[str, int | float]:
    found = {name: values[row].item() for name, values in remarks.items()}
    return {name: value for name, value in found.items() if isinstance(value, float) or value >= 0}


@functools.partial(jax.jit, static_argnums=0)
def _start(searcher: Coded, tables: Tables, key: Key) -> Any:
    return searcher.start(tables, jax.random.fold_in(key, START))


@functools.partial(jax.jit, static_argnums=0)
def _inform(searcher: Coded, inner: Any, tables: Tables, source: Any) -> Any:
    return searcher.informed(inner, tables, source)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _propose(searcher: Coded, inner: Any, tables: Tables, key: Key, count: int) -> Proposal:
    return searcher.propose(inner, tables, key, count)


@functools.partial(jax.jit, static_argnums=0)
def _learn(searcher: Coded, inner: Any, tables: Tables, points: Points, scores: Array) -> Any:
    return searcher.learn(inner, tables, points, scores)
