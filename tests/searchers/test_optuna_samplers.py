"""Optuna's samplers: the contract for each, replay against a running search, several objectives."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import replace

import jax
import optuna
import pytest
from optuna.samplers import BaseSampler

from l2l.errors import InputError
from l2l.searchers import optuna_replay
from l2l.searchers.optuna_replay import OptunaState
from l2l.searchers.optuna_samplers import CmaEs, Nsga2, Qmc, Tpe
from l2l.space import Candidate, Categorical, Real, SearchSpace
from l2l.testing import TOY, SearcherContract, finish_trials, toy_reward

OptunaWrapper = Tpe | Nsga2 | Qmc | CmaEs
ALL = pytest.mark.parametrize("searcher", [Tpe(), Nsga2(population=8), Qmc(), CmaEs()], ids=lambda s: type(s).__name__)
REPLAYED = pytest.mark.parametrize("searcher", [Nsga2(population=8), Qmc(), CmaEs()], ids=lambda s: type(s).__name__)


class TestTpe(SearcherContract):
    def searcher(self) -> Tpe:
        return Tpe()


class TestTpeGroup(SearcherContract):
    trials = 96

    def searcher(self) -> Tpe:
        return Tpe(group=True, candidates=8)


class TestNsga2(SearcherContract):
    def searcher(self) -> Nsga2:
        return Nsga2(population=16)


class TestQmc(SearcherContract):
    learns = False

    def searcher(self) -> Qmc:
        return Qmc()


class TestCmaEs(SearcherContract):
    def searcher(self) -> CmaEs:
        return CmaEs()


def _reward(candidate: Candidate) -> float:
    return toy_reward(candidate.values)


def run(searcher: OptunaWrapper, reward: Callable[[Candidate], float | None], batches: int = 6) -> OptunaState:
    """The state after batches of 5."""
    state = searcher.init(TOY, jax.random.key(0))
    for number in range(batches):
        asked = searcher.ask(state, jax.random.key(number), 5)
        state = searcher.tell(state, finish_trials(asked, 5 * number, reward))
    return state


@REPLAYED
def test_a_replay_gives_what_the_running_search_gives(searcher: OptunaWrapper) -> None:
    state = run(searcher, lambda candidate: None if candidate.values["a"] == 0 else _reward(candidate))
    running = searcher.ask(state, jax.random.key(0), 5)
    optuna_replay._SESSIONS.clear()
    assert searcher.ask(state, jax.random.key(0), 5) == running


@pytest.mark.parametrize("kind", [Nsga2, Qmc, CmaEs])
def test_a_running_search_never_replays(kind: type[Nsga2 | Qmc | CmaEs]) -> None:
    seeds: list[int] = []

    class Counted(kind):  # type: ignore[misc, valid-type]
        def create_sampler(self, seed: int) -> BaseSampler:
            seeds.append(seed)
            return super().create_sampler(seed)

    run(Counted(), _reward)
    assert len(seeds) == 1


@REPLAYED
def test_two_searches_at_once_do_not_mix(searcher: OptunaWrapper) -> None:
    alone = run(searcher, _reward, 4)
    optuna_replay._SESSIONS.clear()
    states = [searcher.init(TOY, jax.random.key(0))] * 2
    for number in range(4):
        asked = [searcher.ask(state, jax.random.key(number), 5) for state in states]
        states = [
            searcher.tell(state, finish_trials(candidates, 5 * number, _reward))
            for state, candidates in zip(states, asked, strict=True)
        ]
    assert states[0] == states[1] == alone
    assert len(optuna_replay._SESSIONS) <= 8


@ALL
def test_seeds_differ(searcher: OptunaWrapper) -> None:
    asked = [searcher.ask(searcher.init(TOY, jax.random.key(seed)), jax.random.key(seed), 8) for seed in range(2)]
    assert asked[0] != asked[1]


@ALL
def test_candidates_of_a_batch_differ(searcher: OptunaWrapper) -> None:
    state = run(searcher, _reward)
    assert len({candidate.key for candidate in searcher.ask(state, jax.random.key(1), 8)}) > 4


def test_a_batch_sees_its_own_running_trials() -> None:
    # Without the constant lie, TPE would propose the middle of the good region again and again.
    space = SearchSpace({"x": Real(low=0, high=1)}, lambda values, spec: None)
    state = Tpe().init(space, jax.random.key(0))
    grid = [Candidate({"x": i / 20}) for i in range(21)]
    state = Tpe().tell(state, finish_trials(grid, 0, lambda candidate: -abs(candidate.values["x"] - 0.5)))  # type: ignore
    asked = [candidate.values["x"] for candidate in Tpe().ask(state, jax.random.key(1), 12)]
    assert max(asked) - min(asked) > 0.05  # type: ignore[operator]


def test_tpe_avoids_what_fails() -> None:
    state = run(Tpe(), lambda candidate: None if candidate.values["b"] != "w" else 0.5, batches=8)
    late = Tpe().ask(state, jax.random.key(1), 16)
    assert sum(candidate.values["b"] == "w" for candidate in late) > 10


def test_true_and_one_are_different_options() -> None:
    flags = (True, 1, 1.5, None, "x")
    state = Tpe().init(SearchSpace({"flag": Categorical(options=flags)}, lambda v, s: None), jax.random.key(0))
    candidates = [Candidate({"flag": flag}) for flag in flags] * 4
    for first in range(0, 20, 5):
        batch = finish_trials(
            candidates[first : first + 5], first, lambda candidate: float(candidate.values["flag"] is True)
        )
        state = Tpe().tell(state, batch)
    late = [candidate.values["flag"] for candidate in Tpe().ask(state, jax.random.key(1), 20)]
    assert sum(flag is True for flag in late) > 10


@pytest.mark.parametrize("searcher", [Tpe(), Nsga2(population=8), Qmc()], ids=lambda s: type(s).__name__)
def test_several_objectives(searcher: OptunaWrapper) -> None:
    state = searcher.init(TOY, jax.random.key(0))
    for number in range(4):
        asked = searcher.ask(state, jax.random.key(number), 5)
        trials = finish_trials(asked, 5 * number, _reward)
        trials = [
            replace(trial, reward=(_reward(trial.candidate), -float(trial.candidate.values["d"])))  # type: ignore
            for trial in trials
        ]
        trials[0] = finish_trials([asked[0]], 5 * number, lambda candidate: None)[0]
        state = searcher.tell(state, trials)
    asked = searcher.ask(state, jax.random.key(9), 5)
    assert all(TOY.candidate(candidate.values) == candidate for candidate in asked)
    optuna_replay._SESSIONS.clear()
    assert searcher.ask(state, jax.random.key(9), 5) == asked
    with pytest.raises(InputError, match=r"^every reward of a search must have the same length: expected 2, got 1\.$"):
        searcher.tell(state, finish_trials(asked, 20, _reward))


def test_cmaes_refuses_several_objectives() -> None:
    state = CmaEs().init(TOY, jax.random.key(0))
    trials = finish_trials(CmaEs().ask(state, jax.random.key(0), 2), 0, _reward)
    with pytest.raises(
        InputError, match=r"^CmaEs maximises one number, got a reward of 2; use nsga2 or tpe instead\.$"
    ):
        CmaEs().tell(state, [replace(trial, reward=(0.0, 1.0)) for trial in trials])


def test_qmc_covers_more_evenly_than_chance() -> None:
    space = SearchSpace({"c": Categorical(options=tuple(range(8)))}, lambda values, spec: None)
    state = Qmc().init(space, jax.random.key(0))
    asked = Qmc().ask(state, jax.random.key(0), 65)
    counts = [sum(candidate.values["c"] == option for candidate in asked[1:]) for option in range(8)]
    assert counts == [8] * 8


def test_optuna_stays_quiet_and_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    optuna.logging.set_verbosity(logging.DEBUG)
    try:
        for searcher in (Tpe(group=True), CmaEs(), Qmc(), Nsga2()):
            run(searcher, _reward, 2)
        assert optuna.logging.get_verbosity() == logging.DEBUG
    finally:
        optuna.logging.set_verbosity(logging.INFO)
    assert capfd.readouterr() == ("", "")


def test_a_missing_cmaes_is_refused_with_the_command_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(InputError, match=r"pip install 'l2l\[cmaes\]'$"):
        CmaEs()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Tpe(startup=-1), "Tpe's startup must be an integer of at least 0, got -1."),
        (lambda: Tpe(candidates=0), "Tpe's candidates must be an integer of at least 1, got 0."),
        (lambda: Nsga2(population=1), "Nsga2's population must be an integer of at least 2, got 1."),
        (lambda: Nsga2(crossover=2), "Nsga2's crossover must be a number of at least 0 and of at most 1, got 2."),
        (lambda: CmaEs(population=1), "CmaEs's population must be an integer of at least 2 or null, got 1."),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == sentence
