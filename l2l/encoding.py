"""Candidates as arrays: one code per decision, and the table that says which decisions are active."""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from l2l.errors import InputError, check_integer
from l2l.space import Candidate, Categorical, Choice, Integer, Real, SearchSpace, Value, list_allowed_values, options
from l2l.types import Trial

Codes = npt.NDArray[np.int32]
Masks = npt.NDArray[np.bool_]

EXACT = 64
"""An Integer with more values than this is binned, unless other choices are conditional on it."""
LIMIT = 4096
"""The most values an Integer may have that other choices are conditional on: each is a code of its own."""


class Domain(NamedTuple):
    """What a compiled sampler must know of a space, as constants of shapes D and K alone.

    Conditions are closed over ancestors, so one look at all codes tells whether a decision is active:
    `all(allowed[d, p, code[p]] for p in range(D))`.
    """

    valid: Masks
    """[D, K]: whether decision d has a code k (K is the largest number of options of any decision)."""
    allowed: Masks
    """[D, D, K]: whether decision d can be active while decision p has code k."""
    edges: npt.NDArray[np.float32]
    """[D, K + 1]: code k takes the quantiles from edge k up to edge k + 1; 1 beyond the last code."""
    ordinal: Masks
    """[D]: whether the codes are in an order that means something."""
    exact: Masks
    """[D]: whether every code is one value, not a bin of several."""
    min_moves: npt.NDArray[np.float32]
    """[D, K]: how far the quantile of an Integer in code k must move to be another value's for sure; 0 elsewhere."""
    shared_options: Masks
    """[D, K, F]: whether code k of decision d is option f, where several categories offer the same; F may be 0."""


@dataclass(frozen=True)
class Decision:
    """A choice as a few codes: one per value, or one per ordinal bin."""

    name: str
    choice: Choice
    bins: tuple[Integer | Real, ...] = ()
    """Consecutive parts of the choice's range; empty if every value has a code of its own."""
    values: tuple[Value, ...] = ()

    def __len__(self) -> int:
        return len(self.bins) or len(self.values)

    def code(self, value: Value) -> int:
        """The code of a value that the choice can have."""
        if self.bins:
            assert isinstance(value, int | float)
            return max(bisect.bisect_right(self.bins, value, key=lambda part: part.low) - 1, 0)
        return next(i for i, each in enumerate(self.values) if type(each) is type(value) and each == value)

    def value(self, code: int, uniform: float) -> Value:
        """The value of a code; `uniform` in [0, 1) places it inside a bin."""
        if not self.bins:
            return self.values[code]
        value = self.bins[code].value_at(uniform)
        if isinstance(value, float) and code + 1 < len(self.bins):
            # Rounding may reach the next bin's edge; the code of the value must stay this one.
            return min(value, math.nextafter(self.bins[code + 1].low, -math.inf))
        return value


