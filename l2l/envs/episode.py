"""One candidate after the other, decision by decision: what the environments for one agent and for many share."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, SupportsIndex, TypeAlias

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
Run: TypeAlias = Callable[[Sequence[Trial]], Iterable[Trial]]
"""An `Objective`, or any other function that gives trials back with their outcomes."""


@dataclass(eq=False)
class Rules:
    """What is searched, how it is judged, and what an agent may do.

    `reward` may be left out where the objective measures one thing. A trial that fails is worth `failed`, by default
    the lowest reward of the environment since it was last seeded (0 before any). With `invalid="fail"` an action
    outside the mask ends the episode as a failure without a trial, worth `failed`; otherwise it is an error.

    Raises: InputError if an argument is none of these, or the objective refuses the space.
    """

    space: SearchSpace[Any]
    objective: Run
    reward: Reward | None = None
    failed: float | None = None
    invalid: str = "refuse"
    bins: int = 16
    encoding: Encoding = field(init=False)
    gauge: Reward = field(init=False)
    """The reward that is used."""

    def __post_init__(self) -> None:
        check_part("space", self.space, "a SearchSpace", SearchSpace)
        check_part("objective", self.objective, "an Objective, such as Tabular(space=..., ...)", "__call__")
        if self.reward is not None:
            check_part("reward", self.reward, "a Reward, such as l2l.reward.Metric()", "__call__")
        own = self.objective.space if isinstance(self.objective, HasSpace) else self.space
        if own.choices != self.space.choices:
            raise InputError(
                f"the objective was made for another space, of {', '.join(own.choices)}, where this one is of "
                f"{', '.join(self.space.choices)}; give both the same one, names and values alike."
            )
        check_number("failed", self.failed, optional=True)
        if self.invalid not in ("refuse", "fail"):
            raise InputError(f"invalid must be 'refuse' or 'fail', got {self.invalid!r}.")
        if self.invalid == "fail" and self.failed is None:
            raise InputError("invalid='fail' needs failed=NUMBER: what an episode is worth that ends so.")
        self.encoding, self.gauge = Encoding(self.space, self.bins), self.reward or Metric()
        if (length := self.gauge.length if isinstance(self.gauge, Reward) else None) != 1:
            raise InputError(f"an agent maximises one number, so the reward's length must be 1, got {length!r}.")
        names = self.objective.check() if isinstance(self.objective, Objective) else None
        known = sorted(names or ())
        if len(known) > 1 and isinstance(self.gauge, NamesMetric) and self.gauge.name is None:
            raise InputError(f"the objective measures {', '.join(known)}; say which as reward=Metric(NAME).")
        if known:
            self.gauge = complete_reward(self.gauge, known[0])
            check_metrics(self.gauge, known)

    def judge(self, candidates: Sequence[Candidate], first: int) -> list[Trial]:
        """The trials of candidates, numbered from `first` on, run in one call and with their rewards."""
        cohorts = group_by_program(candidates, self.space, self.objective, first)
        batch = (first, len(candidates))
        todo = [
            Trial(number, candidate, batch, cohort)
            for number, (candidate, cohort) in enumerate(zip(candidates, cohorts, strict=True), first)
        ]
        ended = {trial.number: trial for trial in self.objective(todo)} if todo else {}
        return [gate(ended.get(trial.number, trial), self.gauge) for trial in todo]


class Episode:
    """Where one agent stands in the decisions of a candidate."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.codes = np.zeros(len(rules.encoding.decisions), np.int32)
        self.place: int | None = None
        """The decision that is next; D after the last one, None before there is any."""
        self.lowest = math.inf

    @property
    def over(self) -> bool:
        """Whether nothing is left to decide."""
        return self.place == len(self.codes)

    def begin(self, afresh: bool) -> None:
        """Nothing is decided; `afresh`, nothing is remembered of earlier episodes either."""
        self.codes[:], self.place = 0, 0
        if afresh:
            self.lowest = math.inf

    def complaint(self, action: SupportsIndex) -> str | None:
        """What is wrong with an action, in a sentence. Raises: InputError if no action is due."""
        if self.place is None or self.over:
            raise InputError("the episode has ended, or none has begun; call reset() before step().")
        decision = self.rules.encoding.decisions[self.place]
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
        """Decides, and goes on to the next decision that is active."""
        place = self.place or 0
        self.codes[place] = operator.index(action)
        active = self._active()
        self.place = next((each for each in range(place + 1, len(active)) if active[each]), len(active))

    def stop(self) -> None:
        """Ends the episode where it stands."""
        self.place = len(self.codes)

    def candidate(self, draw: np.random.Generator) -> Candidate:
        """What was decided; numbers are placed inside their bins by `draw`."""
        (found,) = self.rules.encoding.decode(self.codes[None], draw.random((1, len(self.codes))))
        return found

    def worth(self, trial: Trial | None) -> float:
        """The reward of the trial that the episode ended with, if it did with one."""
        if trial is None or trial.reward is None or trial.status is not Status.COMPLETE:
            lowest = 0.0 if math.isinf(self.lowest) else self.lowest
            return lowest if self.rules.failed is None else float(self.rules.failed)
        self.lowest = min(self.lowest, trial.reward[0])
        return trial.reward[0]

    def observation(self) -> Observation:
        """[D * (K + 1) + D]: by decision its code as one-hot, with a last place for one that was skipped, all zeros
        where it is still to come; then which decision is next, as one-hot, all zeros after the last one."""
        size, width = self.rules.encoding.domain.valid.shape
        place = self.place or 0
        told = np.zeros((size, width + 1), np.float32)
        passed = np.arange(place)
        told[passed, np.where(self._active()[:place], self.codes[:place], width)] = 1
        return np.concatenate([told.ravel(), np.arange(size) == place], dtype=np.float32)

    def mask(self) -> Mask:
        """[K]: 1 for the actions that are allowed; after the last decision, when none is heeded, for all."""
        valid = self.rules.encoding.domain.valid
        return np.ones(valid.shape[1], np.int8) if self.over else valid[self.place or 0].astype(np.int8)

    def _active(self) -> npt.NDArray[np.bool_]:
        """[D]; of decisions still to come it may hang on what is not decided yet."""
        return self.rules.encoding.masks(self.codes[None])[0]


def told(trial: Trial | None, complaint: str | None) -> dict[str, Any]:
    """What `info` holds at the end of an episode."""
    outcome = (trial and trial.outcome) or Outcome(error=complaint)
    found: dict[str, Any] = {"metrics": dict(outcome.metrics)}
    if trial is not None:
        found["candidate"] = trial.candidate
    if outcome.error is not None:
        found["error"] = outcome.error
    return found
