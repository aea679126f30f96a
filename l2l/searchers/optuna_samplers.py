"""Optuna's samplers as searchers: TPE, NSGA-II, a Sobol sequence and CMA-ES.

Source: Akiba et al. 2019, Optuna: A Next-generation Hyperparameter Optimization Framework, KDD.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, NSGAIISampler, QMCSampler, TPESampler
from optuna.trial import TrialState

from l2l.errors import InputError, check_integer, check_number
from l2l.searchers.optuna_replay import (
    OptunaSearcher,
    OptunaState,
    ReplayedSearcher,
    create_distribution,
    create_study,
    derive_seed,
    encode_values,
    silence_optuna,
    suggest_candidate,
)
from l2l.space import Candidate, SearchSpace
from l2l.types import Key, Trial


@dataclass(frozen=True)
class Tpe(OptunaSearcher):
    """Tree-structured Parzen estimator over the conditional space; pending candidates of a batch count as bad ones.

    A pruned trial is told with its scores; the sampler ranks it below every complete one, by how far it got. A
    failed one is told as pruned without a score, which ranks below these. With several objectives Optuna has no such
    ranks: a pruned trial counts with its scores as if complete, and failed ones are left out.

    Raises: InputError if a number is out of its range.

    Source: Bergstra et al. 2011, Algorithms for Hyper-Parameter Optimization, NeurIPS.
    """

    startup: int = 10
    """Trials sampled uniformly before the estimator is asked."""
    candidates: int = 24
    """Points sampled from the density of the good trials, of which the best is proposed."""
    group: bool = False
    """Whether choices that are active together are modelled together."""

    def __post_init__(self) -> None:
        check_integer("Tpe's startup", self.startup, 0)
        check_integer("Tpe's candidates", self.candidates, 1)

    def ask(self, state: OptunaState, key: Key, count: int) -> list[Candidate]:
        """`count` candidates, from a study of all trials of the state and a sampler seeded by the key."""
        with silence_optuna():
            sampler = TPESampler(
                n_startup_trials=self.startup, n_ei_candidates=self.candidates, seed=derive_seed(key),
                multivariate=self.group or None, group=self.group, constant_liar=True,
            )  # fmt: skip
            objectives = state.count_objectives()
            study = create_study(sampler, objectives)
            unsuccessful = TrialState.PRUNED if objectives == 1 else TrialState.FAIL
            distributions = {name: create_distribution(choice) for name, choice in state.space.choices.items()}
            study.add_trials(
                optuna.create_trial(
                    state=TrialState.COMPLETE if reward is not None and steps is None else unsuccessful,
                    params=encode_values(state.space, candidate),
                    distributions={name: distributions[name] for name in candidate.values},
                    values=reward if steps is None else None,
                    intermediate_values=dict(steps or {}),
                )
                for batch in state.batches
                for candidate, reward, steps in batch
            )
            return [suggest_candidate(state.space, study.ask()) for _ in range(count)]


@dataclass(frozen=True)
class Nsga2(ReplayedSearcher):
    """A genetic algorithm for one or several objectives; pruned trials take part with the scores of their last rung.

    Raises: InputError if a number is out of its range.

    Source: Deb et al. 2002, A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, IEEE TEC 6.
    """

    population: int = 20
    crossover: float = 0.9
    """Probability that a child has two parents."""

    def __post_init__(self) -> None:
        check_integer("Nsga2's population", self.population, 2)
        check_number("Nsga2's crossover", self.crossover, 0, 1)

    def create_sampler(self, seed: int) -> BaseSampler:
        """Optuna's sampler, as it starts."""
        return NSGAIISampler(population_size=self.population, crossover_prob=self.crossover, seed=seed)


class _UnitCube(ReplayedSearcher):
    """A sampler of the unit cube: every choice, active or not, has a coordinate in [0, 1], its quantile.

    These samplers know neither conditions nor categories; the coordinates let them search both all the same.
    """

    def suggest_candidate(self, space: SearchSpace[Any], study: optuna.Study) -> tuple[optuna.Trial, Candidate]:
        """One candidate, and the trial that Optuna keeps of its coordinates."""
        trial = study.ask({name: FloatDistribution(0, 1) for name in space.choices})
        return trial, space.complete(lambda name, choice: choice.value_at(trial.params[name]))

    def encode_candidate(
        self, space: SearchSpace[Any], candidate: Candidate
    ) -> dict[str, tuple[Any, BaseDistribution]]:
        """The coordinates of a candidate that the sampler did not propose; 0.5 for an inactive choice."""
        return {
            name: (
                choice.quantile(candidate.values[name]) if name in candidate.values else 0.5,
                FloatDistribution(0, 1),
            )
            for name, choice in space.choices.items()
        }


@dataclass(frozen=True)
class Qmc(_UnitCube):
    """A scrambled Sobol sequence: learns nothing, but covers the space more evenly than chance.

    Source: Owen 1998, Scrambling Sobol' and Niederreiter-Xing Points, Journal of Complexity 14.
    """

    def create_sampler(self, seed: int) -> BaseSampler:
        """Optuna's sampler, as it starts."""
        return QMCSampler(scramble=True, seed=seed, warn_independent_sampling=False)


@dataclass(frozen=True)
class CmaEs(_UnitCube):
    """Covariance matrix adaptation, for one objective and mostly Real choices; needs the package cmaes.

    Raises: InputError if cmaes is not installed, or a number is out of its range.

    Source: Hansen 2016, The CMA Evolution Strategy: A Tutorial, arXiv:1604.00772.
    """

    population: int | None = None
    """Candidates per generation; None takes 4 + 3 ln D."""

    def __post_init__(self) -> None:
        if importlib.util.find_spec("cmaes") is None:
            raise InputError("searcher cmaes needs a package that is not installed: pip install 'l2l[cmaes]'")
        check_integer("CmaEs's population", self.population, 2, optional=True)

    def create_sampler(self, seed: int) -> BaseSampler:
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