@dataclass(frozen=True, eq=False)
class Encoding:
    """The decisions of a space, in its order, and the way from candidates to codes and back.

    A Categorical or an Integer has one code per value. A Real has ordinal bins, evenly over its
    quantiles, and so has an Integer of more than `EXACT` values that nothing is conditional on. Sixteen
    bins split four decades of a learning rate into factors of 1.8: finer than what a noisy reward tells
    apart in a few hundred trials, yet few enough for each to be tried.

    Raises: InputError if `bins` is below 1, or a condition hangs on an Integer of more than `LIMIT` values.
    """

    space: SearchSpace[Any]
    """Without its builder, so that a searcher's state can be pickled whatever the builder is."""
    bins: int = 16
    decisions: tuple[Decision, ...] = field(init=False)
    domain: Domain = field(init=False)
    digest: str = field(init=False)
    """What two encodings of equal choices share."""

    def __post_init__(self) -> None:
        check_integer("an Encoding's bins", self.bins, 1)
        object.__setattr__(self, "space", strip_builder(self.space))
        asked = {parent for choice in self.space.choices.values() for parent in choice.when}
        decisions = tuple(
            _decision(name, choice, self.bins, name in asked) for name, choice in self.space.choices.items()
        )
        object.__setattr__(self, "decisions", decisions)
        object.__setattr__(self, "domain", _make_domain(decisions))
        object.__setattr__(self, "digest", json.dumps([self.space.describe(), self.bins]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Encoding) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def masks(self, codes: Codes) -> Masks:
        """Which decisions are active: [N, D] from codes [N, D]."""
        hits = self.domain.allowed[:, np.arange(len(self.decisions)), codes]  # [D, N, D]
        return np.all(hits, axis=-1).T

    def quantiles(self, candidates: Sequence[Candidate]) -> npt.NDArray[np.float32]:
        """Quantiles [N, D] in [0, 1) of candidates of this space, each inside its code; 0 where inactive."""
        found = np.zeros((len(candidates), len(self.decisions)), np.float32)
        for row, candidate in enumerate(candidates):
            for column, decision in enumerate(self.decisions):
                if decision.name in candidate.values:
                    value = candidate.values[decision.name]
                    found[row, column] = self.quantile(column, decision.code(value), value)
        return found

    def quantile(self, column: int, code: int, value: Value) -> np.float32:
        """The quantile of a value of decision number `column`, inside its code; in the middle if that is all it is."""
        decision, (low, high) = self.decisions[column], self.domain.edges[column, code : code + 2]
        place = (low + high) / 2 if self.domain.exact[column] else np.float32(decision.choice.quantile(value))
        return min(max(place, low), np.nextafter(high, np.float32(0)))

    def encode(self, candidates: Sequence[Candidate]) -> tuple[Codes, Masks]:
        """Codes [N, D] (0 where inactive) and masks [N, D] of candidates of this space."""
        codes = np.zeros((len(candidates), len(self.decisions)), np.int32)
        masks = np.zeros(codes.shape, np.bool_)
        for row, candidate in enumerate(candidates):
            for column, decision in enumerate(self.decisions):
                if decision.name in candidate.values:
                    codes[row, column] = decision.code(candidate.values[decision.name])
                    masks[row, column] = True
        return codes, masks

    def decode(
        self, codes: Codes, uniforms: npt.NDArray[Any], notes: Sequence[Mapping[str, Any]] | None = None
    ) -> list[Candidate]:
        """The candidates of codes [N, D], placed inside their bins by uniforms [N, D] in [0, 1)."""
        columns = {decision.name: column for column, decision in enumerate(self.decisions)}

        def candidate(row: int) -> Candidate:
            def pick(name: str, choice: Choice) -> Value:
                column = columns[name]
                return self.decisions[column].value(int(codes[row, column]), float(uniforms[row, column]))

            return self.space.complete(pick, notes[row] if notes else None)

        return [candidate(row) for row in range(len(codes))]

    def one_hot(self, codes: Codes, masks: Masks) -> npt.NDArray[np.float32]:
        """Codes [N, D] as [N, D, K] zeros and ones; an inactive decision is all zeros."""
        hot = codes[..., None] == np.arange(self.domain.valid.shape[1])
        return (hot & masks[..., None]).astype(np.float32)


def read_rewards(trials: Sequence[Trial]) -> npt.NDArray[np.float64]:
    """The rewards [N] of trials with one objective, of a pruned one at its last rung; nan where one has failed.

    Raises: InputError if a reward has more than one number.
    """
    for trial in trials:
        if trial.reward is not None and len(trial.reward) != 1:
            raise InputError(
                f"this searcher maximises one number, but trial {trial.number} has a reward of "
                f"{len(trial.reward)}; use one for several (preferences, gp_critic, nsga2, tpe) or a scalar reward."
            )
    return np.array([math.nan if trial.reward is None else trial.reward[0] for trial in trials])


def strip_builder(space: SearchSpace[Any]) -> SearchSpace[Any]:
    """The space without its builder: a plain value, which a searcher's state can hold and pickle."""
    return SearchSpace(space.choices, _no_builder, space.name)


def _no_builder(values: Mapping[str, Any], spec: Any) -> Any:
    raise TypeError("a searcher's own copy of a space has no builder.")


def _decision(name: str, choice: Choice, bins: int, is_parent: bool) -> Decision:
    if isinstance(choice, Categorical):
        return Decision(name, choice, values=choice.options)
    if isinstance(choice, Integer) and (is_parent or choice.count() <= EXACT):
        if choice.count() > LIMIT:
            raise InputError(
                f"choice {name!r} has {choice.count()} values and others are conditional on it; give it at most "
                f"{LIMIT}, or make the condition a Categorical of its own."
            )
        return Decision(name, choice, values=options(choice))
    # Narrow ranges have fewer distinct edges than bins.
    edges = [choice.low, *sorted({edge for i in range(1, bins) if (edge := choice.value_at(i / bins)) > choice.low})]
    if isinstance(choice, Real):
        ends = [*edges[1:], choice.high]
        parts: list[Integer | Real] = [
            replace(choice, low=low, high=high) for low, high in zip(edges, ends, strict=True)
        ]
    else:
        ends = [*(int(edge) - choice.step for edge in edges[1:]), choice.high]
        parts = [replace(choice, low=int(low), high=high) for low, high in zip(edges, ends, strict=True)]
    return Decision(name, choice, bins=tuple(parts))


def _make_domain(decisions: Sequence[Decision]) -> Domain:
    size, width = len(decisions), max(map(len, decisions))
    valid = np.array([[code < len(decision) for code in range(width)] for decision in decisions])
    table = np.ones((size, size, width), np.bool_)
    rows = {decision.name: row for row, decision in enumerate(decisions)}
    for row, decision in enumerate(decisions):
        for parent in decision.choice.when:
            column = rows[parent]
            above = decisions[column]
            codes = [above.code(above.choice.read(each)) for each in list_allowed_values(decision.choice.when, parent)]
            # An inactive parent makes an inactive child: its own conditions are the child's too.
            table[row] &= table[column]
            table[row, column] &= np.isin(np.arange(width), codes)
    edges = np.array([[*(found := _edges(each)), *[1.0] * (width + 1 - len(found))] for each in decisions], np.float32)
    ordinal = np.array([not isinstance(each.choice, Categorical) for each in decisions])
    exact = np.array([not each.bins or all(part.low == part.high for part in each.bins) for each in decisions])
    min_moves = np.zeros(valid.shape, np.float32)
    for row, decision in enumerate(decisions):
        min_moves[row, : len(decision.bins)] = [_grain(decision.choice, part) for part in decision.bins]
    return Domain(valid, table, edges, ordinal, exact, min_moves, _find_shared_options(decisions, width))


def _grain(choice: Choice, part: Integer | Real) -> float:
    """The quantiles that the lowest value of a bin takes; no other one takes more."""
    if not isinstance(choice, Integer) or not isinstance(part, Integer):
        return 0.0
    if not choice.log:
        return 1 / choice.count()
    whole = math.log(choice.high + 0.5) - math.log(choice.low - 0.5)
    return (math.log(part.low + 0.5) - math.log(part.low - 0.5)) / whole


def _find_shared_options(decisions: Sequence[Decision], width: int) -> Masks:
    """[D, K, F]: which codes are the same option of several categories."""
    offers = [json.dumps(each.values) if isinstance(each.choice, Categorical) else "" for each in decisions]
    shared = sorted({offer for offer in offers if offer and offers.count(offer) > 1})
    counts = {offer: len(json.loads(offer)) for offer in shared}
    shared_options = np.zeros((len(decisions), width, sum(counts.values())), np.bool_)
    first = 0
    for offer, count in counts.items():
        for row in (row for row, each in enumerate(offers) if each == offer):
            shared_options[row, range(count), range(first, first + count)] = True
        first += count
    return shared_options


def _edges(decision: Decision) -> list[float]:
    """The quantiles at which one code gives way to the next, 0 and 1 included."""
    choice = decision.choice
    if isinstance(choice, Categorical):
        inner = [code / len(decision) for code in range(1, len(decision))]
    elif isinstance(choice, Real):
        inner = [choice.quantile(part.low) for part in decision.bins[1:]]
    else:
        values = [part.low for part in decision.bins] or [int(each) for each in decision.values if each is not None]
        if choice.log:
            low, high = math.log(choice.low - 0.5), math.log(choice.high + 0.5)
            inner = [(math.log(value - 0.5) - low) / (high - low) for value in values[1:]]
        else:
            inner = [(value - choice.low) // choice.step / choice.count() for value in values[1:]]
    return [0.0, *inner, 1.0]
