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
from l2l.optuna_sampler.sampler import ControllerSampler, Fold
from l2l.searchers.controllers.controller import Controller
from l2l.searchers.controllers.factorised import Factorised
from l2l.searchers.controllers.lstm import Lstm
from l2l.searchers.controllers.ppo import Ppo
from l2l.searchers.controllers.transformer import Transformer
from l2l.searchers.evolution import Evolution
from l2l.searchers.gp.gp_critic import GpCritic
from l2l.searchers.local_search import LocalSearch
from l2l.searchers.optuna_samplers import Nsga2
from l2l.searchers.random import Random
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
COSTLY = ("lstm", "transformer", "ppo", "gp_critic")
"""Each takes as long to compile as all others together."""
SEVERAL = ("gp_critic", "random")
"""Those that serve several objectives, too."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


class TestConformance(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    """Optuna's suite; without a startup, so that the searcher itself is asked."""

    @pytest.fixture(
        params=[
            pytest.param(each, marks=[pytest.mark.slow] * (each in COSTLY)) for each in SEARCHERS if each not in SEVERAL
        ]
    )
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return functools.partial(ControllerSampler, SEARCHERS[request.param], seed=0, startup=0)


class TestConformanceOnBoth(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    """The suite for those that serve several objectives, too."""

    @pytest.fixture(params=[pytest.param(each, marks=[pytest.mark.slow] * (each in COSTLY)) for each in SEVERAL])
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return functools.partial(ControllerSampler, SEARCHERS[request.param], seed=0, startup=0)


@pytest.mark.slow
class TestConformanceAsGiven(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    """The suite on a sampler as it is made without arguments."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return ControllerSampler


class TestConformanceOnSeveral(MultiObjectiveSamplerTestCase):
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
    things = ({"a": 1}, (1, 2), object())

    def objective(trial: optuna.Trial) -> float:
        for number, each in enumerate(ODD):
            found = trial._suggest(f"x{number}", each)
            assert each._contains(each.to_internal_repr(found))
        trial.suggest_int("one", 3, 3)
        return float(things.index(trial.suggest_categorical("thing", things)))  # pyright: ignore[reportArgumentType]

    study = optuna.create_study(sampler=ControllerSampler(seed=1, startup=2))
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
    made = {"seed": 0, "startup": 4, **options}
    direction = made.pop("direction", "minimize")
    study = optuna.create_study(sampler=ControllerSampler(searcher, **made), direction=direction)
    study.optimize(objective, n_trials=trials, catch=(ArithmeticError,))
    return study.trials


LEARNERS = [Controller(), Controller(policy=Lstm()), Evolution()]


@pytest.mark.parametrize("searcher", LEARNERS, ids=("factorised", "lstm", "evolution"))
def test_a_conditional_space_is_learnt(searcher: Any) -> None:
    def late(each: Any) -> float:
        values = [trial.value or 0.0 for seed in range(2) for trial in run(each, 60, seed=seed, startup=10)[40:]]
        return statistics.fmean(values)

    assert late(searcher) < 0.8 * late(Random())


def test_the_critic_comes_nearer_to_the_best_than_random_search() -> None:
    def suggest_names(each: Any) -> float:
        return statistics.fmean(min(trial.value or 0.0 for trial in run(each, 50, seed=seed)) for seed in range(3))

    assert suggest_names(GpCritic()) < 0.25 * suggest_names(Random())


@pytest.mark.filterwarnings("ignore:PartialFixedSampler is experimental")
def test_what_is_left_of_a_space_is_asked_one_by_one() -> None:
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


def test_those_at_work_at_once_are_given_different_candidates() -> None:
    study = optuna.create_study(sampler=ControllerSampler(GpCritic(first=8), seed=0, startup=1))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1) ** 2, n_trials=2)
    asked = [study.ask() for _ in range(4)]
    found = sorted(trial.suggest_float("x", 0, 1) for trial in asked)
    apart = [after - before for before, after in itertools.pairwise(found)]
    assert min(apart) > 0.02  # of a design of 8, and not four times the same of it


def test_no_prior_is_taken() -> None:
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


def test_reseeding_gives_other_draws_and_forgets_nothing() -> None:
    study = optuna.create_study(sampler=(sampler := ControllerSampler(SMALL, seed=0, startup=2)))
    study.optimize(conditional, n_trials=8)
    space = sampler.infer_relative_search_space(study, study.trials[0])
    ahead = study.ask()
    frozen = study.trials[ahead.number]
    before = sampler.sample_relative(study, frozen, space)
    assert sampler.sample_relative(study, frozen, space) == before
    alone = sampler.sample_independent(study, frozen, "late", FloatDistribution(0, 1))
    sampler.reseed_rng()
    assert sampler.sample_relative(study, frozen, space) != before
    assert sampler.sample_independent(study, frozen, "late", FloatDistribution(0, 1)) != alone


def test_a_study_on_disk_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    whole = params(run())
    url = f"sqlite:///{tmp_path}/study.db"
    for trials in (3, 9, 8):
        storage = optuna.storages.RDBStorage(url)
        sampler = ControllerSampler(SMALL, seed=0, startup=4)
        study = optuna.create_study(sampler=sampler, storage=storage, study_name="x", load_if_exists=True)
        study.optimize(conditional, n_trials=trials)
        found = params(study.trials)
        storage.engine.dispose()
    assert found == whole


def test_what_is_kept_is_a_cache_in_whichever_order_trials_end() -> None:
    study = optuna.create_study(sampler=(sampler := ControllerSampler(SMALL, seed=3, startup=2)))
    draw = random.Random(0)
    running: list[tuple[optuna.Trial, float]] = []
    for _ in range(30):
        asked = study.ask()
        study.sampler = pickle.loads(pickle.dumps(sampler))
        assert not study.sampler._folds
        again = study.sampler.sample_relative(study, study.trials[asked.number], asked.relative_search_space or {})
        study.sampler = sampler
        running.append((asked, conditional(asked)))
        assert {name: asked.params[name] for name in again if name in asked.params} == {
            name: each for name, each in again.items() if name in asked.params
        }
        while len(running) > 4:
            study.tell(*running.pop(draw.randrange(len(running))))
    assert len(sampler._folds) < 10


def test_a_fold_tells_little_again() -> None:
    trials = [optuna.create_trial(value=number) for number in range(200)]
    steps: list[FrozenTrial] = []

    def step(state: tuple[float, ...], trial: FrozenTrial) -> tuple[float, ...]:
        steps.append(trial)
        return (*state, trial.value or 0.0)

    fold: Fold[tuple[float, ...]] = Fold((), step)
    for each in trials[:100]:
        fold.over(trials[: int(each.value or 0)])
    assert len(steps) == 99
    for gone in (99, 98, 90, 64, 10, 0):
        steps.clear()
        part = [trial for number, trial in enumerate(trials[:100]) if number != gone]
        assert fold.over(part) == tuple(trial.value for trial in part)
        fold.over(trials[:100])
        assert len(steps) <= 4 * (100 - gone) + 2


@dataclass(frozen=True)
class Watched(Random):
    """Random search that keeps what it is told."""

    told: list[Trial] = field(default_factory=list[Trial], compare=False)

    def tell(self, state: Any, trials: Sequence[Trial]) -> Any:
        self.told.extend(trials)
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
    study = optuna.create_study(sampler=ControllerSampler(searcher := Watched(), startup=1))
    for end in ends:
        study.add_trial(optuna.create_trial(params={"x": 0.5}, distributions={"x": FloatDistribution(0, 1)}, **end))
    study.ask().suggest_float("x", 0, 1)
    found = [(trial.number, trial.status, trial.reward, dict(trial.scores)) for trial in searcher.told]
    assert found == [
        (0, Status.COMPLETE, (-2.0,), {}),
        (1, Status.FAILED, None, {}),
        (2, Status.FAILED, None, {}),
        (3, Status.PRUNED, (-7.0,), {1: (-5.0,), 3: (-7.0,)}),
        (4, Status.FAILED, None, {}),
        (5, Status.FAILED, None, {}),
    ]
    study.ask().suggest_float("x", 0, 1)
    assert len(searcher.told) == len(ends) - 1  # nothing is told twice


def test_failures_are_avoided() -> None:
    def objective(trial: optuna.Trial) -> float:
        return 1 / (trial.suggest_categorical("x", ["good", "bad"]) == "good")

    found = run(Controller(), 80, objective)
    assert {trial.state for trial in found} == {TrialState.COMPLETE, TrialState.FAIL}
    assert sum(trial.params["x"] == "bad" for trial in found[50:]) < 8


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
        sampler=ControllerSampler(searcher := Watched(), startup=2),
        pruner=optuna.pruners.HyperbandPruner(max_resource=9),
    )
    study.optimize(objective, n_trials=30)
    numbers = [trial.number for trial in searcher.told]
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
        ({"seed": -1}, "ControllerSampler's seed must be a whole number from 0 to 4294967295, got -1."),
        ({"seed": True}, "ControllerSampler's seed must be a whole number from 0 to 4294967295, got True."),
        ({"startup": 1.5}, "ControllerSampler's startup must be a whole number, 0 or more, got 1.5."),
    ],
)
def test_a_wrong_argument_is_one_sentence(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        l2l.ControllerSampler(**options)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)
