"""REINFORCE: the contract with both policies, its gradient by hand, and what a failed trial does."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np
import pytest

from l2l.encoding import Encoding
from l2l.errors import InputError
from l2l.searchers.lstm import Lstm
from l2l.searchers.reinforce import Baseline, Reinforce, ReinforceState
from l2l.space import Candidate, Categorical, SearchSpace
from l2l.testing import SPACES, TOY, SearcherContract, finished, toy_reward

NAN = math.nan
COIN = SearchSpace({"side": Categorical(options=("head", "tail"))}, lambda values, spec: None)


class TestReinforce(SearcherContract):
    def searcher(self) -> Reinforce:
        return Reinforce()


class TestReinforceLstm(SearcherContract):
    def searcher(self) -> Reinforce:
        return Reinforce(policy=Lstm(), learning_rate=0.005)


def flipped(searcher: Reinforce, reward: Callable[[Candidate], float | None], batches: int = 1) -> ReinforceState:
    """The state after batches of two heads and two tails."""
    state = searcher.init(COIN, jax.random.key(0))
    sides = [Candidate({"side": side}) for side in ("head", "tail", "head", "tail")]
    for number in range(batches):
        state = searcher.tell(state, finished(sides, 4 * number, reward))
    return state


def heads(candidate: Candidate) -> float:
    return float(candidate.values["side"] == "head")


def test_one_step_by_hand() -> None:
    state = flipped(Reinforce(learning_rate=0.1, minibatch=None, entropy_weight=0), heads)
    # Adam's first step is the learning rate in the gradient's direction, whatever its size.
    assert np.allclose(state.params, [[0.1, -0.1]], atol=1e-5)
    assert (state.baseline.mean, state.baseline.spread, state.reward) == pytest.approx((0.5, 0.5, 0.5))
    assert state.entropy == pytest.approx(math.log(2))


def test_the_whole_batch_or_a_few_trials_a_step() -> None:
    each, odd, whole = (flipped(Reinforce(minibatch=size), heads) for size in (1, 3, None))
    steps = [int(state.moments[0].count) for state in (each, odd, whole)]
    assert steps == [4, 2, 1]
    assert all(state.params[0, 0] > state.params[0, 1] for state in (each, odd, whole))


def test_a_policy_learns_what_pays() -> None:
    state = flipped(Reinforce(entropy_weight=0), heads, batches=10)
    asked = Reinforce().ask(state, jax.random.key(1), 64)
    assert sum(heads(candidate) for candidate in asked) > 58
    assert Reinforce().summary(state)["entropy"] < 0.4


def test_entropy_holds_the_policy_back() -> None:
    free, held = (flipped(Reinforce(entropy_weight=weight), heads, batches=10) for weight in (0.0, 3.0))
    assert held.entropy > free.entropy + 0.1


def test_failures_are_avoided_even_if_all_rewards_are_equal() -> None:
    state = flipped(Reinforce(), lambda candidate: 0.5 if heads(candidate) else None, batches=10)
    asked = Reinforce().ask(state, jax.random.key(1), 64)
    assert sum(heads(candidate) for candidate in asked) > 55
    assert state.baseline.mean == pytest.approx(0.5)


def test_before_any_reward_failures_say_nothing() -> None:
    state = flipped(Reinforce(), lambda candidate: None, batches=3)
    assert not np.any(state.params)
    assert Reinforce().summary(state) == {}


def test_the_baseline_is_a_moving_average() -> None:
    first = Baseline().update(np.array([1.0, 3.0, NAN]), 0.5)
    assert first == pytest.approx((2.0, 1.0, 0.75, 1.0))
    second = first.update(np.array([6.0]), 0.5)
    # The past weighs 0.375, the new 0.5.
    assert second.mean == pytest.approx((0.375 * 2 + 0.5 * 6) / 0.875)
    assert second.update(np.array([NAN]), 0.5) == second


def test_advantages_are_finite_and_clipped() -> None:
    baseline = Baseline(mean=1.0, spread=0.5, weight=1.0, lowest=0.8)
    assert baseline.advantages(np.array([1.5, 100.0, NAN]), True).tolist() == [1, 3, -1]
    assert baseline.advantages(np.array([1.5, NAN]), False).tolist() == [0.5, -0.5]
    assert Baseline(1.0, 0.5, 1.0, -1.0).advantages(np.array([NAN]), False).tolist() == [-2]
    flat = Baseline(mean=1.0, spread=0.0, weight=1.0, lowest=1.0)
    assert flat.advantages(np.array([1.0, NAN]), True).tolist() == [0, -1]
    assert flat.advantages(np.array([1e300, NAN]), False).tolist() == [1e9, 0]
    assert Baseline().advantages(np.array([NAN]), True).tolist() == [0]


def test_notes_hold_the_log_probability() -> None:
    state = Reinforce().init(COIN, jax.random.key(0))
    assert [each.note for each in Reinforce().ask(state, jax.random.key(1), 2)] == [
        {"log_prob": pytest.approx(-math.log(2))}
    ] * 2


def test_the_state_is_a_pytree_of_numbers() -> None:
    state = Reinforce(policy=Lstm()).init(SPACES["nested"], jax.random.key(0))
    doubled = jax.tree.map(lambda leaf: leaf * 2, state)
    assert doubled.encoding == Encoding(SPACES["nested"])
    assert np.allclose(doubled.params.kernel, 2 * state.params.kernel)


def test_a_search_compiles_once(caplog: pytest.LogCaptureFixture) -> None:
    searcher = Reinforce(learning_rate=0.0123)
    state = searcher.init(TOY, jax.random.key(0))
    compiled: list[bool] = []
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        for number in range(4):
            caplog.clear()
            asked = searcher.ask(state, jax.random.key(number), 4)
            state = searcher.tell(state, finished(asked, 4 * number, _reward))
            compiled.append(any("ompil" in record.message for record in caplog.records))
    assert compiled == [True, False, False, False]


def _reward(candidate: Candidate) -> float:
    return toy_reward(candidate.values)


def test_optuna_is_not_imported() -> None:
    code = "import sys, l2l.searchers.reinforce, l2l.searchers.lstm, l2l.searchers.evolution; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"optuna", "hydra", "wandb", "flax"} & set(modules)


def test_two_objectives_are_refused() -> None:
    searcher = Reinforce()
    state = searcher.init(COIN, jax.random.key(0))
    trials = finished([Candidate({"side": "head"})], 0, heads)
    with pytest.raises(InputError, match=r"^this searcher maximises one number, but trial 0 has a reward of 2; "):
        searcher.tell(state, [replace(trials[0], reward=(1.0, 2.0))])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"learning_rate": 0}, "Reinforce's learning_rate must be above 0, got 0."),
        ({"baseline_decay": 1.0}, "Reinforce's baseline_decay must be in [0, 1), got 1.0."),
        ({"entropy_weight": -1}, "Reinforce's entropy_weight must be at least 0, got -1."),
        ({"minibatch": 0}, "Reinforce's minibatch must be a whole number of at least 1, or none, got 0."),
        ({"bins": 0.5}, "Reinforce's bins must be a whole number of at least 1, got 0.5."),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(arguments: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Reinforce(**arguments)  # type: ignore[arg-type]
    assert str(caught.value) == sentence
