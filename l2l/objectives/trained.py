"""The objective that trains: cohorts as lanes of compiled programs, compiled on one thread while others train."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np

from l2l.engine.bucket import Ladders, assemble, bucket, exact, numbers, padded_sizes
from l2l.engine.checkpoint import Checkpoints, Damaged
from l2l.engine.cohort import Cohort, apart, calls, cohorts, halves
from l2l.engine.data import load, specify
from l2l.engine.evaluate import metrics
from l2l.engine.fit import Fitted, streams
from l2l.engine.latency import latency
from l2l.engine.limits import Limits
from l2l.engine.population import WHOLE, Population, Stage, bare, title
from l2l.engine.scheduler import in_order
from l2l.engine.size_levels import ladders
from l2l.errors import InputError, suggest_names
from l2l.machine import LANES, cores
from l2l.nn.moe import measures
from l2l.reward import COSTS
from l2l.space import Candidate, SearchSpace
from l2l.types import Key, Learner, Outcome, Spec, Task, Trial

log = logging.getLogger("l2l")

Member: TypeAlias = tuple[Candidate, Key]
"""A candidate and the key of its run."""
Trainings: TypeAlias = tuple[list[Fitted], dict[str, float]]
"""What one program did: a fit for each member, in its true shape, and the seconds."""
NEEDS_ITS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
"""What is raised where a model treats a traced value as a plain number."""


@dataclass
class Trained:
    """Trains each candidate on the task's training split and scores it on the validation split.

    `epochs` is the length of a training (the task's own by default), `lanes` the most candidates that train
    in one call of a program (by default one on a CPU, where each core takes one). A candidate beyond one of
    the `limits`, or beyond the machine's memory, is refused before anything of it is allocated, and fails.
    A cohort that runs out of memory is run again in half the lanes, which its trials' `cohort` then says. `costs` are
    further metrics, of `COSTS`: what is counted of the model in its true shape, and its latency, which is measured
    with `latency_batch` examples at once, beside whatever else the machine does.

    Raises: InputError if `epochs`, `lanes` or `latency_batch` is not at least 1, `limits` are none, or a cost is
        unknown.
    """

    space: SearchSpace[Learner]
    task: Task
    seed: int = 0
    epochs: int | None = None
    lanes: int | None = None
    limits: Limits = field(default_factory=Limits)
    costs: Sequence[str] = ()
    latency_batch: int = 1
    _population: Population | None = field(default=None, init=False, repr=False, compare=False)
    _ladders: Ladders | None = field(default=None, init=False, repr=False, compare=False)
    _kept: Checkpoints | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("epochs", "lanes", "latency_batch"):
            value = getattr(self, name)
            if (value is not None or name == "latency_batch") and (type(value) is not int or value < 1):
                raise InputError(f"objective.{name} must be a whole number of at least 1, got {value!r}.")
        self.limits = Limits.read(self.limits)
        for name in (
            self.costs if isinstance(self.costs, Sequence) and not isinstance(self.costs, str) else [self.costs]
        ):
            if name not in COSTS:
                raise InputError(f"objective.costs: {name!r} is unknown: {suggest_names(str(name), COSTS)}")

    def __getstate__(self) -> dict[str, Any]:
        # Programs and device arrays stay in the process that made them.
        return {**self.__dict__, "_population": None}

    def check(self) -> Collection[str]:
        """Builds a few candidates that cover every option; the metrics of an outcome.

        Raises: InputError if one of them cannot be trained.
        """
        spec = specify(self.task, load(self.task), self.epochs)
        for candidate in self.space.cover():
            try:
                learner = self.space.build(candidate.values, spec)
                size = learner.batch_size
            except InputError:
                raise
            except Exception as error:
                raise InputError(
                    f"space {self.space.name!r} cannot build the candidate {dict(candidate.values)}: "
                    f"{type(error).__name__}: {error}"
                ) from error
            if (micro := learner.microbatch) is not None:
                size = int(size)
                if type(micro) is not int or micro < 1 or size % micro:
                    raise InputError(
                        f"space {self.space.name!r}: a batch_size of {size} is no multiple of the microbatch "
                        f"{micro!r}; both are whole numbers, and a batch is made of whole microbatches."
                    )
            if type(size) is not int:
                raise InputError(
                    f"space {self.space.name!r}: a batch_size is a whole number and never traced, got {size!r}; "
                    "take it from a Categorical or an Integer."
                )
            if not 1 <= size <= spec.examples:
                raise InputError(
                    f"a batch_size of {size} cannot be taken from the {spec.examples} examples of the training split "
                    f"of {self.task.name!r}; leave it out of the space."
                )
        y = self.task.load("validation")[1][:1]
        return {*metrics(self.task, y), *self._measured(spec), "train_loss", "parameters", *self.costs}

    def _measured(self, spec: Spec) -> set[str]:
        """What models of the space measure while they train."""
        widest = {pad: sizes[-1:] for pad, sizes in padded_sizes(self.space).items()}
        programs = {
            held.name: (held, each) for each in self.space.cover() for held in [bucket(self.space, each, widest)]
        }
        found = set[str]()

        def measured(values: Mapping[str, Any]) -> dict[str, jax.Array]:
            return measures(self.space.build(values, spec).model(streams(jax.random.key(0))))

        for held, candidate in programs.values():
            data = dict(numbers(self.space, candidate, held))
            with suppress(Exception):  # what crashes here is said of the trial that it crashes in
                try:
                    found |= jax.eval_shape(
                        lambda data, held=held: measured(assemble(self.space, held, data)), data
                    ).keys()
                except NEEDS_ITS_VALUES:
                    found |= jax.eval_shape(lambda candidate=candidate: measured(candidate.values)).keys()
        return found

    @property
    def total(self) -> int:
        """Epochs of a full training."""
        return self.epochs or self.task.epochs

    def within(self, folder: Path) -> Trained:
        """The same objective; trials that stop at a rung are kept in `folder` and go on from there."""
        made = replace(self)
        made._population, made._ladders, made._kept = self._population, self._ladders, Checkpoints(folder)
        return made

    def retain(self, numbers: Collection[int]) -> None:
        """Forgets where every other trial stands."""
        if self._kept is not None:
            self._kept.retain(numbers)

    @property
    def population(self) -> Population:
        """The data and the programs of this process."""
        if self._population is None:
            self._population = Population(self.space, self.task, self.epochs, self.limits, self._ladders)
        return self._population

    def program(self, candidate: Candidate) -> str:
        """The name of the candidate's bucket; those of one name can be lanes of one program."""
        if self._ladders is None:  # found once, by the driver, and taken along to wherever trials run
            self._ladders = ladders(self.space, specify(self.task, load(self.task), self.epochs))
        return bucket(self.space, candidate, self._ladders).name

    def key(self, number: int) -> Key:
        """The trial's key: a function of the seed and the number alone."""
        return jax.random.fold_in(jax.random.key(self.seed), number)

    def __call__(self, trials: Sequence[Trial]) -> Iterator[Trial]:
        """The trials with their outcomes, cohort by cohort in the order given."""
        population = self.population
        work = calls(cohorts(trials, self.width), self._program, self._kept.epoch if self._kept else lambda _: 0)
        for ended in in_order(
            work,
            self._run,
            lambda cohort: self._program(cohort.trials[0], cohort.lanes),
            population.ready,
            threads(),
        ):
            yield from ended

    @property
    def width(self) -> int:
        """The most lanes of a program: on a CPU a core is busy with one."""
        return self.lanes or (1 if jax.default_backend() == "cpu" else LANES * jax.local_device_count())

    def fit(self, members: Sequence[Member], lanes: int, stage: Stage = WHOLE) -> Iterator[Trainings]:
        """Trains candidates of one bucket: fits and seconds, program by program.

        Raises: MemoryError if there is no room for so many lanes. Damaged if a state to go on from is no such.
        """
        population = self.population
        if len({population.bucket(candidate).name for candidate, _ in members}) > 1:
            # There is no room for the padding: each in the program of its true shape.
            for place, member in enumerate(members):
                yield from self.fit([member], lanes, stage.only(place))
            return
        try:
            yield population.train(members, population.bucket(members[0][0]), lanes, stage)
        except NEEDS_ITS_VALUES:
            # A model that needs its numbers as plain numbers gets them: one program a candidate.
            for place, member in enumerate(members):
                yield population.train([member], exact(member[0]), 1, stage.only(place))

    def _members(self, trials: Sequence[Trial]) -> list[Member]:
        return [(trial.candidate, self.key(trial.number)) for trial in trials]

    def _program(self, trial: Trial, lanes: int) -> str:
        return title(self.population.bucket(trial.candidate), lanes)

    def _stage(self, cohort: Cohort) -> Stage:
        """What a cohort is to train. Raises: Damaged if a state that it goes on from is lost."""
        until, kept = cohort.trials[0].until, self._kept
        if kept is None or not cohort.begin:
            return Stage(end=until)
        lanes = cohort.lanes
        states = [kept.load(each.number, cohort.begin, self._identity(each, lanes)) for each in cohort.trials]
        return Stage(cohort.begin, until, states)

    def _identity(self, trial: Trial, lanes: int) -> str:
        """What a state belongs to."""
        return json.dumps([self.seed, self.total, trial.candidate.key, self._program(trial, lanes)])

    def _keep(self, trial: Trial, lanes: int, fitted: Fitted) -> None:
        if fitted.state is not None and self._kept is not None and trial.until is not None:
            self._kept.save(trial.number, trial.until, self._identity(trial, lanes), bare(fitted.state))

    def _run(self, cohort: Cohort) -> list[Trial]:
        """The cohort's trials with their outcomes; only one that fails alone has failed."""
        ended, parts, going = list[Trial](), list[Cohort](), list[int]()
        for place, trial in enumerate(cohort.trials):
            if (why := self.population.refusal(trial.candidate)) is None:
                going.append(place)
            else:
                ended.append(replace(trial, outcome=Outcome(error=f"refused: {why}")))
        left = Cohort([cohort.trials[n] for n in going], [cohort.shared[n] for n in going], cohort.begin)
        done = 0
        try:
            for fits, seconds in self.fit(self._members(left.trials), left.lanes, self._stage(left)) if going else ():
                shares = {name: value / len(fits) for name, value in seconds.items()}
                for trial, fitted in zip(left.trials[done:], fits, strict=False):
                    self._keep(trial, left.lanes, fitted)
                    ended.append(replace(trial, outcome=self._costed(trial.candidate, self.outcome(fitted, shares))))
                    done += 1
        except Damaged as lost:
            log.warning("%s; it is trained from its start again", lost)
            owed = [left.part(n, n + 1) for n in range(done, len(going))]
            parts = owed if len(owed) > 1 else [owed[0]._replace(begin=0)]
        except Exception as error:
            owed = left.part(done, len(going))
            log.exception("trials %s crashed", [trial.number for trial in owed.trials])
            parts = (halves(owed) if _out_of_memory(error) else []) or apart(owed)
            if not parts:
                ended.append(replace(owed.trials[0], outcome=Outcome(error=reason(error))))
        for part in parts:  # here, where what the error held on to is free again
            ended += self._run(part)
        return sorted(ended, key=lambda trial: trial.number)

    def outcome(self, lane: Fitted, seconds: dict[str, float]) -> Outcome:
        """What a lane measured; the seconds of a program are shared evenly by its trials."""
        count = self.population.validation
        sums = self.population.scores
        curve = {
            name: [float(value) / (count if name in sums else 1) for value in values]
            for name, values in lane.curve.items()
        }
        found = {name: values[-1] for name, values in curve.items()}
        found["parameters"] = float(sum(np.size(leaf) for leaf in jax.tree.leaves(lane.params)))
        error = None
        if int(lane.diverged):
            error = f"diverged: the loss was not finite at step {int(lane.diverged)}"
        elif not all(np.isfinite(value) for value in found.values()):
            wrong = next(name for name, value in found.items() if not np.isfinite(value))
            error = f"diverged: the {wrong} was not finite after the last step"
        return Outcome(metrics=found, seconds=seconds, curve=curve, error=error)

    def _costed(self, candidate: Candidate, outcome: Outcome) -> Outcome:
        """The outcome with what the candidate costs."""
        if not self.costs or outcome.error is not None:
            return outcome
        population = self.population
        found: dict[str, float] = {}
        if (size := population.sizes.size(candidate.values)) is not None:
            found |= size._asdict()
        if "latency" in self.costs:
            model = population.module(candidate, exact(candidate), self.key(0))[0]
            found["latency"] = latency(model, self.task, self.latency_batch)
        return replace(
            outcome, metrics={**outcome.metrics, **{name: found[name] for name in self.costs if name in found}}
        )


def threads() -> int:
    """How many cohorts train at a time: one a core, on a CPU."""
    if jax.default_backend() != "cpu":
        return 2
    return int(os.environ.get("NPROC", cores()))


def reason(error: BaseException) -> str:
    """Why a trial failed, in one sentence."""
    text = str(error).strip().splitlines()
    first = text[0] if text else ""
    if _out_of_memory(error):
        return f"out of memory: {first}"
    if isinstance(error, InputError):
        return f"refused: {first}"
    return f"crashed: {type(error).__name__}: {first}"


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(
        words in str(error) for words in ("RESOURCE_EXHAUSTED", "OUT_OF_MEMORY")
    )
