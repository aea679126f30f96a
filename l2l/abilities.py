"""What some parts can do besides the duties of their role in `l2l.types`.

Each ability is a Protocol that `isinstance` checks. A part has one by having its members; nothing is inherited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from l2l.space import Candidate, SearchSpace
from l2l.types import Objective


@runtime_checkable
class HasTitle(Protocol):
    """A part that names itself in folders and reports; other parts go by their class."""

    @property
    def title(self) -> str:
        """A short name in lower case."""
        ...


def get_title(part: object) -> str:
    """A part's short name: its title if it has one, else its class in lower case."""
    return str(part.title) if isinstance(part, HasTitle) else type(part).__name__.lower()


@runtime_checkable
class HasSpace(Protocol):
    """A part that was made for one search space."""

    @property
    def space(self) -> SearchSpace[Any]:
        """That space."""
        ...


@runtime_checkable
class UsesEarlierSearches(Protocol):
    """A searcher that starts with the trials of earlier searches."""

    def digest(self, space: SearchSpace[Any]) -> str | None:
        """A digest of what it knows of `space` from them, which a resumed search must find unchanged; None: nothing."""
        ...


@runtime_checkable
class SharesPrograms(Protocol):
    """An objective that says which candidates share a bucket: a batch's trials of one bucket are a cohort."""

    def name_bucket(self, candidate: Candidate) -> str:
        """The name of the bucket whose program runs this candidate."""
        ...


@runtime_checkable
class PlansPrograms(Protocol):
    """An objective whose programs suit the length of a search."""

    def plan(self, trials: int) -> None:
        """Says for how many trials the search was begun; called before the first of them."""
        ...


@runtime_checkable
class LimitsLanes(Protocol):
    """An objective that says how many trials of a cohort run in one call."""

    @property
    def lanes(self) -> int | None:
        """The number of lanes; None: as many as suit the device."""
        ...


@runtime_checkable
class NamesMetric(Protocol):
    """A reward that reads one metric."""

    @property
    def name(self) -> str | None:
        """The metric's name; None: the task's metric."""
        ...


@runtime_checkable
class NamesObjectives(Protocol):
    """A reward of several objectives, each of them a metric."""

    @property
    def metrics(self) -> Mapping[str, bool]:
        """The metrics in the order of the reward, and whether larger values are better."""
        ...


@runtime_checkable
class NamesClasses(Protocol):
    """A task whose classes have names."""

    @property
    def classes(self) -> Sequence[str]:
        """The names in the order of the logits."""
        ...


@runtime_checkable
class ChecksExport(Protocol):
    """A final run that can tell whether what it exported is still there; others are taken at their word."""

    def is_done(self, seeds: int) -> bool:
        """Whether the winner's export is intact, and `seeds` is the number of seeds that it is trained under."""
        ...

    def is_intact(self, folder: Path) -> bool:
        """Whether the export in `folder` is complete and unchanged."""
        ...


@runtime_checkable
class ExportsFront(Protocol):
    """A final run that can also export the members of a front."""

    def for_front(self, folder: Path) -> Objective:
        """The final run of members: each is exported to a folder of its number in `folder`, without further seeds."""
        ...
