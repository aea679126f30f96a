"""Candidates built decision by decision: the part that the environments for one agent and for many agents share."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, SupportsIndex, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from l2l.abilities import HasSpace, NamesMetric
from l2l.cohorts import group_by_program
from l2l.encoding import Encoding
from l2l.errors import InputError, check_number, check_part
from l2l.reward import Metric, check_metrics, complete_reward, gate
from l2l.space import Candidate, SearchSpace
from l2l.types import Objective, Outcome, Reward, Status, Trial

Observation: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.int8]


@runtime_checkable
class RunTrials(Protocol):
    """An `Objective`, or any other function that gives trials back with their outcomes."""

    def __call__(self, trials: Sequence[Trial], /) -> Iterable[Trial]:
        """The trials with their outcomes."""
        ...


@dataclass(eq=False)
class Rules:
    """The search space, the reward, and the actions that an agent may take.

    `reward` may be omitted if the objective measures one metric. The reward of a failed trial is `failed`, by default
    the lowest reward of the environment since it was last seeded (0 before any). With `invalid="fail"` an action
    outside the mask ends the episode as a failure without a trial, with the reward `failed`; otherwise it is an error.

    Raises: InputError if an argument is invalid, or the objective refuses the space.
    """

    space: SearchSpace[Any]
    objective: RunTrials
    reward: Reward | None = None
    failed: float | None = None
    invalid: str = "refuse"
    bins: int = 16
    encoding: Encoding = field(init=False)
    gauge: Reward = field(init=False)
    """The reward that is used."""

    def __post_init__(self) -> None:
        check_part("space", self.space, "a SearchSpace", SearchSpace)
        check_part("objective", self.objective, "an Objective, such as Tabular(space=..., ...)", RunTrials)
        if self.reward is not None:
            check_part("reward", self.reward, "a Reward, such as l2l.reward.Metric()", Reward)
        other = self.objective.space if isinstance(self.objective, HasSpace) else None
        if isinstance(other, SearchSpace) and other.choices != self.space.choices:
            raise InputError(
                f"the objective was made for another space, of {', '.join(other.choices)}, where this one is of "
                f"{', '.join(self.space.choices)}; give both the same one, names and values alike."
            )
        check_number("failed", self.failed, optional=True)
        if self.invalid not in ("refuse", "fail"):
            raise InputError(f"invalid must be 'refuse' or 'fail', got {self.invalid!r}.")
        if self.invalid == "fail" and self.failed is None:
            raise InputError("invalid='fail' needs failed=NUMBER: what an episode is worth that ends so.")
        self.encoding, self.gauge = Encoding(self.space, self.bins), self.reward or Metric()
        if self.gauge.length != 1:
            raise InputError(
                f"an agent maximises one number, so the reward's length must be 1, got {self.gauge.length!r}."
            )
        names = self.objective.check() if isinstance(self.objective, Objective) else None
        known = sorted(names or ())
        if len(known) > 1 and isinstance(self.gauge, NamesMetric) and self.gauge.name is None:
            raise InputError(f"the objective measures {', '.join(known)}; say which as reward=Metric(NAME).")
        if known:
            self.gauge = complete_reward(self.gauge, known[0])
            check_metrics(self.gauge, known)

    def run_candidates(self, candidates: Sequence[Candidate], first: int) -> list[Trial]:
        """Runs candidates in one call: their trials, numbered from `first` on, with rewards."""
        cohorts = group_by_program(candidates, self.space, self.objective, first)
        batch = (first, len(candidates))
        todo = [
            Trial(number, candidate, batch, cohort)
            for number, (candidate, cohort) in enumerate(zip(candidates, cohorts, strict=True), first)
        ]
        ended = {trial.number: trial for trial in self.objective(todo)} if todo else {}
        return [gate(ended.get(trial.number, trial), self.gauge) for trial in todo]


class Episode:
    """One agent's progress through the decisions of a candidate."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.codes = np.zeros(len(rules.encoding.decisions), np.int32)
        self.index: int | None = None
        """Index of the next decision; D after the last one, None before the first episode."""
        self.lowest = math.inf

    @property
    def is_over(self) -> bool:
        """Whether no decision is left."""
        return self.index == len(self.codes)

    def begin(self, forget: bool) -> None:
        """Starts a candidate; with `forget`, also forgets the rewards of earlier episodes."""
        self.codes[:], self.index = 0, 0
        if forget:
            self.lowest = math.inf

    def explain_invalid(self, action: SupportsIndex) -> str | None:
        """Why an action is invalid, in a sentence; None if it is valid. Raises: InputError if no action is due."""
        if self.index is None or self.is_over:
            raise InputError("the episode has ended, or none has begun; call reset() before step().")
        decision = self.rules.encoding.decisions[self.index]
        try:
            code = operator.index(action)
        except TypeError:
            code = -1
        if 0 <= code < len(decision):
            return None
        return (
            f"the action {action!r} is none of {decision.name!r}, which takes 0 to {len(decision) - 1}; "
            "choose one where info['action_mask'] is 1."
        )

    def take(self, action: SupportsIndex) -> None:
        """Takes a decision and moves to the next one that is active."""
        index = self.index or 0
        self.codes[index] = operator.index(action)
        active = self._find_active()
        self.index = next((later for later in range(index + 1, len(active)) if active[later]), len(active))

    def stop(self) -> None:
        """Ends the episode at once."""
        self.index = len(self.codes)

    def decode_candidate(self, generator: np.random.Generator) -> Candidate:
        """The candidate of these decisions; `generator` samples where a number lies inside its bin."""
        (candidate,) = self.rules.encoding.decode(self.codes[None], generator.random((1, len(self.codes))))
        return candidate

    def compute_reward(self, trial: Trial | None) -> float:
        """The reward of the episode that ended with `trial`, or with none."""
        if trial is None or trial.reward is None or trial.status is not Status.COMPLETE:
            lowest = 0.0 if math.isinf(self.lowest) else self.lowest
            return lowest if self.rules.failed is None else float(self.rules.failed)
        self.lowest = min(self.lowest, trial.reward[0])
        return trial.reward[0]

    def observation(self) -> Observation:
        """`[D * (K + 1) + D]`: each decision's code as one-hot, whose last entry marks a skipped decision, or zeros if
        it is not taken yet; then the index of the next decision as one-hot, zeros after the last one."""
        size, width = self.rules.encoding.domain.valid.shape
        index = self.index or 0
        one_hot = np.zeros((size, width + 1), np.float32)
        one_hot[np.arange(index), np.where(self._find_active()[:index], self.codes[:index], width)] = 1
        return np.concatenate([one_hot.ravel(), np.arange(size) == index], dtype=np.float32)

    def mask(self) -> Mask:
        """`[K]`: 1 for the actions that are allowed; after the last decision, when actions are ignored, for all."""
        valid = self.rules.encoding.domain.valid
        return np.ones(valid.shape[1], np.int8) if self.is_over else valid[self.index or 0].astype(np.int8)

    def _find_active(self) -> npt.NDArray[np.bool_]:
        """Which decisions are active, `[D]`; for later ones this may depend on decisions that are not taken yet."""
        return self.rules.encoding.masks(self.codes[None])[0]


def make_info(trial: Trial | None, problem: str | None) -> dict[str, Any]:
    """The entries of `info` at the end of an episode; `problem` says why an action was invalid."""
    outcome = (trial and trial.outcome) or Outcome(error=problem)
    info: dict[str, Any] = {"metrics": dict(outcome.metrics)}
    if trial is not None:
        info["candidate"] = trial.candidate
    if outcome.error is not None:
        info["error"] = outcome.error
    return info
