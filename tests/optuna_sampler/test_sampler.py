"""The sampler in Optuna's own conformance suite, and what a study anywhere may rely on."""

from __future__ import annotations

import functools
import itertools
import math
import pickle
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)
from optuna.trial import FrozenTrial, TrialState

import l2l
from l2l.errors import InputError
from l2l.optuna_sampler.sampler import ControllerSampler, TrialFold
from l2l.searchers.controllers.controller import Controller
from l2l.searchers.controllers.factorised import Factorised
from l2l.searchers.controllers.lstm import Lstm
from l2l.searchers.controllers.ppo import Ppo
from l2l.searchers.controllers.transformer import Transformer
from l2l.searchers.evolution import Evolution
from l2l.searchers.gp.gp_critic import GpCritic
from l2l.searchers.local_search import LocalSearch
from l2l.searchers.optuna_samplers import Nsga2
from l2l.searchers.random_search import Random
from l2l.types import Status, Trial

SEARCHERS = {
    "factorised": Controller(policy=Factorised()),
    "lstm": Controller(policy=Lstm(units=4, layers=1)),
    "evolution": Evolution(population=4, tournament=2),
    "random": Random(),
    "local": LocalSearch(first=2),
    "ppo": Controller(update=Ppo()),
    "transformer": Controller(policy=Transformer(units=4, layers=1, heads=1, context=4), update=Ppo()),
    "gp_critic": GpCritic(first=2, edits=8, moves=4, uniform=4),
}
COSTLY = ("lstm", "transformer", "ppo", "gp_critic", "evolution", "local")
"""Each of these takes longer to compile than the others together, in every space of the suite."""
MULTI_OBJECTIVE = ("gp_critic", "random")
"""Those that serve several objectives as well."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


class TestConformance(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    """Optuna's suite, without a startup, so that the searcher itself is asked."""

    @pytest.fixture(
        params=[
            pytest.param(name, marks=[pytest.mark.slow] * (name in COSTLY))
            for name in SEARCHERS
            if name not in MULTI_OBJECTIVE
        ]
    )
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return functools.partial(ControllerSampler, SEARCHERS[request.param], seed=0, startup=0)


