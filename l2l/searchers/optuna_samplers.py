"""Optuna's samplers as searchers: a fresh in-memory study per state, never one that is carried along.

Source: Akiba et al. 2019, Optuna: A Next-generation Hyperparameter Optimization Framework, KDD.
"""

from __future__ import annotations

import abc
import contextlib
import hashlib
import importlib.util
import json
import warnings
from collections import OrderedDict
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, NSGAIISampler, QMCSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from l2l.encoding import unbuilt
from l2l.errors import InputError
from l2l.space import Candidate, Categorical, Choice, Integer, SearchSpace, Value
from l2l.types import Key, Status, Trial


class Told(NamedTuple):
    """A trial as far as a sampler cares."""

    candidate: Candidate
    reward: tuple[float, ...] | None
    """None if it failed."""
    steps: Mapping[int, float] | None = None
    """Of a pruned trial: its score after each epoch."""

    @staticmethod
    def of(trial: Trial) -> Told:
        """What is told of a trial; a pruned one with several scores counts as complete with those of its last rung."""
        # Optuna prunes for one objective alone, and what is left out would be most of a search.
        if trial.status is not Status.PRUNED or trial.reward is None or len(trial.reward) != 1:
            return Told(trial.candidate, trial.reward)
        return Told(trial.candidate, trial.reward, {epoch: score[0] for epoch, score in trial.scores.items()})


class OptunaState(NamedTuple):
    """All that was ever told, batch by batch: Optuna's own state is rebuilt from it."""

    space: SearchSpace[Any]
    seed: int
    batches: tuple[tuple[Told, ...], ...] = ()
    digests: tuple[str, ...] = ()
    """Of what had been told before the first batch, and after each."""

    def objectives(self) -> int:
        """How many numbers a reward has; 1 before any is known."""
        return next((len(told.reward) for batch in self.batches for told in batch if told.reward is not None), 1)


class _Wrapped:
    """What all of Optuna's samplers share: the state, and how it grows."""

    def init(self, space: SearchSpace[Any], key: Key) -> OptunaState:
        """The state before any trial, with the seed of everything random that is to be replayed."""
        seed = _seed(key)
        return OptunaState(unbuilt(space), seed, (), (_digest(json.dumps([space.describe(), seed])),))

    def tell(self, state: OptunaState, trials: Sequence[Trial]) -> OptunaState:
        """The state with one more batch. Raises: InputError if rewards differ in length."""
        batch = tuple(map(Told.of, trials))
        digest = _digest(
            json.dumps([state.digests[-1], *([told.candidate.key, told.reward, told.steps] for told in batch)])
        )
        grown = state._replace(batches=(*state.batches, batch), digests=(*state.digests, digest))
        for told in batch:
            if told.reward is not None and len(told.reward) != grown.objectives():
                raise InputError(
                    f"every reward of a search must have the same length: expected {grown.objectives()}, "
                    f"got {len(told.reward)}."
                )
        return grown

    def summary(self, state: OptunaState) -> Mapping[str, float]:
        """Mean first reward of the last batch; empty before any."""
        values = [told.reward[0] for told in (state.batches or [()])[-1] if told.reward is not None]
        return {"reward": sum(values) / len(values)} if values else {}


@dataclass(frozen=True)
class Tpe(_Wrapped):
    """Tree-structured Parzen estimator over the conditional space; a batch's earlier asks count as bad ones.

    A pruned trial is told with its scores; the sampler ranks it below every complete one, by how far it got. A
    failed one is told as pruned without a score, which ranks below these. With several objectives Optuna has no such
    ranks: a pruned trial counts with its scores as if complete, and failed ones are left out.

    Raises: InputError if a number is out of its range.

    Source: Bergstra et al. 2011, Algorithms for Hyper-Parameter Optimization, NeurIPS.
    """

    startup: int = 10
    """Trials drawn uniformly before the estimator is asked."""
    candidates: int = 24
    """Points drawn from the good trials' density, of which the best is proposed."""
    group: bool = False
    """Whether choices that are active together are modelled together."""

    def __post_init__(self) -> None:
        _at_least(self, "startup", 0)
        _at_least(self, "candidates", 1)

    def ask(self, state: OptunaState, key: Key, count: int) -> list[Candidate]:
        """`count` candidates from a study of all told trials and a sampler seeded by the key."""
        with _quiet():
            sampler = TPESampler(
                n_startup_trials=self.startup, n_ei_candidates=self.candidates, seed=_seed(key),
                multivariate=self.group or None, group=self.group, constant_liar=True,
            )  # fmt: skip
            study = _study(sampler, state.objectives())
            failed = TrialState.PRUNED if state.objectives() == 1 else TrialState.FAIL
            distributions = {name: _distribution(choice) for name, choice in state.space.choices.items()}
            study.add_trials(
                optuna.create_trial(
                    state=TrialState.COMPLETE if told.reward is not None and told.steps is None else failed,
                    params=_params(state.space, told.candidate),
                    distributions={name: distributions[name] for name in told.candidate.values},
                    values=told.reward if told.steps is None else None,
                    intermediate_values=dict(told.steps or {}),
                )
                for batch in state.batches
                for told in batch
            )
            return [_suggest(state.space, study.ask()) for _ in range(count)]


