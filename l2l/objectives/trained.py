"""The objective that trains: cohorts as lanes of compiled programs, compiled in one thread while others train."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np

from l2l.engine.bucket import make_exact_bucket, make_shared_bucket
from l2l.engine.checkpoint import Checkpoints, DamagedCheckpoint, flatten_state
from l2l.engine.cohort import Cohort, group_cohorts, halve_lanes, halve_trials, plan_calls
from l2l.engine.data import load_data, make_spec
from l2l.engine.fit import Fit
from l2l.engine.latency import measure_latency
from l2l.engine.limits import Limits
from l2l.engine.population import FULL_TRAINING, Population, TrainingPart
from l2l.engine.program_cache import name_program
from l2l.engine.scheduler import run_in_order
from l2l.engine.size_levels import HORIZON, ProgramPlan, plan_programs
from l2l.engine.trace_files import TraceFiles
from l2l.errors import InputError, check_integer, suggest_names
from l2l.machine import LANES, cores, has_accelerator
from l2l.objectives.space_check import NEEDS_PLAIN_VALUES, check_space, list_metrics
from l2l.reward import COSTS
from l2l.space import Candidate, SearchSpace
from l2l.store.fingerprint import describe_built_in
from l2l.types import Key, Learner, Outcome, Task, Trial

log = logging.getLogger("l2l")

Member: TypeAlias = tuple[Candidate, Key]
"""A candidate and the key of its run."""
Fits: TypeAlias = tuple[list[Fit], dict[str, float]]
"""The result of one program's call: a fit for each member, in its true shape, and the seconds they took together."""


