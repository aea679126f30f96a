"""Controllers: the contract for every policy, update and baseline, and what holds whatever they are made of."""

from __future__ import annotations

import functools
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np
import pytest

from l2l.abilities import get_title
from l2l.encoding import Encoding
from l2l.errors import InputError
from l2l.searchers.controllers.baseline import Baseline, LeaveOneOut, MovingAverage, Ranks
from l2l.searchers.controllers.controller import Controller, Update
from l2l.searchers.controllers.factorised import Factorised
from l2l.searchers.controllers.lstm import Lstm
from l2l.searchers.controllers.ppo import Ppo
from l2l.searchers.controllers.reinforce import Reinforce
from l2l.searchers.controllers.transformer import Transformer
from l2l.searchers.core.base import ArraySearcherState
from l2l.space import Candidate, Categorical, SearchSpace
from l2l.store import fingerprint
from l2l.testing import SPACES, TOY, RewardContract, SearcherContract, finish_trials, toy_reward

COIN = SearchSpace({"side": Categorical(options=("head", "tail"))}, lambda values, spec: None)


class TestController(SearcherContract):
    def searcher(self) -> Controller:
        return Controller()


class TestLstm(SearcherContract):
    def searcher(self) -> Controller:
        return Controller(policy=Lstm(), update=Reinforce(learning_rate=0.005))


class TestTransformer(SearcherContract):
    def searcher(self) -> Controller:
        return Controller(policy=Transformer(), update=Ppo(learning_rate=0.003, entropy_weight=0.03))


class TestPpo(SearcherContract):
    def searcher(self) -> Controller:
        return Controller(update=Ppo())


class TestLeaveOneOut(RewardContract):  # a baseline changes only what rewards teach
    def searcher(self) -> Controller:
        return Controller(baseline=LeaveOneOut())


class TestRanks(RewardContract):
    def searcher(self) -> Controller:
        return Controller(update=Ppo(), baseline=Ranks())


UPDATES = pytest.mark.parametrize("update", [Reinforce(), Ppo()], ids=["reinforce", "ppo"])
BASELINES = pytest.mark.parametrize(
    "baseline", [MovingAverage(), LeaveOneOut(window=4), Ranks(window=4)], ids=["moving", "leave_one_out", "ranks"]
)


def flipped(searcher: Controller, *batches: Callable[[Candidate], float | None]) -> ArraySearcherState:
    """The state after batches of two heads and two tails."""
    state = searcher.init(COIN, jax.random.key(0))
    sides = [Candidate({"side": side}) for side in ("head", "tail", "head", "tail")]
    for number, reward in enumerate(batches):
        state = searcher.tell(state, finish_trials(sides, 4 * number, reward))
    return state


def heads(candidate: Candidate) -> float:
    return float(candidate.values["side"] == "head")


def none(candidate: Candidate) -> None:
    """Every trial fails."""


@UPDATES
@BASELINES
def test_before_any_reward_failures_say_nothing(update: Update, baseline: Baseline) -> None:
    searcher = Controller(update=update, baseline=baseline)
    state = flipped(searcher, none, none, none)
    assert not np.any(state.arrays.params)
    assert not np.any(state.arrays.past.mask)
    assert searcher.summary(state) == {}
    assert state.trial_count == 12


@UPDATES
@BASELINES
def test_a_stretch_of_failures_is_got_over(update: Update, baseline: Baseline) -> None:
    searcher = Controller(update=update, baseline=baseline)
    # As many failures as a window holds, then rewards again.
    state = flipped(searcher, heads, none, none, none)
    assert searcher.summary(state)["reward"] == 0.5
    before = state.arrays.params[0, 0] - state.arrays.params[0, 1]
    sides = [Candidate({"side": side}) for side in ("head", "tail", "head", "tail")]
    for number in range(4, 8):
        state = searcher.tell(state, finish_trials(sides, 4 * number, heads))
    assert state.arrays.params[0, 0] - state.arrays.params[0, 1] > before
    assert searcher.summary(state)["baseline"] == pytest.approx(0.5, abs=0.2)


def test_no_past_is_kept_that_nobody_looks_at() -> None:
    assert flipped(Controller(), heads).arrays.past.codes.shape == (0, 1)
    past = flipped(Controller(update=Ppo(replay=6)), heads).arrays.past
    assert past.mask.tolist() == [False, False, True, True, True, True]
    assert past.codes[2:, 0].tolist() == [0, 1, 0, 1]
    assert past.advantages[2:].tolist() == [1, -1, 1, -1]
    assert np.allclose(past.log_probs[2:], math.log(0.5), atol=0.1)
    assert len(flipped(Controller(policy=Transformer(context=9), update=Ppo(replay=0)), heads).arrays.past.mask) == 9


def test_parts_that_are_none_or_do_not_go_together_are_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match=r"^Controller's policy must be a policy of l2l\.searchers\.controllers, got"):
        Controller(policy="lstm")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"^a Transformer already reads past trials, so the update must not "):
        Controller(policy=Transformer(), update=Ppo(replay=4))


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30, 3e38])
@UPDATES
def test_any_scale_of_reward_leaves_numbers(update: Update, scale: float) -> None:
    searcher = Controller(update=update)
    state = flipped(searcher, *[lambda candidate: scale * (2 * heads(candidate) - 1)] * 5)
    assert np.isfinite(state.arrays.params).all()
    first, second = state.arrays.params[0]
    assert first > second if scale else first == second


