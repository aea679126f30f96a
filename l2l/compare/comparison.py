"""A comparison as a value: what it says of every searcher, and the contents of `compare.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from l2l.compare.bootstrap import Interval


@dataclass(frozen=True)
class EqualSeconds:
    """A searcher within the seconds of training that every searcher used up, seed by seed."""

    seconds: float
    """The limit, averaged over the seeds."""
    trials: float
    """How many trials ended within the limit, averaged over the seeds."""
    reward_mean: float
    """The mean of the best reward within the limit."""
    difference_to_random: Interval
    verdict: str


@dataclass(frozen=True)
class ComparedSearcher:
    """What a comparison says of one searcher; means and standard deviations are over the seeds.

    A mapping by a number of trials describes the best reward after so many trials.
    """

    reward_mean: float
    """The mean of the best reward at the end."""
    reward_std: float
    report_mean: float | None
    """The mean of the reported metric, of the candidate with the best reward; None without such a metric."""
    report_std: float | None
    report: Mapping[int, float]
    """The reported metric by number of trials; empty without such a metric."""
    reward: Mapping[int, float]
    """The mean of the best reward by number of trials."""
    regret: Mapping[int, float] | None
    """The mean distance to the best reward of the space, by number of trials; None where that is unknown."""
    found_best: Mapping[int, float] | None
    """The share of the searches that found the best reward of the space, by number of trials; None if unknown."""
    difference_to_random: Interval
    difference_to_best: Interval
    """The difference to the searcher with the highest mean."""
    verdict: str
    """Whether the searcher is better or worse than random search."""
    chance_over_random: float
    """The probability that a search beats a random search, ties counting half."""
    equal_seconds: EqualSeconds | None
    """None where candidates are looked up."""
    distinct: float
    """The mean number of different candidates in a search."""
    failed: int
    """The number of failed trials of all seeds."""
    seconds: Mapping[str, float]
    """Seconds of all searches by part: core-seconds of the searcher where candidates are looked up."""
    difference_to_recommended: Mapping[int, Interval] | None
    """By number of trials; None if no searcher is recommended."""

    def to_json(self) -> dict[str, Any]:
        """The searcher's entry in `compare.json`."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.regret is None:
            del fields["regret"], fields["found_best"]
        if self.equal_seconds is not None:
            fields["equal_seconds"] = dataclasses.asdict(self.equal_seconds)
        return _to_json(fields)


@dataclass(frozen=True)
class Analysis:
    """What may be said of searchers with equal budgets and paired seeds."""

    recommended: str | None
    """The recommended searcher; None if none is shown to be better than random search."""
    trials: int
    seeds: int
    best: float | None
    """The highest reward of the space, where it is known."""
    highest: str
    """The searcher with the highest mean."""
    searchers: Mapping[str, ComparedSearcher]


@dataclass(frozen=True)
class ComparedSpace:
    """The size of the search space."""

    name: str
    decisions: int
    candidates: int | None
    """None if there are too many to count."""


@dataclass(frozen=True)
class Setting:
    """How the searches were run."""

    batch: int
    seed: int
    """The first seed."""
    settings: Mapping[str, Any]
    """The arguments of every part, as a run folder stores them."""
    command: str | None
    """The command line that ran the comparison."""
    space: ComparedSpace
    objective: str
    report: str | None
    """The name of the reported metric."""
    seconds: float
    """The time that the call of `compare` took."""
    environment: Mapping[str, Any]
    """Versions, processor, XLA's options and the executor's settings."""


@dataclass(frozen=True)
class Comparison(Analysis):
    """The contents of `compare.json`: the analysis, and how the searches were run."""

    setting: Setting

    def to_json(self) -> dict[str, Any]:
        """The comparison as `compare.json` holds it, where a number of trials as a key is a string."""
        return {
            "recommended": self.recommended,
            "trials": self.trials,
            "seeds": self.seeds,
            "best": self.best,
            "highest": self.highest,
            "rows": {name: searcher.to_json() for name, searcher in self.searchers.items()},
            **dataclasses.asdict(self.setting),
        }


def _to_json(value: Any) -> Any:
    """Mappings with strings as keys, and sequences as lists."""
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    return [_to_json(item) for item in value] if isinstance(value, tuple) else value
