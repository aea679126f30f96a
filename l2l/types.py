"""The words of l2l: its records and the duties of its parts. Imports no jax at run time.

Records first, then roles: data (`Task`), proposals (`Searcher`), training (`Objective`, `Staged`, `Rungs`, `Reward`,
`Executor`), what a search leaves behind (`Store`, `TrialLog`). `l2l.abilities` has what some parts can do besides.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

from l2l.space import Candidate, SearchSpace

if TYPE_CHECKING:
    import jax
    import numpy as np
    import optax
    from flax import nnx
Key: TypeAlias = "jax.Array"
"""A typed JAX key (`jax.random.key`): every random decision folds its number and purpose into one."""
ASK = 2**32 - 1
"""Folded into the seed's key for proposals; trials fold in their own numbers."""
Array: TypeAlias = "jax.Array"
Split: TypeAlias = Literal["train", "validation", "test"]
State = TypeVar("State")


class Spec(NamedTuple):
    """What a task asks of a model: all that `build` may depend on."""

    inputs: tuple[int, ...]
    """Shape of one raw example: `[H, W, C]` for an image."""
    outputs: int
    """Length C of the logits: the number of classes."""
    examples: int
    """Training examples."""
    epochs: int
    """Passes over them in a full training."""
    tokens: int = 0
    """Size of the vocabulary of inputs `[L]`, which a model gets as token ids from 0; 0: inputs are measurements."""
    targets: tuple[int, ...] = ()
    """Shape of one example's targets, each of which has logits `[C]`: `[L]` where every token has one."""

    def steps(self, batch_size: Any) -> Any:
        """Optimiser steps of a full training; an incomplete last batch is dropped."""
        return self.epochs * (self.examples // batch_size)


class Learner(NamedTuple):
    """What a candidate builds: a model and the recipe that trains it."""

    model: Callable[[nnx.Rngs], nnx.Module]
    """Makes the untrained model; it maps normalised inputs `[B, *inputs]` to logits `[B, *targets, C]`."""
    optimizer: optax.GradientTransformation
    batch_size: Any = 64
    """Examples per optimiser step: an integer, or traced if there is a `microbatch`."""
    label_smoothing: Any = 0.0
    microbatch: int | None = None
    """Examples per gradient; a step averages `batch_size / microbatch` of them. None: one gradient a step."""


class Status(enum.StrEnum):
    """Where a trial stands."""

    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"
    PRUNED = "pruned"


@dataclass(frozen=True)
class Outcome:
    """What a run measured."""

    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    """What the run took, by purpose: trace, compile, train, evaluate."""
    curve: Mapping[str, Sequence[float]] = field(default_factory=dict[str, Sequence[float]])
    """Metrics by epoch."""
    error: str | None = None
    """Why the trial failed, in one sentence; None if it did not."""


@dataclass(frozen=True)
class Trial:
    """A candidate with its run."""

    number: int
    candidate: Candidate
    batch: tuple[int, int]
    """First number and size of the batch that was asked for at once."""
    cohort: tuple[int, ...]
    """Numbers of the trials that share its program: fewer at its end than at first if it needed fewer lanes."""
    status: Status = Status.RUNNING
    outcome: Outcome | None = None
    """What it measured; of a running trial: at its last rung."""
    reward: tuple[float, ...] | None = None
    """One number per objective, larger is better: of a complete trial, or of a pruned one at its last rung."""
    scores: Mapping[int, tuple[float, ...]] = field(default_factory=dict[int, tuple[float, ...]])
    """The reward after each epoch, counted from 1, as far as the trial has passed."""
    stop_epoch: int | None = None
    """The epoch to train up to; None: to the end. The objective obeys it; it is not stored."""


class SearchInfo(NamedTuple):
    """What a tracker learns about a search when it starts."""

    name: str
    group: str
    directory: Path
    config: Mapping[str, Any]
    space: SearchSpace[Any]
    trials: int
    metric: str


class SearchEnd(NamedTuple):
    """What a tracker learns about a search when it has ended: figures as in `result.json`."""

    best: Mapping[str, Any]
    """Of the best trial; empty if none was completed."""
    test: Mapping[str, Any]
    """Of its final run; empty without one."""
    seconds: Mapping[str, float]


@runtime_checkable
class Task(Protocol):
    """Data, loss and metric."""

    @property
    def name(self) -> str:
        """A short name, for folders and reports."""
        ...

    @property
    def metric(self) -> str:
        """The metric that ranks candidates, a key of `score`."""
        ...

    @property
    def maximise(self) -> bool:
        """Whether a larger metric is better."""
        ...

    @property
    def epochs(self) -> int:
        """Passes over the training split unless the objective says otherwise."""
        ...

    @property
    def outputs(self) -> int:
        """Length C of the logits."""
        ...

    @property
    def normalise(self) -> bool:
        """Whether inputs are centred and scaled by the statistics of the training split."""
        ...

    @property
    def vocabulary(self) -> Sequence[int]:
        """The vocabulary of text inputs, ascending; empty where inputs are measurements."""
        ...

    def check(self) -> None:
        """Rejects missing or damaged data before anything is written. Raises: InputError."""
        ...

    def load(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Raw inputs `[N, *inputs]` and targets `[N, *targets]` of one split; the same arrays at every call."""
        ...

    def loss(self, logits: Array, targets: Array, label_smoothing: Any) -> Array:
        """Training loss per example: logits `[B, *targets, C]`, targets `[B, *targets]`, result `[B]`."""
        ...

    def score(self, logits: Array, targets: Array) -> Mapping[str, Array]:
        """Metrics per example, each `[B]`; their means over a split are reported."""
        ...


@runtime_checkable
class Searcher(Protocol[State]):
    """Proposes candidates and learns from their rewards; its state is a value."""

    def init(self, space: SearchSpace[Any], key: Key) -> State:
        """The state before any trial."""
        ...

    def ask(self, state: State, key: Key, count: int) -> Sequence[Candidate]:
        """`count` candidates; never learns, so equal arguments give equal candidates."""
        ...

    def tell(self, state: State, trials: Sequence[Trial]) -> State:
        """The state after one whole batch, in trial order, with failed trials; the only way to learn."""
        ...

    def summary(self, state: State) -> Mapping[str, float]:
        """Figures worth plotting (mean reward, baseline, entropy); may be empty."""
        ...


@runtime_checkable
class Objective(Protocol):
    """Runs trials, several in one call, so that it can train them as lanes of one program.

    Trials that agree in every static value run together, unless `SharesPrograms` and `LimitsLanes` say otherwise.
    """

    def check(self) -> Collection[str] | None:
        """The metrics of an outcome, where known. Raises: InputError for a space that cannot be run."""
        ...

    def __call__(self, trials: Sequence[Trial]) -> Iterator[Trial]:
        """The trials with their outcomes, cohort by cohort in the order of the argument."""
        ...


@runtime_checkable
class Staged(Objective, Protocol):
    """An objective that obeys `Trial.stop_epoch`: it stops there and continues at the next call."""

    @property
    def total_epochs(self) -> int:
        """Epochs of a full training."""
        ...

    def with_checkpoints(self, folder: Path) -> Staged:
        """The same objective with its checkpoints in `folder`; a lost checkpoint costs time and nothing else."""
        ...

    def retain(self, numbers: Collection[int]) -> None:
        """Deletes the checkpoints of all other trials."""
        ...


@runtime_checkable
class Rungs(Protocol):
    """Early stopping: says which candidates to train further, from scores and trial numbers, never from the clock."""

    def check(self, total_epochs: int, objectives: int, batch: int) -> None:
        """Rejects numbers of epochs, objectives or trials in a batch that it cannot handle. Raises: InputError."""
        ...

    def list_rungs(self, number: int, total_epochs: int) -> Sequence[int]:
        """A trial's rungs: the epochs, ascending and below `total_epochs`, after which it is compared with others."""
        ...

    def keep(self, rung: int, batch: Sequence[Trial], earlier: Sequence[Trial]) -> Collection[int]:
        """The numbers of those trials of `batch`, which is not empty, that train on after epoch `rung`.

        All trials have a score there, and are in one bracket; `earlier` are those of the batches before, in order.
        """
        ...


@runtime_checkable
class Reward(Protocol):
    """Turns an outcome into what the searcher maximises."""

    @property
    def length(self) -> int:
        """How many objectives there are."""
        ...

    def __call__(self, outcome: Outcome) -> tuple[float, ...]:
        """One number per objective, larger is better."""
        ...


@runtime_checkable
class Executor(Protocol):
    """Runs an objective somewhere."""

    @property
    def workers(self) -> int | None:
        """How many cohorts run at a time (None: one)."""
        ...

    @property
    def in_process(self) -> bool:
        """Whether trials run in the process of the search, which then needs the accelerators."""
        ...

    def check(self, objective: Objective) -> None:
        """Rejects an objective that cannot be sent to where trials run. Raises: InputError."""
        ...

    def start(self, directory: Path) -> None:
        """The search begins; what is printed while trials run goes to `directory / "log.txt"`."""
        ...

    def run(self, objective: Objective, trials: Sequence[Trial]) -> Iterator[Trial]:
        """Every trial exactly once with its outcome, as they finish; a crash is an outcome."""
        ...

    def close(self) -> None:
        """Stops what `start` started."""
        ...


class TrialLog(Protocol):
    """The trials of one study, for its only writer.

    A trial is read back as it was written, to the last bit. Each writing method is one step that a crash cannot split,
    durable when it returns. What cannot be stored raises ValueError and writes nothing; a failing database SearchError.
    """

    @property
    def seconds(self) -> float:
        """Time spent in the store so far."""
        ...

    def recall(self, name: str, value: int) -> int:
        """The number of this name that the study was begun with; if there is none, `value`, which is stored."""
        ...

    def count(self) -> int:
        """How many trials have ended, in whatever way."""
        ...

    def trials(self) -> list[Trial]:
        """All trials in number order."""
        ...

    def batches(self) -> list[list[Trial]]:
        """The batches all of whose trials have ended, in order: what a searcher is told."""
        ...

    def list_running(self) -> list[Trial]:
        """The trials to run, or to run again after a crash, in number order; none of a half-opened batch."""
        ...

    def next_batch(self, size: int) -> tuple[int, int]:
        """First number and size of the batch to ask for: the half-opened one that a crash left, or a new one."""
        ...

    def open(self, candidates: Sequence[Candidate], cohorts: Sequence[Sequence[int]] | None = None) -> list[Trial]:
        """Opens a whole batch of running trials; `cohorts` are, per candidate, the trials that share its program.

        Raises: InputError if a crash left this batch half open with other candidates.
        """
        ...

    def reach(self, trial: Trial) -> Trial:
        """Stores what a running trial has measured at a rung; returns the trial as stored."""
        ...

    def close(self, trial: Trial) -> Trial:
        """Stores how a trial ended; returns it as stored."""
        ...


@runtime_checkable
class Store(Protocol):
    """Where the trials of a search are stored."""

    def attach(
        self,
        directory: Path,
        space: SearchSpace[Any],
        settings: Mapping[str, Any],
        *,
        objectives: int = 1,
        name: str = "l2l",
        begin: Callable[[], None] = lambda: None,
    ) -> AbstractContextManager[TrialLog]:
        """The trials of the search in `directory`, for one process at a time; a new study if there is none.

        `settings` are what the history depends on, as JSON values by name; `name` tells the studies of one server
        apart. `begin` is called under the lock before a new study is written; what it raises ends the attempt.

        Raises: InputError if another process uses the study, or it was made with other settings; nothing is written.
        """
        ...


class Tracker(Protocol):
    """Watches a search; it can neither change nor stop one."""

    def start(self, info: SearchInfo, finished: Iterable[Trial]) -> None:
        """The search begins, or continues after these finished trials."""
        ...

    def tell(self, trial: Trial, seconds: Mapping[str, float]) -> None:
        """A trial has finished; `seconds` is the search's ledger so far."""
        ...

    def tell_batch(self, batch: Sequence[Trial], summary: Mapping[str, float]) -> None:
        """The searcher has learnt from a batch; after a resume called again from the first batch on."""
        ...

    def finish(self, end: SearchEnd | None) -> None:
        """The search has ended, or was interrupted (None)."""
        ...
