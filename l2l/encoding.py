"""Candidates as arrays: one code per decision, and which codes leave which decisions active."""

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

MAX_CODES = 64
"""An Integer with more values than this is binned, unless other choices are conditional on it."""
MAX_PARENT_CODES = 4096
"""The most values of an Integer that other choices are conditional on: every value has its own code."""


class Domain(NamedTuple):
    """The search space as constant arrays, for compiled searchers: D decisions with up to K codes each.

    Conditions include those of all ancestors, so that the codes alone say whether decision d is active:
    `all(allowed[d, p, code[p]] for p in range(D))`. Programs depend on the shapes only, not on the values.
    """

    valid: Masks
    """[D, K]: whether decision d has a code k. K is the largest number of codes of any decision."""
    allowed: Masks
    """[D, D, K]: whether decision d can be active while decision p has code k."""
    edges: npt.NDArray[np.float32]
    """[D, K + 1]: code k covers the quantiles from edge k up to edge k + 1; 1 beyond the last code."""
    ordinal: Masks
    """[D]: whether the codes have a meaningful order: True for numbers, False for categories."""
    exact: Masks
    """[D]: whether every code is one value, not a bin of several."""
    min_moves: npt.NDArray[np.float32]
    """[D, K]: a move of the quantile that surely changes the value of a binned Integer in code k; 0 elsewhere."""
    shared_options: Masks
    """[D, K, F]: whether code k of decision d is option f of the F that several categories offer; F may be 0."""


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
        return next(i for i, option in enumerate(self.values) if type(option) is type(value) and option == value)

    def value(self, code: int, uniform: float) -> Value:
        """The value of a code; `uniform` in [0, 1) says how far through its bin."""
        if not self.bins:
            return self.values[code]
        value = self.bins[code].value_at(uniform)
        if isinstance(value, float) and code + 1 < len(self.bins):
            # Rounding may reach the next bin's edge; the code of the value must stay this one.
            return min(value, math.nextafter(self.bins[code + 1].low, -math.inf))
        return value