class _Replayed(_Wrapped, abc.ABC):
    """A sampler that keeps its own state in the study: rebuilt by repeating the search's asks and tells.

    All randomness comes from the seed fixed at `init`, hence `ask` does not use its key. A session that
    has just asked is kept for the tell that usually follows, so that a running search never replays.
    """

    @abc.abstractmethod
    def sampler(self, seed: int) -> BaseSampler:
        """Optuna's sampler, as it starts."""

    def tell(self, state: OptunaState, trials: Sequence[Trial]) -> OptunaState:
        """The state with one more batch, pruned trials as complete ones with the reward of their last rung.

        Populations are made of complete trials alone, which under rungs are few. Raises: InputError if rewards differ
        in length.
        """
        ended = [replace(each, scores={}, status=Status.COMPLETE) if each.reward else each for each in trials]
        return super().tell(state, ended)

    def suggest(self, space: SearchSpace[Any], study: optuna.Study) -> tuple[optuna.Trial, Candidate]:
        """One candidate, and the trial that Optuna keeps of it."""
        trial = study.ask()
        return trial, _suggest(space, trial)

    def params(self, space: SearchSpace[Any], candidate: Candidate) -> dict[str, tuple[Any, BaseDistribution]]:
        """A told candidate that was not asked for, as Optuna's parameters."""
        values = _params(space, candidate)
        return {name: (value, _distribution(space.choices[name])) for name, value in values.items()}

    def ask(self, state: OptunaState, key: Key, count: int) -> list[Candidate]:
        """`count` candidates: what the sampler gives after the told trials."""
        with _quiet():
            session = self._catch_up(state)
            session.pending = [self.suggest(state.space, session.study) for _ in range(count)]
        _keep((self, state.objectives(), state.digests[-1]), session)
        return [candidate for _, candidate in session.pending]

    def _catch_up(self, state: OptunaState) -> _Session:
        """A session in which all of `state` is told and nothing is pending."""
        for done in range(len(state.batches) - 1, -1, -1):
            session = _SESSIONS.pop((self, state.objectives(), state.digests[done]), None)
            if session is not None and len(session.pending) == len(state.batches[done]):
                break
        else:
            done, session = 0, _Session(_study(self.sampler(state.seed), state.objectives()))
        for batch in state.batches[done:]:
            pending = session.pending or [self.suggest(state.space, session.study) for _ in batch]
            for (trial, asked), told in zip(pending, batch, strict=True):
                self._tell(state.space, session.study, trial, asked, told)
            session.pending = []
        return session

    def _tell(
        self, space: SearchSpace[Any], study: optuna.Study, trial: optuna.Trial, asked: Candidate, told: Told
    ) -> None:
        if told.reward is None:
            study.tell(trial, state=TrialState.FAIL)
        elif asked != told.candidate:  # The trial comes from elsewhere: the sampler learns of it all the same.
            study.tell(trial, state=TrialState.FAIL)
            params = self.params(space, told.candidate)
            study.add_trial(
                optuna.create_trial(
                    params={name: value for name, (value, _) in params.items()},
                    distributions={name: distribution for name, (_, distribution) in params.items()},
                    values=told.reward,
                )
            )
        else:
            study.tell(trial, list(told.reward))


@dataclass(frozen=True)
class Nsga2(_Replayed):
    """A genetic algorithm for one or several objectives; pruned trials take part with the scores of their last rung.

    Raises: InputError if a number is out of its range.

    Source: Deb et al. 2002, A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, IEEE TEC 6.
    """

    population: int = 20
    crossover: float = 0.9
    """Probability that a child has two parents."""

    def __post_init__(self) -> None:
        _at_least(self, "population", 2)
        if not 0 <= self.crossover <= 1:
            raise InputError(f"Nsga2's crossover must be in [0, 1], got {self.crossover!r}.")

    def sampler(self, seed: int) -> BaseSampler:
        """Optuna's sampler, as it starts."""
        return NSGAIISampler(population_size=self.population, crossover_prob=self.crossover, seed=seed)


