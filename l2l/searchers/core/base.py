"""The base of searchers that are written on arrays: one class serves every space, and whole searches compile."""

from __future__ import annotations

import abc
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from l2l.encoding import Domain, Encoding, read_rewards
from l2l.errors import check_integer
from l2l.searchers.core.points import Points
from l2l.space import Candidate, SearchSpace
from l2l.types import Array, Key, Trial

# A state that holds its encoding stays a pytree whose leaves are all numbers.
jax.tree_util.register_static(Encoding)

MAX_REWARD = float(np.finfo(np.float32).max) / 8
"""Rewards are clipped to this size, so that distances between them stay finite."""
START = 2**32 - 2
"""Folded into the proposals' key for a searcher's first state; no proposal folds in this number."""


class Proposal(NamedTuple):
    """N candidates as arrays, each with the searcher's metadata."""

    codes: Array
    """[N, D]"""
    uniforms: Array
    """[N, D] in [0, 1): how far through its bin each value is."""
    metadata: Mapping[str, Array]
    """Arrays [N] by name, one value for each candidate; a negative integer stands for no value and is left out."""


class ArraySearcherState(NamedTuple):
    """A pytree: the encoding is static, every leaf is a number or an array."""

    encoding: Encoding
    arrays: Any
    """The searcher's own state, as `start` and `learn` return it."""
    trial_count: int = 0
    """Trials so far."""
    rewards: tuple[tuple[float, ...] | None, ...] = ()
    """Of every trial, where there are several objectives; None if it failed."""


@dataclass(frozen=True)
class ArraySearcher(abc.ABC):
    """Turns three functions on arrays (`start`, `propose`, `learn`) into a `Searcher` of every space.

    A subclass is a frozen dataclass of its settings: hashable, since compiled programs are cached by it. Its three
    functions are pure and traceable, and they see the space only as a `Domain`. Randomness comes from the keys. The
    rest has defaults: `summarise` for figures that people watch, `reserve` for states that grow with the trials, and
    `read_earlier` with `learn_earlier` for what earlier searches know.

    Raises: InputError if `bins` is below 1.
    """

    bins: int = field(default=16, kw_only=True)
    """Codes of a Real and of a long Integer."""

    def __post_init__(self) -> None:
        check_integer(f"{type(self).__name__}'s bins", self.bins, 1)

    @abc.abstractmethod
    def start(self, domain: Domain, key: Key) -> Any:
        """The searcher's own state before any trial."""

    @abc.abstractmethod
    def propose(self, state: Any, domain: Domain, key: Key, count: int) -> Proposal:
        """`count` candidates; the state does not change."""

    @abc.abstractmethod
    def learn(self, state: Any, domain: Domain, points: Points, scores: Array) -> Any:
        """The state after N trials with scores [N], nan where one has failed."""

    def summarise(self, state: Any) -> Mapping[str, Array]:
        """Scalars [] by name that are worth a curve, nan where there is nothing to show yet."""
        return {}

    def read_earlier(self, encoding: Encoding) -> Any:
        """The trials of earlier searches, as arrays of this space; None where there are none."""
        return None

    def learn_earlier(self, state: Any, domain: Domain, earlier: Any) -> Any:
        """The state before any trial, after learning from earlier searches."""
        return state

    def reserve(self, state: Any, count: int) -> Any:
        """The same state with capacity for `count` trials in all."""
        return state

    def init(self, space: SearchSpace[Any], key: Key) -> ArraySearcherState:
        """The state before any trial. Raises: InputError if an earlier search cannot be read."""
        encoding = Encoding(space, self.bins)
        arrays, earlier = _start(self, encoding.domain, key), self.read_earlier(encoding)
        if earlier is not None:
            arrays = _learn_earlier(self, arrays, encoding.domain, earlier)
        return ArraySearcherState(encoding, arrays)

    def ask(self, state: ArraySearcherState, key: Key, count: int) -> list[Candidate]:
        """`count` candidates, with the searcher's metadata."""
        proposal = jax.device_get(_propose(self, state.arrays, state.encoding.domain, key, count))
        metadata = [_select_metadata(proposal.metadata, index) for index in range(count)]
        return state.encoding.decode(proposal.codes, proposal.uniforms, metadata)

    def tell(self, state: ArraySearcherState, trials: Sequence[Trial]) -> ArraySearcherState:
        """The state after a batch. Raises: InputError on several objectives."""
        encoding, candidates = state.encoding, [trial.candidate for trial in trials]
        scores = np.clip(read_rewards(trials), -MAX_REWARD, MAX_REWARD).astype(np.float32)
        codes, _ = encoding.encode(candidates)
        points = Points(codes, encoding.quantiles(candidates))  # pyright: ignore[reportArgumentType]
        trial_count = state.trial_count + len(trials)
        arrays = _learn(self, self.reserve(state.arrays, trial_count), encoding.domain, points, scores)
        return state._replace(arrays=arrays, trial_count=trial_count)

    def summary(self, state: ArraySearcherState) -> Mapping[str, float]:
        """The searcher's figures; empty before there are any."""
        figures = {name: float(value) for name, value in self.summarise(state.arrays).items()}
        return {name: value for name, value in figures.items() if np.isfinite(value)}


def _select_metadata(metadata: Mapping[str, Array], index: int) -> dict[str, int | float]:
    """The metadata of one candidate, without the integers that stand for no value."""
    values = {name: array[index].item() for name, array in metadata.items()}
    return {name: value for name, value in values.items() if isinstance(value, float) or value >= 0}


@functools.partial(jax.jit, static_argnums=0)
def _start(searcher: ArraySearcher, domain: Domain, key: Key) -> Any:
    return searcher.start(domain, jax.random.fold_in(key, START))


@functools.partial(jax.jit, static_argnums=0)
def _learn_earlier(searcher: ArraySearcher, state: Any, domain: Domain, earlier: Any) -> Any:
    return searcher.learn_earlier(state, domain, earlier)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _propose(searcher: ArraySearcher, state: Any, domain: Domain, key: Key, count: int) -> Proposal:
    return searcher.propose(state, domain, key, count)


@functools.partial(jax.jit, static_argnums=0)
def _learn(searcher: ArraySearcher, state: Any, domain: Domain, points: Points, scores: Array) -> Any:
    return searcher.learn(state, domain, points, scores)
