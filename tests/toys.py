"""Not a test: objectives that run no model, and parts that break a promise; tests import or configure them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from l2l.searchers.controllers.controller import Controller
from l2l.searchers.core.base import ArraySearcherState
from l2l.space import SearchSpace
from l2l.store.log import StudyLog
from l2l.store.optuna_store import OptunaStore
from l2l.types import Outcome, Trial


@dataclass
class Hashed:
    """A reward that is a hash of the seed, the number and the candidate; `rounds` says how much work it takes."""

    space: SearchSpace[Any]
    task: Any
    seed: int = 0
    rounds: int = 100_000

    def check(self) -> None:
        """Every space can be hashed."""

    def __call__(self, trials: Sequence[Trial]) -> Iterator[Trial]:
        """The trials, one by one."""
        for trial in trials:
            yield replace(trial, outcome=self.outcome(trial))

    def outcome(self, trial: Trial) -> Outcome:
        """What a trial measures."""
        started = time.perf_counter()
        name = f"{self.seed} {trial.number}".encode()
        digest = hashlib.pbkdf2_hmac("sha256", name, trial.candidate.key.encode(), self.rounds)
        accuracy = int.from_bytes(digest[:6]) / 2**48
        return Outcome({"accuracy": accuracy}, {"train": time.perf_counter() - started}, {"accuracy": [accuracy]})


@dataclass
class Failing(Hashed):
    """Fails every trial, every third one for another reason."""

    def outcome(self, trial: Trial) -> Outcome:
        """Why it failed."""
        return Outcome({"accuracy": 1.0}, error="out of luck" if trial.number % 3 else f"odd thing {trial.number}")


@dataclass
class Curved(Hashed):
    """Has a learning curve and stops at the epoch asked for; every fifth trial crashes, and every seventh diverges."""

    epochs: int = 5

    @property
    def total_epochs(self) -> int:
        """Epochs of a full training."""
        return self.epochs

    def with_checkpoints(self, folder: Path) -> Curved:
        """It stores nothing."""
        return self

    def retain(self, numbers: Collection[int]) -> None:
        """It has stored nothing that could be removed."""

    def outcome(self, trial: Trial) -> Outcome:
        """What a trial measures up to its epoch."""
        until = trial.stop_epoch or self.epochs
        if until > 1 and trial.number % 5 == 3:
            return Outcome(error="crashed: this one does")
        last = super().outcome(trial)
        # Some begin well and end badly.
        rise = (last.metrics["accuracy"] * 1e6) % 1
        curve = [last.metrics["accuracy"] + rise * epoch for epoch in range(until)]
        error = "diverged: at step 7" if until > 1 and trial.number % 7 == 4 else None
        return replace(last, metrics={"accuracy": curve[-1]}, curve={"accuracy": curve}, error=error)


_ASKED: list[bool] = []


@dataclass(frozen=True)
class Forgetful(Controller):
    """A controller without replay: it ignores the trials that it is told before its process has asked anything."""

    def ask(self, state: ArraySearcherState, key: Any, count: int) -> Any:
        """Asks as usual, and notes that it has been asked."""
        _ASKED.append(True)
        return super().ask(state, key, count)

    def tell(self, state: ArraySearcherState, trials: Sequence[Trial]) -> ArraySearcherState:
        """The state as it was, in a replay."""
        return super().tell(state, trials) if _ASKED else state


@dataclass(frozen=True)
class Careless(OptunaStore):
    """A store that never says what is running."""

    @contextmanager
    def attach(self, *arguments: Any, **named: Any) -> Generator[StudyLog]:
        """The log of a careless store."""
        with super().attach(*arguments, **named) as log:
            log.list_running = list
            yield log
