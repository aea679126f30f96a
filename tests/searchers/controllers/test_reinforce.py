"""REINFORCE as an update: its gradient by hand, trials a step, and the entropy that holds it back."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l.encoding import Encoding
from l2l.errors import InputError
from l2l.searchers.controllers.controller import Controller
from l2l.searchers.controllers.factorised import Factorised
from l2l.searchers.controllers.policy import Experience, make_experience
from l2l.searchers.controllers.reinforce import Reinforce
from l2l.searchers.core.base import ArraySearcherState
from l2l.space import Candidate, Categorical, SearchSpace
from l2l.testing import finish_trials

COIN = SearchSpace({"side": Categorical(options=("head", "tail"))}, lambda values, spec: None)


def flipped(update: Reinforce, reward: Callable[[Candidate], float | None], batches: int = 1) -> ArraySearcherState:
    """The state after batches of two heads and two tails."""
    searcher = Controller(update=update)
    state = searcher.init(COIN, jax.random.key(0))
    sides = [Candidate({"side": side}) for side in ("head", "tail", "head", "tail")]
    for number in range(batches):
        state = searcher.tell(state, finish_trials(sides, 4 * number, reward))
    return state


def heads(candidate: Candidate) -> float:
    return float(candidate.values["side"] == "head")


def test_one_step_by_hand() -> None:
    state = flipped(Reinforce(learning_rate=0.1, minibatch=None, entropy_weight=0), heads)
    # Adam's first step is the learning rate in the gradient's direction, whatever its size.
    assert np.allclose(state.arrays.params, [[0.1, -0.1]], atol=1e-5)
    level = state.arrays.baseline
    assert (level.mean, level.deviation, state.arrays.reward) == pytest.approx((0.5, 0.5, 0.5))
    assert state.arrays.entropy == pytest.approx(math.log(2))


def test_the_gradient_by_hand() -> None:
    domain, policy, update = Encoding(COIN).domain, Factorised(), Reinforce(minibatch=None, entropy_weight=0.5)
    params = jnp.array([[0.7, -0.2]])
    codes, advantages = jnp.array([[0], [0], [1]]), jnp.array([1.0, -0.5, 2.0])
    batch = Experience(codes, advantages, jnp.zeros(3), jnp.ones(3, jnp.bool_))
    _, opt_state, entropy = update.take_steps(
        policy, params, update.start(params), domain, batch, make_experience(domain, 0)
    )
    # d log p(k) / d logits = onehot(k) - p, and d entropy / d logits = -p (log p + entropy).
    p = np.exp([0.7, -0.2]) / np.exp([0.7, -0.2]).sum()
    policy_entropy = -(p * np.log(p)).sum()
    gain = sum(a * (np.eye(2)[k] - p) for k, a in zip([0, 0, 1], advantages, strict=True)) / 3
    gain += 0.5 * -p * (np.log(p) + policy_entropy)
    # Adam's first moment is a tenth of the first gradient, of the loss.
    assert np.allclose(opt_state[0].mu, [-0.1 * gain], atol=1e-6)
    assert float(entropy) == pytest.approx(policy_entropy)


def test_the_whole_batch_or_a_few_trials_a_step() -> None:
    single, odd, whole = (flipped(Reinforce(minibatch=size), heads) for size in (1, 3, None))
    steps = [int(state.arrays.opt_state[0].count) for state in (single, odd, whole)]
    assert steps == [4, 2, 1]
    assert all(state.arrays.params[0, 0] > state.arrays.params[0, 1] for state in (single, odd, whole))


def test_a_policy_learns_what_pays() -> None:
    state = flipped(Reinforce(entropy_weight=0), heads, batches=10)
    asked = Controller().ask(state, jax.random.key(1), 64)
    assert sum(heads(candidate) for candidate in asked) > 58
    assert Controller().summary(state)["entropy"] < 0.4


def test_entropy_holds_the_policy_back() -> None:
    free, regularised = (flipped(Reinforce(entropy_weight=weight), heads, batches=10) for weight in (0.0, 3.0))
    assert regularised.arrays.entropy > free.arrays.entropy + 0.1


def test_failures_are_avoided_even_if_all_rewards_are_equal() -> None:
    state = flipped(Reinforce(), lambda candidate: 0.5 if heads(candidate) else None, batches=10)
    asked = Controller().ask(state, jax.random.key(1), 64)
    assert sum(heads(candidate) for candidate in asked) > 55
    assert state.arrays.baseline.mean == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"learning_rate": 0}, "Reinforce's learning_rate must be a number above 0, got 0."),
        ({"entropy_weight": -1}, "Reinforce's entropy_weight must be a number of at least 0, got -1."),
        ({"minibatch": 0}, "Reinforce's minibatch must be an integer of at least 1 or null, got 0."),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(arguments: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Reinforce(**arguments)  # type: ignore[arg-type]
    assert str(caught.value) == sentence