class _Cube(_Replayed):
    """A sampler of a fixed cube: every choice has a coordinate in [0, 1], its quantile, active or not.

    Conditions and named options are foreign to these samplers; in the cube they still steer them all.
    """

    def suggest(self, space: SearchSpace[Any], study: optuna.Study) -> tuple[optuna.Trial, Candidate]:
        """One candidate, and the trial that Optuna keeps of its coordinates."""
        trial = study.ask({name: FloatDistribution(0, 1) for name in space.choices})
        return trial, space.complete(lambda name, choice: choice.at(trial.params[name]))

    def params(self, space: SearchSpace[Any], candidate: Candidate) -> dict[str, tuple[Any, BaseDistribution]]:
        """A told candidate's coordinates; an inactive choice stands in the middle."""
        return {
            name: (
                choice.quantile(candidate.values[name]) if name in candidate.values else 0.5,
                FloatDistribution(0, 1),
            )
            for name, choice in space.choices.items()
        }


@dataclass(frozen=True)
class Qmc(_Cube):
    """A scrambled Sobol sequence: learns nothing, but covers the space more evenly than chance.

    Source: Owen 1998, Scrambling Sobol' and Niederreiter-Xing Points, Journal of Complexity 14.
    """

    def sampler(self, seed: int) -> BaseSampler:
        """Optuna's sampler, as it starts."""
        return QMCSampler(scramble=True, seed=seed, warn_independent_sampling=False)


@dataclass(frozen=True)
class CmaEs(_Cube):
    """Covariance matrix adaptation, for one objective and mostly real choices; needs the package cmaes.

    Raises: InputError if cmaes is not installed, or a number is out of its range.

    Source: Hansen 2016, The CMA Evolution Strategy: A Tutorial, arXiv:1604.00772.
    """

    population: int | None = None
    """Candidates per generation; None takes 4 + 3 ln D."""

    def __post_init__(self) -> None:
        if importlib.util.find_spec("cmaes") is None:
            raise InputError("searcher cmaes needs a package that is not installed: pip install 'l2l[cmaes]'")
        if self.population is not None:
            _at_least(self, "population", 2)

    def sampler(self, seed: int) -> BaseSampler:
        """Optuna's sampler, as it starts."""
        return CmaEsSampler(popsize=self.population, seed=seed, warn_independent_sampling=False)

    def tell(self, state: OptunaState, trials: Sequence[Trial]) -> OptunaState:
        """The state with one more batch. Raises: InputError on several objectives."""
        for trial in trials:
            if trial.reward is not None and len(trial.reward) != 1:
                raise InputError(
                    f"CmaEs maximises one number, got a reward of {len(trial.reward)}; use nsga2 or tpe instead."
                )
        return super().tell(state, trials)


@dataclass
class _Session:
    """A study that follows one search."""

    study: optuna.Study
    pending: list[tuple[optuna.Trial, Candidate]] = field(default_factory=list[tuple[optuna.Trial, Candidate]])


_SESSIONS: OrderedDict[tuple[_Replayed, int, str], _Session] = OrderedDict()
"""A cache of the replay, by what had been told when the session asked; nothing depends on it but time."""


def _keep(name: tuple[_Replayed, int, str], session: _Session) -> None:
    _SESSIONS[name] = session
    while len(_SESSIONS) > 8:
        _SESSIONS.popitem(last=False)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Optuna without its log lines and its remarks on experimental features."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _study(sampler: BaseSampler, objectives: int) -> optuna.Study:
    return optuna.create_study(sampler=sampler, directions=[StudyDirection.MAXIMIZE] * objectives)


def _distribution(choice: Choice) -> BaseDistribution:
    if isinstance(choice, Categorical):
        # Positions, not options: Optuna takes True for 1.
        return CategoricalDistribution(range(len(choice.options)))
    if isinstance(choice, Integer):
        return IntDistribution(choice.low, choice.high, log=choice.log, step=choice.step)
    return FloatDistribution(choice.low, choice.high, log=choice.log)


def _params(space: SearchSpace[Any], candidate: Candidate) -> dict[str, Any]:
    """A candidate's values as Optuna's parameters."""

    def param(choice: Choice, value: Value) -> Any:
        return int(choice.quantile(value) * len(choice.options)) if isinstance(choice, Categorical) else value

    return {name: param(space.choices[name], value) for name, value in candidate.values.items()}


def _suggest(space: SearchSpace[Any], trial: optuna.Trial) -> Candidate:
    """A candidate by define-by-run: only the active choices are asked for."""

    def pick(name: str, choice: Choice) -> Value:
        if isinstance(choice, Categorical):
            return choice.options[trial.suggest_categorical(name, range(len(choice.options)))]
        if isinstance(choice, Integer):
            return trial.suggest_int(name, choice.low, choice.high, step=choice.step, log=choice.log)
        return trial.suggest_float(name, choice.low, choice.high, log=choice.log)

    return space.complete(pick)


def _seed(key: Key) -> int:
    return int(jax.random.bits(key))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _at_least(searcher: Any, name: str, low: int) -> None:
    value = getattr(searcher, name)
    if type(value) is not int or value < low:
        raise InputError(f"{type(searcher).__name__}'s {name} must be a whole number, {low} or more, got {value!r}.")