def test_rewards_beyond_float32_count_as_the_largest() -> None:
    searcher = Controller()
    state = flipped(searcher, *[lambda candidate: 1e300 * (2 * heads(candidate) - 1)] * 5)
    assert state.arrays.params[0, 0] > state.arrays.params[0, 1]
    assert all(math.isfinite(value) for value in searcher.summary(state).values())


@pytest.mark.parametrize("policy", [Factorised(), Lstm(units=4, layers=1), Transformer(units=4, layers=1)], ids=str)
@UPDATES
def test_a_space_of_one_candidate_teaches_nothing(policy: Lstm, update: Update) -> None:
    searcher = Controller(policy=policy, update=update)
    state = searcher.init(SPACES["single"], jax.random.key(0))
    for first in (0, 2, 4):
        asked = searcher.ask(state, jax.random.key(first), 2)
        assert [(candidate.values, candidate.metadata) for candidate in asked] == [
            ({"only": "one"}, {"log_prob": 0})
        ] * 2
        state = searcher.tell(state, finish_trials(asked, first, lambda _: 0.25))
    assert searcher.summary(state) == {"reward": 0.25, "baseline": 0.25, "entropy": 0}


def test_notes_hold_the_log_probability() -> None:
    state = Controller().init(COIN, jax.random.key(0))
    assert [candidate.metadata for candidate in Controller().ask(state, jax.random.key(1), 2)] == [
        {"log_prob": pytest.approx(-math.log(2))}
    ] * 2


def test_the_state_is_a_pytree_of_numbers() -> None:
    state = Controller(policy=Lstm()).init(SPACES["nested"], jax.random.key(0))
    doubled = jax.tree.map(lambda leaf: leaf * 2, state)
    assert doubled.encoding == Encoding(SPACES["nested"])
    assert np.allclose(doubled.arrays.params.kernel, 2 * state.arrays.params.kernel)


@pytest.mark.parametrize(
    "searcher", [Controller(update=Reinforce(learning_rate=0.0123)), Controller(update=Ppo(clip=0.3))]
)
def test_a_search_compiles_once(searcher: Controller, caplog: pytest.LogCaptureFixture) -> None:
    state = searcher.init(TOY, jax.random.key(0))
    compiled: list[bool] = []
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        for number in range(4):
            caplog.clear()
            asked = searcher.ask(state, jax.random.key(number), 4)
            state = searcher.tell(
                state, finish_trials(asked, 4 * number, lambda candidate: toy_reward(candidate.values))
            )
            compiled.append(any("ompil" in record.message for record in caplog.records))
    assert compiled == [True, False, False, False]


def test_optuna_is_not_imported() -> None:
    controllers = [f"controllers.{name}" for name in ("controller", "lstm", "transformer", "ppo", "baseline")]
    names = (*controllers, "evolution", "local_search", "random_search", "core.compiled_search")
    code = f"import sys, {', '.join(f'l2l.searchers.{name}' for name in names)}; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"optuna", "hydra", "wandb", "flax"} & set(modules)


def test_two_objectives_are_refused() -> None:
    searcher = Controller()
    state = searcher.init(COIN, jax.random.key(0))
    trials = finish_trials([Candidate({"side": "head"})], 0, heads)
    with pytest.raises(InputError, match=r"^this searcher maximises one number, but trial 0 has a reward of 2; "):
        searcher.tell(state, [replace(trials[0], reward=(1.0, 2.0))])


def test_bad_bins_are_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match=r"^Controller's bins must be an integer of at least 1, got 0\.5\.$"):
        Controller(bins=0.5)  # type: ignore[arg-type]


def test_the_fingerprint_names_every_argument_of_every_part() -> None:
    searcher = Controller(policy=Lstm(units=7), update=Ppo(clip=0.3), baseline=Ranks(window=9))
    settings = fingerprint.collect_settings(searcher=searcher)
    assert settings["searcher"] == "l2l.searchers.Controller"
    assert settings["searcher.policy"] == "l2l.searchers.controllers.Lstm"
    assert (settings["searcher.policy.units"], settings["searcher.update.clip"]) == (7, 0.3)
    assert (settings["searcher.baseline"], settings["searcher.baseline.window"]) == (
        "l2l.searchers.controllers.Ranks",
        9,
    )
    assert settings["searcher.bins"] == 16
    record = functools.partial(fingerprint.make_fingerprint, space=COIN, objectives=1)
    for other, words in {
        replace(searcher, update=Ppo(clip=0.2)): r"searcher\.update\.clip 0\.3 -> 0\.2",
        replace(searcher, baseline=LeaveOneOut(window=9)): r"searcher\.baseline .+Ranks -> .+LeaveOneOut",
    }.items():
        with pytest.raises(InputError, match=words):
            fingerprint.check_fingerprint(record(settings), record(fingerprint.collect_settings(searcher=other)), "RUN")
    fingerprint.check_fingerprint(
        record(settings), record(fingerprint.collect_settings(searcher=replace(searcher))), "RUN"
    )


def test_a_controller_is_named_by_its_parts() -> None:
    assert get_title(Controller()) == "reinforce"
    assert get_title(Controller(policy=Lstm(), update=Ppo())) == "ppo_lstm"