class TestConformanceOnBoth(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    """The suite for searchers that serve several objectives as well."""

    @pytest.fixture(
        params=[pytest.param(name, marks=[pytest.mark.slow] * (name in COSTLY)) for name in MULTI_OBJECTIVE]
    )
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return functools.partial(ControllerSampler, SEARCHERS[request.param], seed=0, startup=0)


@pytest.mark.slow
class TestConformanceOfDefaults(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    """The suite on a sampler without arguments."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return ControllerSampler


class TestConformanceOnMultiObjective(MultiObjectiveSamplerTestCase):
    """A searcher that serves several objectives lets a study have them."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return functools.partial(ControllerSampler, Nsga2(), startup=0)


SMALL = Evolution(population=6, tournament=3)
"""Cheap to compile."""

ODD: list[BaseDistribution] = [
    IntDistribution(2**53 + 1, 2**62),
    IntDistribution(-3 * 2**60, 3 * 2**60, step=3),
    IntDistribution(1, 2**62, log=True),
    FloatDistribution(-1e308, 1e308),
    FloatDistribution(1e-300, 1e300, log=True),
    FloatDistribution(0.0, 0.7, step=0.1),
    CategoricalDistribution((None, True, 2, 3.5, "x", float("nan"))),
]


def test_a_study_of_odd_ranges_and_objects() -> None:
    options = ({"a": 1}, (1, 2), object())

    def objective(trial: optuna.Trial) -> float:
        for number, distribution in enumerate(ODD):
            value = trial._suggest(f"x{number}", distribution)
            assert distribution._contains(distribution.to_internal_repr(value))
        trial.suggest_int("one", 3, 3)
        return float(options.index(trial.suggest_categorical("option", options)))  # pyright: ignore[reportArgumentType]

    study = optuna.create_study(sampler=ControllerSampler(SMALL, seed=1, startup=2))
    with pytest.warns(UserWarning, match="Choices for a categorical distribution"):
        study.optimize(objective, n_trials=5, catch=())
    assert len({trial.params["x0"] for trial in study.trials}) == 5


def conditional(trial: optuna.Trial) -> float:
    """Best with momentum 0.9, in one of two branches."""
    rate = trial.suggest_float("rate", 1e-4, 1, log=True)
    loss = (math.log10(rate) + 2) ** 2
    if trial.suggest_categorical("optimizer", ["sgd", "adam"]) == "sgd":
        return loss + 4 * (trial.suggest_float("momentum", 0, 1) - 0.9) ** 2
    return loss + 1 + trial.suggest_float("beta", 0, 1)


def run(
    searcher: Any = SMALL, trials: int = 20, objective: Callable[[optuna.Trial], float] = conditional, **options: Any
) -> list[FrozenTrial]:
    """The trials of one study."""
    arguments = {"seed": 0, "startup": 4, **options}
    direction = arguments.pop("direction", "minimize")
    study = optuna.create_study(sampler=ControllerSampler(searcher, **arguments), direction=direction)
    study.optimize(objective, n_trials=trials, catch=(ArithmeticError,))
    return study.trials


LEARNERS = [Controller(), Controller(policy=Lstm()), Evolution()]


@pytest.mark.parametrize("searcher", LEARNERS, ids=("factorised", "lstm", "evolution"))
def test_a_conditional_space_is_learnt(searcher: Any) -> None:
    def late_mean(searcher: Any) -> float:
        values = [trial.value or 0.0 for seed in range(2) for trial in run(searcher, 60, seed=seed, startup=10)[40:]]
        return statistics.fmean(values)

    assert late_mean(searcher) < 0.8 * late_mean(Random())


@pytest.mark.slow
def test_the_critic_comes_nearer_to_the_best_than_random_search() -> None:
    def mean_minimum(searcher: Any) -> float:
        return statistics.fmean(min(trial.value or 0.0 for trial in run(searcher, 50, seed=seed)) for seed in range(3))

    assert mean_minimum(GpCritic()) < 0.25 * mean_minimum(Random())


@pytest.mark.filterwarnings("ignore:PartialFixedSampler is experimental")
def test_parameters_that_no_longer_fit_the_joint_space_are_asked_one_by_one() -> None:
    sampler = ControllerSampler(SMALL, seed=0, startup=2)
    fixed = optuna.samplers.PartialFixedSampler({"optimizer": "sgd"}, sampler)
    study = optuna.create_study(sampler=fixed)
    study.optimize(conditional, n_trials=12)
    assert {trial.params["optimizer"] for trial in study.trials} == {"sgd"}
    # A trial without a parameter that was to be proposed has ended in the meantime.
    waiting = study.ask()
    space = sampler.infer_relative_search_space(study, study.trials[-1])
    study.add_trial(optuna.create_trial(params={}, distributions={}, value=1.0))
    assert sampler.sample_relative(study, study.trials[waiting.number], space).keys() <= space.keys()


def test_trials_that_run_at_once_get_different_candidates() -> None:
    study = optuna.create_study(sampler=ControllerSampler(GpCritic(first=8), seed=0, startup=1))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1) ** 2, n_trials=2)
    trials = [study.ask() for _ in range(4)]
    values = sorted(trial.suggest_float("x", 0, 1) for trial in trials)
    gaps = [after - before for before, after in itertools.pairwise(values)]
    assert min(gaps) > 0.02  # four points of a design of 8, not one point four times


def test_a_prior_is_refused() -> None:
    with pytest.raises(InputError, match=r"may have no prior; give the study the earlier trials: study\.add_trials\("):
        ControllerSampler(GpCritic(prior="runs/that"))


def test_a_pruned_trial_of_several_objectives_has_failed() -> None:
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=ControllerSampler(Nsga2(), startup=0))
    study.add_trial(
        optuna.create_trial(
            state=optuna.trial.TrialState.PRUNED, params={"x": 0.5}, intermediate_values={0: 1.0},
            distributions={"x": FloatDistribution(0, 1)},
        )
    )  # fmt: skip
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 1.0), n_trials=3)
    assert [trial.state.name for trial in study.trials] == ["PRUNED", *["COMPLETE"] * 3]