@dataclass
class Trained:
    """Trains each candidate on the task's training split and scores it on the validation split.

    `epochs` is the length of a training (None: the task's). `lanes` is the most candidates that train in one call of a
    program (None: one on a CPU, where every core runs its own call). A candidate that exceeds one of the `limits` or
    the machine's memory is refused before anything is allocated, and fails. A cohort that runs out of memory runs
    again with half the lanes, which its trials' `cohort` then says. `costs` are further metrics, of `COSTS`: they are
    counted from the model in its true shape, but for the latency, which is measured with `latency_batch` examples at
    once, whatever else the machine does at the time.

    Raises: InputError if `epochs`, `lanes` or `latency_batch` is not at least 1, `limits` are invalid, or a cost is
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
    _trials: int = field(default=HORIZON, init=False, repr=False, compare=False)
    _plan: ProgramPlan | None = field(default=None, init=False, repr=False, compare=False)
    _checkpoints: Checkpoints | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_integer("objective.epochs", self.epochs, 1, optional=True)
        check_integer("objective.lanes", self.lanes, 1, optional=True)
        check_integer("objective.latency_batch", self.latency_batch, 1)
        self.limits = Limits.read(self.limits)
        is_list = isinstance(self.costs, Sequence) and not isinstance(self.costs, str)
        for name in self.costs if is_list else [self.costs]:
            if name not in COSTS:
                raise InputError(f"objective.costs: {name!r} is unknown: {suggest_names(str(name), COSTS)}")

    def __getstate__(self) -> dict[str, Any]:
        # Programs and device arrays stay in the process that made them.
        return {**self.__dict__, "_population": None}

    def check(self) -> Collection[str]:
        """Builds a few candidates that cover every option; the names of an outcome's metrics.

        Raises: InputError if one of them cannot be trained.
        """
        spec = make_spec(self.task, load_data(self.task), self.epochs)
        check_space(self.space, self.task, spec)
        return {*list_metrics(self.space, self.task, spec), *self.costs}

    @property
    def total_epochs(self) -> int:
        """Epochs of a full training."""
        return self.epochs or self.task.epochs

    def with_checkpoints(self, folder: Path) -> Trained:
        """The same objective; it saves in `folder` the trials that stop at a rung, and they go on from there."""
        copy = replace(self)
        copy._trials, copy._plan, copy._population = self._trials, self._plan, self._population
        copy._checkpoints = Checkpoints(folder)
        return copy

    def plan(self, trials: int) -> None:
        """Says for how many trials the search was begun: the more there are, the more programs pay."""
        self._trials, self._plan, self._population = trials, None, None

    def retain(self, numbers: Collection[int]) -> None:
        """Deletes the checkpoints of all other trials."""
        if self._checkpoints is not None:
            self._checkpoints.retain(numbers)

    @property
    def population(self) -> Population:
        """The data and the programs of this process."""
        if self._population is None:
            self._population = Population(
                self.space, self.task, self.epochs, self.limits, self.program_plan, self._identity
            )
        return self._population

    @property
    def program_plan(self) -> ProgramPlan:
        """What the programs of the search have in common: chosen once, by the driver, and sent along to the workers."""
        if self._plan is None:
            spec = make_spec(self.task, load_data(self.task), self.epochs)
            self._plan = TraceFiles.of(self._identity).remember(
                lambda: plan_programs(self.space, spec, self._trials), "plan", has_accelerator(), spec, self._trials
            )
        return self._plan

    @property
    def _identity(self) -> dict[str, Any] | None:
        """What says which space and task these are; None if one is the user's own."""
        return describe_built_in(self.space, self.task)

    def name_bucket(self, candidate: Candidate) -> str:
        """The name of the candidate's bucket; candidates with the same name can be lanes of one program."""
        return make_shared_bucket(self.space, candidate, self.program_plan.levels).name

    def key(self, number: int) -> Key:
        """The trial's key: a function of the seed and the number alone."""
        return jax.random.fold_in(jax.random.key(self.seed), number)

    def __call__(self, trials: Sequence[Trial]) -> Iterator[Trial]:
        """The trials with their outcomes, cohort by cohort in the order of the trials."""
        last_epoch = self._checkpoints.find_last_epoch if self._checkpoints else lambda _: 0
        calls = plan_calls(group_cohorts(trials, self.max_lanes), self._name_program, last_epoch)
        for results in run_in_order(
            calls,
            self._run_cohort,
            lambda cohort: self._name_program(cohort.trials[0], cohort.lanes),
            self.population.programs.has,
            count_threads(),
        ):
            yield from results

    @property
    def max_lanes(self) -> int:
        """The most lanes of a program: on a CPU one, because each core runs a program of its own."""
        return self.lanes or (1 if jax.default_backend() == "cpu" else LANES * jax.local_device_count())

    def fit(self, members: Sequence[Member], lanes: int, part: TrainingPart = FULL_TRAINING) -> Iterator[Fits]:
        """Trains candidates of one bucket: fits and seconds, program by program.

        Raises: MemoryError if there is no room for so many lanes. DamagedCheckpoint if a state to go on from does not
            fit its program.
        """
        population = self.population
        if len({population.bucket(candidate).name for candidate, _ in members}) > 1:
            # There is no room for the padding: each candidate gets a program of its true shape.
            for index, member in enumerate(members):
                yield from self.fit([member], lanes, part.select(index))
            return
        try:
            yield population.train(members, population.bucket(members[0][0]), lanes, part)
        except NEEDS_PLAIN_VALUES:
            # The model needs its values as plain numbers: each candidate gets a program of its own.
            for index, member in enumerate(members):
                yield population.train([member], make_exact_bucket(member[0]), 1, part.select(index))

    def make_outcome(self, fit: Fit, seconds: dict[str, float]) -> Outcome:
        """The outcome of a fit; `seconds` are the trial's share of its program's."""
        count = self.population.validation_examples
        summed_metrics = self.population.summed_metrics
        curve = {
            name: [float(value) / (count if name in summed_metrics else 1) for value in values]
            for name, values in fit.curve.items()
        }
        metrics = {name: values[-1] for name, values in curve.items()}
        metrics["parameters"] = float(sum(np.size(leaf) for leaf in jax.tree.leaves(fit.params)))
        error = None
        if int(fit.diverged):
            error = f"diverged: the loss was not finite at step {int(fit.diverged)}"
        elif not all(np.isfinite(value) for value in metrics.values()):
            wrong = next(name for name, value in metrics.items() if not np.isfinite(value))
            error = f"diverged: the {wrong} was not finite after the last step"
        return Outcome(metrics=metrics, seconds=seconds, curve=curve, error=error)

    def _run_cohort(self, cohort: Cohort) -> list[Trial]:
        """The cohort's trials with their outcomes.

        After an error the remaining trials run again in smaller cohorts, until the trial that fails is alone.
        """
        cohort, refused = self._refuse(cohort)
        results, next_cohorts = list[Trial](), list[Cohort]()
        try:
            for trial in self._train(cohort):
                results.append(trial)
        except DamagedCheckpoint as error:
            log.warning("%s; it is trained from its start again", error)
            next_cohorts = [cohort.select(index, index + 1) for index in range(len(results), len(cohort.trials))]
            if len(next_cohorts) == 1:
                next_cohorts = [next_cohorts[0]._replace(begin=0)]
        except Exception as error:
            remaining = cohort.select(len(results), len(cohort.trials))
            log.exception("trials %s crashed", [trial.number for trial in remaining.trials])
            next_cohorts = (halve_lanes(remaining) if _is_out_of_memory(error) else []) or halve_trials(remaining)
            if not next_cohorts:
                results.append(replace(remaining.trials[0], outcome=Outcome(error=explain_error(error))))
        for next_cohort in next_cohorts:  # after the `except` block, which frees what the error refers to
            results += self._run_cohort(next_cohort)
        return sorted(refused + results, key=lambda trial: trial.number)

    def _refuse(self, cohort: Cohort) -> tuple[Cohort, list[Trial]]:
        """The cohort without the trials that must not begin, and these with the reason as their outcome."""
        accepted, refused = list[int](), list[Trial]()
        for index, trial in enumerate(cohort.trials):
            if (reason := self.population.refusal(trial.candidate)) is None:
                accepted.append(index)
            else:
                refused.append(replace(trial, outcome=Outcome(error=f"refused: {reason}")))
        trials, companions = [cohort.trials[n] for n in accepted], [cohort.companions[n] for n in accepted]
        return Cohort(trials, companions, cohort.begin), refused

    def _train(self, cohort: Cohort) -> Iterator[Trial]:
        """The cohort's trials with their outcomes, in order; saves those that stop at a rung.

        Raises: whatever training raises; the trials before have been given.
        """
        if not cohort.trials:
            return
        members = [(trial.candidate, self.key(trial.number)) for trial in cohort.trials]
        trials = iter(cohort.trials)
        for fits, seconds in self.fit(members, cohort.lanes, self._load_part(cohort)):
            shares = {name: value / len(fits) for name, value in seconds.items()}
            for fit in fits:
                trial = next(trials)
                self._save(trial, cohort.lanes, fit)
                yield replace(trial, outcome=self._add_costs(trial.candidate, self.make_outcome(fit, shares)))

    def _load_part(self, cohort: Cohort) -> TrainingPart:
        """The part of its training that a cohort runs. Raises: DamagedCheckpoint if a state to go on from is lost."""
        stop_epoch, checkpoints = cohort.trials[0].stop_epoch, self._checkpoints
        if checkpoints is None or not cohort.begin:
            return TrainingPart(end=stop_epoch)
        states = [
            checkpoints.load(trial.number, cohort.begin, self._name_checkpoint(trial, cohort.lanes))
            for trial in cohort.trials
        ]
        return TrainingPart(cohort.begin, stop_epoch, states)

    def _save(self, trial: Trial, lanes: int, fit: Fit) -> None:
        if fit.state is not None and self._checkpoints is not None and trial.stop_epoch is not None:
            name = self._name_checkpoint(trial, lanes)
            self._checkpoints.save(trial.number, trial.stop_epoch, name, flatten_state(fit.state))

    def _name_checkpoint(self, trial: Trial, lanes: int) -> str:
        """Which training a checkpoint belongs to."""
        return json.dumps([self.seed, self.total_epochs, trial.candidate.key, self._name_program(trial, lanes)])

    def _name_program(self, trial: Trial, lanes: int) -> str:
        return name_program(self.population.bucket(trial.candidate), lanes)

    def _add_costs(self, candidate: Candidate, outcome: Outcome) -> Outcome:
        """The outcome with the candidate's costs among its metrics."""
        if not self.costs or outcome.error is not None:
            return outcome
        population = self.population
        costs: dict[str, float] = {}
        if (cost := population.capacity.measure(candidate.values)) is not None:
            costs |= cost._asdict()
        if "latency" in self.costs:
            model, _ = population.build_module(candidate, make_exact_bucket(candidate), self.key(0))
            costs["latency"] = measure_latency(model, self.task, self.latency_batch)
        requested = {name: costs[name] for name in self.costs if name in costs}
        return replace(outcome, metrics={**outcome.metrics, **requested})


def count_threads() -> int:
    """How many cohorts train at a time: on a CPU one per core."""
    if jax.default_backend() != "cpu":
        return 2
    return int(os.environ.get("NPROC", cores()))


def explain_error(error: BaseException) -> str:
    """Why a trial failed, in one sentence."""
    lines = str(error).strip().splitlines()
    first = lines[0] if lines else ""
    if _is_out_of_memory(error):
        return f"out of memory: {first}"
    if isinstance(error, InputError):
        return f"refused: {first}"
    return f"crashed: {type(error).__name__}: {first}"


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(
        words in str(error) for words in ("RESOURCE_EXHAUSTED", "OUT_OF_MEMORY")
    )
