"""Every word of l2l on one page: records and Protocols, nothing else. Imports no jax at run time."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from l2l.space import Candidate, SearchSpace

if TYPE_CHECKING:
    import jax
    import numpy as np
    import optax
    from flax import nnx

Key: TypeAlias = "jax.Array"
"""A typed JAX key (`jax.random.key`): every random decision folds its number and purpose into one."""
ASK = 2**32 - 1
"""What the seed's key is folded with for proposals; trials fold in their own numbers."""
START = 2**32 - 2
"""What the proposals' key is folded with for a searcher's first state, a number that no proposal folds in."""
Array: TypeAlias = "jax.Array"
Split: TypeAlias = Literal["train", "validation", "test"]
State = TypeVar("State")


class Spec(NamedTuple):
    """What a task asks of a model, all that `build` may know of it."""

    inputs: tuple[int, ...]
    """Shape of one raw example: `[H, W, C]` for an image."""
    outputs: int
    """Length C of the logits: the number of classes."""
    examples: int
    """Training examples."""
    epochs: int
    """Passes over them in a full training."""
    tokens: int = 0
    """How many symbols inputs `[L]` are made of, which a model gets as numbers from 0; 0: inputs are measurements."""
    targets: tuple[int, ...] = ()
    """Shape of one example's targets, each of which has logits `[C]`: `[L]` where every token has one."""

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Spec:
        """The one that a file says: numbers, and lists for shapes. Raises: KeyError or TypeError if it does not."""
        found = cls(**{name: record[name] for name in cls._fields})
        return found._replace(inputs=tuple(found.inputs), targets=tuple(found.targets))

    def steps(self, batch_size: Any) -> Any:
        """Optimiser steps T of a full training; an incomplete last batch is dropped."""
        return self.epochs * (self.examples // batch_size)


class Learner(NamedTuple):
    """What a candidate builds: a model and the recipe that trains it."""

    model: Callable[[nnx.Rngs], nnx.Module]
    """Makes the untrained model; it maps normalised inputs `[B, *inputs]` to logits `[B, *targets, C]`."""
    optimizer: optax.GradientTransformation
    batch_size: Any = 64
    """Examples of a step: a whole number, or traced if there is a `microbatch`."""
    label_smoothing: Any = 0.0
    microbatch: int | None = None
    """Examples of a gradient, of which a step averages `batch_size / microbatch`; None: one gradient a step."""


class Task(Protocol):
    """Data, loss and metric."""

    @property
    def name(self) -> str:
        """A short name, for folders and reports."""
        ...

    @property
    def metric(self) -> str:
        """The score that candidates are held to, a key of `score`."""
        ...

    @property
    def maximise(self) -> bool:
        """Whether more of it is better."""
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
        """Whether inputs are centred and scaled by the training split's statistics."""
        ...

    @property
    def symbols(self) -> Sequence[int]:
        """What inputs are made of, ascending, where they are text; empty where they are measurements."""
        ...

    def check(self) -> None:
        """Refuses missing or damaged data before anything is written. Raises: InputError."""
        ...

    def load(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Raw inputs `[N, *inputs]` and targets `[N, *targets]` of one split; the same arrays at every call."""
        ...

    def loss(self, logits: Array, targets: Array, label_smoothing: Any) -> Array:
        """Training loss per example: logits `[B, *targets, C]`, targets `[B, *targets]`, result `[B]`."""
        ...

    def score(self, logits: Array, targets: Array) -> Mapping[str, Array]:
        """Metrics per example, each `[B]`; their means over a split are what is reported."""
        ...


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
    """The ledger's share: trace, compile, train, evaluate."""
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
    """Numbers of the trials that were to share its compiled program; a re-run keeps the program's shape.

    Fewer than it was opened with once it has ended, if only fewer lanes did fit."""
    status: Status = Status.RUNNING
    outcome: Outcome | None = None
    """Of a running trial: what it had measured at its last rung."""
    reward: tuple[float, ...] | None = None
    """One number per objective, larger is better: of a complete trial, or of a pruned one at its last rung."""
    scores: Mapping[int, tuple[float, ...]] = field(default_factory=dict[int, tuple[float, ...]])
    """The reward after each epoch, counted from 1, as far as the trial has passed."""
    until: int | None = None
    """The epoch to train up to; None: to the end. It is the objective's to heed and nobody's to store."""


class Run(NamedTuple):
    """What a tracker is told of a search when it starts."""

    name: str
    group: str
    directory: Path
    config: Mapping[str, Any]
    space: SearchSpace[Any]
    trials: int
    metric: str


class Searcher(Protocol[State]):
    """Proposes candidates and learns from their rewards; its state is a value."""

    def init(self, space: SearchSpace[Any], key: Key) -> State:
        """The state before any trial."""
        ...

    def ask(self, state: State, key: Key, count: int) -> Sequence[Candidate]:
        """`count` candidates; never learns, so equal arguments give equal candidates."""
        ...

    def tell(self, state: State, trials: Sequence[Trial]) -> State:
        """The state after one whole batch, in trial order, failed trials included; the only way to learn."""
        ...

    def summary(self, state: State) -> Mapping[str, float]:
        """The figures worth a curve (mean reward, baseline, entropy); may be empty."""
        ...


class Objective(Protocol):
    """Runs trials; takes several at once, so that it can train them as lanes of one program.

    One that does may have a method `program(candidate)`, which names the program that a candidate runs in: trials of
    one batch and name are a cohort. Without it those are that agree in every static value. An attribute `lanes` (None:
    as the device has it) says how many of a cohort run in one call; without it a cohort goes to one worker whole.
    """

    def check(self) -> Collection[str] | None:
        """Refuses a space that cannot be run, before anything is written; the metrics of an outcome, where known.

        Raises: InputError.
        """
        ...

    def __call__(self, trials: Sequence[Trial]) -> Iterator[Trial]:
        """The trials with their outcomes, cohort by cohort in the order given."""
        ...


class Staged(Objective, Protocol):
    """An objective that heeds `Trial.until`: it stops after that epoch, and goes on from there when called again."""

    @property
    def total(self) -> int:
        """Epochs of a full training."""
        ...

    def within(self, folder: Path) -> Staged:
        """The same objective, which keeps in `folder` where its trials stand; what is lost there only costs time."""
        ...

    def retain(self, numbers: Collection[int]) -> None:
        """Forgets where every trial but these stands."""
        ...


class Rungs(Protocol):
    """Says which candidates are worth training on; nothing but scores and numbers decide, never the clock."""

    def check(self, total: int, objectives: int, batch: int) -> None:
        """Refuses a training of `total` epochs, so long a reward or so many trials at once. Raises: InputError."""
        ...

    def borders(self, number: int, total: int) -> Sequence[int]:
        """The epochs, ascending and below `total`, after which a trial is held against others."""
        ...

    def keep(self, rung: int, batch: Sequence[Trial], earlier: Sequence[Trial]) -> Collection[int]:
        """The numbers of those of `batch`, which is not empty, that train on after epoch `rung`.

        All trials given have a score there and as many borders before it, so they are of one bracket; `earlier`
        are those of the batches before, in number order.
        """
        ...


class Executor(Protocol):
    """Runs an objective somewhere."""

    @property
    def workers(self) -> int | None:
        """How many cohorts run at a time (None: one)."""
        ...

    @property
    def in_process(self) -> bool:
        """Whether trials run in the driver's process, which then needs the accelerators."""
        ...

    def check(self, objective: Objective) -> None:
        """Refuses an objective that cannot be taken where trials run. Raises: InputError."""
        ...

    def start(self, directory: Path) -> None:
        """The search begins; what is printed while trials run goes to `directory / "log.txt"`."""
        ...

    def run(self, objective: Objective, trials: Sequence[Trial]) -> Iterator[Trial]:
        """Every trial exactly once with its outcome, as they finish; a crash is an outcome."""
        ...

    def close(self) -> None:
        """Ends what was started."""
        ...


class Reward(Protocol):
    """Turns an outcome into what the searcher maximises."""

    @property
    def length(self) -> int:
        """How many objectives there are."""
        ...

    def __call__(self, outcome: Outcome) -> tuple[float, ...]:
        """One number per objective, larger is better."""
        ...


class Tracker(Protocol):
    """Watches a search; what it does can neither change nor stop one."""

    def start(self, run: Run, finished: Iterable[Trial]) -> None:
        """The search begins, or goes on after these finished trials."""
        ...

    def tell(self, trial: Trial, seconds: Mapping[str, float]) -> None:
        """A trial has finished; `seconds` is the search's ledger so far."""
        ...

    def learned(self, batch: Sequence[Trial], summary: Mapping[str, float]) -> None:
        """The searcher has learnt from a batch (told again, from the first batch on, after a resume)."""
        ...

    def finish(self, result: Mapping[str, Any] | None) -> None:
        """The search has ended with this `result.json`, or was interrupted (None)."""
        ...