@dataclass(frozen=True, eq=False)
class Encoding:
    """The decisions of a space, in its order; turns candidates into codes and back.

    A Categorical or an Integer has one code per value. A Real has ordinal bins, evenly over its
    quantiles, and so has an Integer of more than `MAX_CODES` values that nothing is conditional on. Sixteen
    bins split four decades of a learning rate into factors of 1.8: finer than a noisy reward can
    distinguish within a few hundred trials, yet few enough for all of them to be tried.

    Raises: InputError if `bins` is below 1, or a condition depends on an Integer with too many values.
    """

    space: SearchSpace[Any]
    """Without its builder, so that a searcher's state can be pickled whatever the builder is."""
    bins: int = 16
    decisions: tuple[Decision, ...] = field(init=False)
    domain: Domain = field(init=False)
    digest: str = field(init=False)
    """Equal for two encodings of equal choices."""

    def __post_init__(self) -> None:
        check_integer("an Encoding's bins", self.bins, 1)
        object.__setattr__(self, "space", strip_builder(self.space))
        parents = {parent for choice in self.space.choices.values() for parent in choice.when}
        decisions = tuple(
            _make_decision(name, choice, self.bins, name in parents) for name, choice in self.space.choices.items()
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
        quantiles = np.zeros((len(candidates), len(self.decisions)), np.float32)
        for candidate_index, candidate in enumerate(candidates):
            for index, decision in enumerate(self.decisions):
                if decision.name in candidate.values:
                    value = candidate.values[decision.name]
                    quantiles[candidate_index, index] = self.quantile(index, decision.code(value), value)
        return quantiles

    def quantile(self, index: int, code: int, value: Value) -> np.float32:
        """The quantile of a value of decision number `index`, inside its bin; the middle if the bin has one value."""
        decision, (low, high) = self.decisions[index], self.domain.edges[index, code : code + 2]
        quantile = (low + high) / 2 if self.domain.exact[index] else np.float32(decision.choice.quantile(value))
        return min(max(quantile, low), np.nextafter(high, np.float32(0)))

    def encode(self, candidates: Sequence[Candidate]) -> tuple[Codes, Masks]:
        """Codes [N, D] (0 where inactive) and masks [N, D] of candidates of this space."""
        codes = np.zeros((len(candidates), len(self.decisions)), np.int32)
        masks = np.zeros(codes.shape, np.bool_)
        for candidate_index, candidate in enumerate(candidates):
            for index, decision in enumerate(self.decisions):
                if decision.name in candidate.values:
                    codes[candidate_index, index] = decision.code(candidate.values[decision.name])
                    masks[candidate_index, index] = True
        return codes, masks

    def decode(
        self, codes: Codes, uniforms: npt.NDArray[Any], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> list[Candidate]:
        """The candidates of codes [N, D], at uniforms [N, D] in [0, 1) of the way through their bins."""
        indices = {decision.name: index for index, decision in enumerate(self.decisions)}

        def decode_candidate(candidate_index: int) -> Candidate:
            def pick(name: str, choice: Choice) -> Value:
                at = candidate_index, indices[name]
                return self.decisions[indices[name]].value(int(codes[at]), float(uniforms[at]))

            return self.space.complete(pick, metadata[candidate_index] if metadata else None)

        return [decode_candidate(candidate_index) for candidate_index in range(len(codes))]

    def one_hot(self, codes: Codes, masks: Masks) -> npt.NDArray[np.float32]:
        """Codes [N, D] as [N, D, K] zeros and ones; an inactive decision is all zeros."""
        one_hot = codes[..., None] == np.arange(self.domain.valid.shape[1])
        return (one_hot & masks[..., None]).astype(np.float32)


def read_rewards(trials: Sequence[Trial]) -> npt.NDArray[np.float64]:
    """The rewards [N] of trials with one objective; nan for a failed trial, that of the last rung for a pruned one.

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
    """The space without its builder: a plain value, which can be pickled as part of a searcher's state."""
    return SearchSpace(space.choices, _refuse_build, space.name)


def _refuse_build(values: Mapping[str, Any], spec: Any) -> Any:
    raise TypeError("a searcher's copy of a space has no builder.")


def _make_decision(name: str, choice: Choice, bins: int, is_parent: bool) -> Decision:
    if isinstance(choice, Categorical):
        return Decision(name, choice, values=choice.options)
    if isinstance(choice, Integer) and (is_parent or choice.count() <= MAX_CODES):
        if choice.count() > MAX_PARENT_CODES:
            raise InputError(
                f"choice {name!r} has {choice.count()} values and others are conditional on it; give it at most "
                f"{MAX_PARENT_CODES}, or make the condition a separate Categorical."
            )
        return Decision(name, choice, values=options(choice))
    # Narrow ranges have fewer distinct lower ends than bins.
    lows = [choice.low, *sorted({low for i in range(1, bins) if (low := choice.value_at(i / bins)) > choice.low})]
    if isinstance(choice, Real):
        highs = [*lows[1:], choice.high]
        parts: list[Integer | Real] = [
            replace(choice, low=low, high=high) for low, high in zip(lows, highs, strict=True)
        ]
    else:
        highs = [*(int(low) - choice.step for low in lows[1:]), choice.high]
        parts = [replace(choice, low=int(low), high=high) for low, high in zip(lows, highs, strict=True)]
    return Decision(name, choice, bins=tuple(parts))


def _make_domain(decisions: Sequence[Decision]) -> Domain:
    width = max(map(len, decisions))
    valid = np.array([[code < len(decision) for code in range(width)] for decision in decisions])
    edges = np.ones((len(decisions), width + 1), np.float32)
    min_moves = np.zeros(valid.shape, np.float32)
    for index, decision in enumerate(decisions):
        decision_edges = _list_edges(decision)
        edges[index, : len(decision_edges)] = decision_edges
        min_moves[index, : len(decision.bins)] = [_compute_min_move(decision.choice, part) for part in decision.bins]
    return Domain(
        valid,
        _close_conditions(decisions, width),
        edges,
        np.array([not isinstance(decision.choice, Categorical) for decision in decisions]),
        np.array([all(part.low == part.high for part in decision.bins) for decision in decisions]),
        min_moves,
        _find_shared_options(decisions, width),
    )


def _close_conditions(decisions: Sequence[Decision], width: int) -> Masks:
    """[D, D, K]: whether a decision can be active while another one has code k; includes the ancestors' conditions."""
    allowed = np.ones((len(decisions), len(decisions), width), np.bool_)
    indices = {decision.name: index for index, decision in enumerate(decisions)}
    for index, decision in enumerate(decisions):
        for name in decision.choice.when:
            parent_index = indices[name]
            parent = decisions[parent_index]
            values = list_allowed_values(decision.choice.when, name)
            codes = [parent.code(parent.choice.read(value)) for value in values]
            # An inactive parent makes an inactive child: its own conditions are the child's too.
            allowed[index] &= allowed[parent_index]
            allowed[index, parent_index] &= np.isin(np.arange(width), codes)
    return allowed


def _compute_min_move(choice: Choice, part: Integer | Real) -> float:
    """The width in quantiles of the lowest value of a bin, which is the widest."""
    if not isinstance(choice, Integer) or not isinstance(part, Integer):
        return 0.0
    if not choice.log:
        return 1 / choice.count()
    total = math.log(choice.high + 0.5) - math.log(choice.low - 0.5)
    return (math.log(part.low + 0.5) - math.log(part.low - 0.5)) / total


def _find_shared_options(decisions: Sequence[Decision], width: int) -> Masks:
    """[D, K, F]: which codes are the same option of several categories."""
    lists = [json.dumps(decision.values) if isinstance(decision.choice, Categorical) else "" for decision in decisions]
    counts = {text: len(json.loads(text)) for text in sorted(set(lists)) if text and lists.count(text) > 1}
    shared_options = np.zeros((len(decisions), width, sum(counts.values())), np.bool_)
    first = 0
    for shared_list, count in counts.items():
        for index in (index for index, text in enumerate(lists) if text == shared_list):
            shared_options[index, range(count), range(first, first + count)] = True
        first += count
    return shared_options


def _list_edges(decision: Decision) -> list[float]:
    """The quantiles at which one code ends and the next begins, 0 and 1 included."""
    choice = decision.choice
    if isinstance(choice, Categorical):
        edges = [code / len(decision) for code in range(1, len(decision))]
    elif isinstance(choice, Real):
        edges = [choice.quantile(part.low) for part in decision.bins[1:]]
    else:
        values = [part.low for part in decision.bins] or [int(value) for value in decision.values if value is not None]
        if choice.log:
            low, high = math.log(choice.low - 0.5), math.log(choice.high + 0.5)
            edges = [(math.log(value - 0.5) - low) / (high - low) for value in values[1:]]
        else:
            edges = [(value - choice.low) // choice.step / choice.count() for value in values[1:]]
    return [0.0, *edges, 1.0]