def params(trials: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    """What was proposed."""
    return [trial.params for trial in trials]


def test_equal_seeds_give_equal_studies() -> None:
    first = params(run())
    assert params(run()) == first
    other = params(run(seed=1))
    assert all(one["rate"] != two["rate"] for one, two in zip(first, other, strict=True))
    assert params(run(seed=None))[0] != params(run(seed=None))[0]


def test_minimising_is_maximising_the_negative() -> None:
    assert params(run()) == params(run(objective=lambda trial: -conditional(trial), direction="maximize"))


def test_reseeding_changes_the_random_numbers_and_forgets_nothing() -> None:
    study = optuna.create_study(sampler=(sampler := ControllerSampler(SMALL, seed=0, startup=2)))
    study.optimize(conditional, n_trials=8)
    space = sampler.infer_relative_search_space(study, study.trials[0])
    asked = study.ask()
    frozen = study.trials[asked.number]
    before = sampler.sample_relative(study, frozen, space)
    assert sampler.sample_relative(study, frozen, space) == before
    independent = sampler.sample_independent(study, frozen, "late", FloatDistribution(0, 1))
    sampler.reseed_rng()
    assert sampler.sample_relative(study, frozen, space) != before
    assert sampler.sample_independent(study, frozen, "late", FloatDistribution(0, 1)) != independent


def test_a_study_on_disk_continues_as_if_never_interrupted(tmp_path: Path) -> None:
    uninterrupted = params(run())
    url = f"sqlite:///{tmp_path}/study.db"
    for trials in (3, 9, 8):
        storage = optuna.storages.RDBStorage(url)
        sampler = ControllerSampler(SMALL, seed=0, startup=4)
        study = optuna.create_study(sampler=sampler, storage=storage, study_name="x", load_if_exists=True)
        study.optimize(conditional, n_trials=trials)
        continued = params(study.trials)
        storage.engine.dispose()
    assert continued == uninterrupted


def test_the_caches_change_nothing_in_whichever_order_trials_end() -> None:
    study = optuna.create_study(sampler=(sampler := ControllerSampler(SMALL, seed=3, startup=2)))
    generator = random.Random(0)
    running: list[tuple[optuna.Trial, float]] = []
    for _ in range(30):
        asked = study.ask()
        study.sampler = pickle.loads(pickle.dumps(sampler))
        assert not study.sampler._folds
        again = study.sampler.sample_relative(study, study.trials[asked.number], asked.relative_search_space or {})
        study.sampler = sampler
        running.append((asked, conditional(asked)))
        assert {name: asked.params[name] for name in again if name in asked.params} == {
            name: value for name, value in again.items() if name in asked.params
        }
        while len(running) > 4:
            study.tell(*running.pop(generator.randrange(len(running))))
    assert len(sampler._folds) < 10


def test_a_fold_repeats_few_steps() -> None:
    trials = [optuna.create_trial(value=number) for number in range(200)]
    steps: list[FrozenTrial] = []

    def step(state: tuple[float, ...], trial: FrozenTrial) -> tuple[float, ...]:
        steps.append(trial)
        return (*state, trial.value or 0.0)

    fold: TrialFold[tuple[float, ...]] = TrialFold((), step)
    for count in range(100):
        fold.fold(trials[:count])
    assert len(steps) == 99
    for missing in (99, 98, 90, 64, 10, 0):
        steps.clear()
        part = [trial for number, trial in enumerate(trials[:100]) if number != missing]
        assert fold.fold(part) == tuple(trial.value for trial in part)
        fold.fold(trials[:100])
        assert len(steps) <= 4 * (100 - missing) + 2


@dataclass(frozen=True)
class SpiedRandom(Random):
    """Random search that notes the trials it is told."""

    log: list[Trial] = field(default_factory=list[Trial], compare=False)

    def tell(self, state: Any, trials: Sequence[Trial]) -> Any:
        self.log.extend(trials)
        return super().tell(state, trials)


def test_what_a_searcher_is_told_of_failed_and_pruned_trials() -> None:
    ends: list[dict[str, Any]] = [
        {"value": 2.0},
        {"value": math.inf},
        {"state": TrialState.FAIL},
        {"state": TrialState.PRUNED, "intermediate_values": {3: 7.0, 1: 5.0}},
        {"state": TrialState.PRUNED, "intermediate_values": {1: math.nan}},
        {"state": TrialState.PRUNED},
        {"state": TrialState.RUNNING},
    ]
    study = optuna.create_study(sampler=ControllerSampler(searcher := SpiedRandom(), startup=1))
    for end in ends:
        study.add_trial(optuna.create_trial(params={"x": 0.5}, distributions={"x": FloatDistribution(0, 1)}, **end))
    study.ask().suggest_float("x", 0, 1)
    entries = [(trial.number, trial.status, trial.reward, dict(trial.scores)) for trial in searcher.log]
    assert entries == [
        (0, Status.COMPLETE, (-2.0,), {}),
        (1, Status.FAILED, None, {}),
        (2, Status.FAILED, None, {}),
        (3, Status.PRUNED, (-7.0,), {1: (-5.0,), 3: (-7.0,)}),
        (4, Status.FAILED, None, {}),
        (5, Status.FAILED, None, {}),
    ]
    study.ask().suggest_float("x", 0, 1)
    assert len(searcher.log) == len(ends) - 1  # nothing is told twice


def test_failures_are_avoided() -> None:
    def objective(trial: optuna.Trial) -> float:
        return 1 / (trial.suggest_categorical("x", ["good", "bad"]) == "good")

    trials = run(Controller(), 80, objective)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.FAIL}
    assert sum(trial.params["x"] == "bad" for trial in trials[50:]) < 8


def test_several_threads_ask_at_once() -> None:
    study = optuna.create_study(sampler=ControllerSampler(Random(), seed=0, startup=4))
    study.optimize(conditional, n_trials=24, n_jobs=2)
    assert len(study.trials) == 24
    assert all(trial.state is TrialState.COMPLETE for trial in study.trials)
    assert len({trial.params["rate"] for trial in study.trials}) == 24


def test_brackets_of_hyperband() -> None:
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        for step in range(9):
            trial.report(x / (step + 1), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return x

    study = optuna.create_study(
        sampler=ControllerSampler(searcher := SpiedRandom(), startup=2),
        pruner=optuna.pruners.HyperbandPruner(max_resource=9),
    )
    study.optimize(objective, n_trials=30)
    numbers = [trial.number for trial in searcher.log]
    assert len(numbers) == len(set(numbers))


def test_a_parameter_that_nothing_explains_is_learnt_alone() -> None:
    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("rate", 0, 1 + trial.number % 2)
        return rate + (trial.suggest_float("odd", 0, 1) if rate > 0.5 else 0)

    trials = run(Controller(), 40, objective)
    assert all(trial.state is TrialState.COMPLETE for trial in trials)
    assert statistics.fmean(trial.value or 0 for trial in trials[25:]) < 1


def test_a_searcher_for_several_objectives_serves_them() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=ControllerSampler(Nsga2(), startup=2))

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        x = trial.suggest_float("x", 0, 1)
        return x, x**2

    study.optimize(objective, n_trials=6)
    assert len(study.best_trials) == 6
    study.sampler = ControllerSampler(Controller())
    words = (
        r"^Controller cannot serve a study of 2 objectives; give the study one direction, or the sampler a searcher "
        r"for several such as GpCritic\(\), Nsga2\(\) or Tpe\(\)\.$"
    )
    with pytest.raises(InputError, match=words):
        study.ask({"x": FloatDistribution(0, 1)})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"searcher": "tpe"}, "ControllerSampler's searcher must be a Searcher, such as GpCritic(), got 'tpe'."),
        ({"searcher": Random}, "ControllerSampler's searcher must be a Searcher, such as GpCritic(), got <class"),
        ({"seed": -1}, "ControllerSampler's seed must be an integer from 0 to 4294967295 or null, got -1."),
        ({"seed": True}, "ControllerSampler's seed must be an integer from 0 to 4294967295 or null, got True."),
        ({"startup": 1.5}, "ControllerSampler's startup must be an integer of at least 0, got 1.5."),
    ],
)
def test_a_wrong_argument_is_one_sentence(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        l2l.ControllerSampler(**options)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)
