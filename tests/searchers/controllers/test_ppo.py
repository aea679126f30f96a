"""Proximal policy optimisation: the clipped objective by hand, its replay, and that it learns."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l.encoding import Encoding
from l2l.errors import InputError
from l2l.searchers.controllers.controller import Controller
from l2l.searchers.controllers.factorised import Factorised
from l2l.searchers.controllers.policy import Experience, append_experience, make_experience
from l2l.searchers.controllers.ppo import Ppo
from l2l.space import Candidate, Categorical, SearchSpace
from l2l.testing import finish_trials

COIN = SearchSpace({"side": Categorical(options=("head", "tail"))}, lambda values, spec: None)
DOMAIN = Encoding(COIN).domain
EVEN = jnp.log(jnp.array([0.5, 0.5]))


def trials(codes: list[int], advantages: list[float], log_probs: list[float] | None = None) -> Experience:
    old = log_probs or [float(EVEN[0])] * len(codes)
    filled = jnp.ones(len(codes), jnp.bool_)
    return Experience(jnp.array(codes)[:, None], jnp.array(advantages), jnp.array(old), filled)


@functools.partial(jax.jit, static_argnums=0)
def _steps(update: Ppo, params: Any, batch: Experience, past: Experience) -> Any:
    return update.take_steps(Factorised(), params, update.start(params), DOMAIN, batch, past)


def gradient(update: Ppo, params: list[float], batch: Experience, past: Experience | None = None) -> np.ndarray:
    """The gradient [K] of the objective at these logits: ten times Adam's first moment after one step."""
    past = make_experience(DOMAIN, update.replay) if past is None else past
    _, opt_state, _ = _steps(update, jnp.array([params], jnp.float32), batch, past)
    return -10 * np.asarray(opt_state[0].mu)[0]


PLAIN = Ppo(epochs=1, entropy_weight=0, minibatch=None, clip=0.2)


def test_the_first_step_is_the_policy_gradient() -> None:
    # Ratios of 1: the gradient of the mean of advantage times log-probability.
    assert gradient(PLAIN, [0, 0], trials([0, 0, 1], [1, -0.5, 2])) == pytest.approx(
        [(0.5 - 0.25 - 1) / 3, (-0.5 + 0.25 + 1) / 3], abs=1e-6
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "share"),
    [(1.1, 2.0, 1.1), (1.3, 2.0, 0.0), (0.7, 2.0, 0.7), (0.7, -2.0, 0.0), (1.3, -2.0, 1.3), (0.9, -2.0, 0.9)],
)
def test_a_ratio_beyond_the_clip_counts_for_nothing(ratio: float, advantage: float, share: float) -> None:
    batch = trials([0], [advantage], [float(EVEN[0]) - np.log(ratio)])
    expected = share * advantage * np.array([0.5, -0.5])
    assert gradient(PLAIN, [0, 0], batch) == pytest.approx(expected, abs=1e-5)


def test_past_trials_are_learnt_from_again() -> None:
    old, new = trials([0, 1, 1], [3, -1, -2]), trials([1], [0.5])
    together = trials([0, 1, 1, 1], [3, -1, -2, 0.5])
    replaying = replace(PLAIN, replay=4)
    past = append_experience(make_experience(DOMAIN, 4), old)
    assert not past.mask.all()
    assert np.allclose(gradient(replaying, [0, 0], new, past), gradient(PLAIN, [0, 0], together), atol=1e-6)
    # A policy may look back further than is replayed.
    last = replace(PLAIN, replay=1)
    assert np.allclose(gradient(last, [0, 0], new, past), gradient(PLAIN, [0, 0], trials([1, 1], [-2, 0.5])), atol=1e-6)
    assert np.allclose(gradient(PLAIN, [0, 0], new, past), gradient(PLAIN, [0, 0], new), atol=1e-6)


def test_a_trial_that_was_never_likely_does_no_harm() -> None:
    batch = trials([0, 1], [-3.0, 1.0], [-200.0, float(EVEN[0])])
    assert np.isfinite(gradient(PLAIN, [0, 0], batch)).all()


def test_epochs_stop_at_the_edge_of_the_trusted_region() -> None:
    update = replace(PLAIN, epochs=60, learning_rate=0.02)
    params, opt_state, entropy = _steps(update, jnp.zeros((1, 2)), trials([0, 1], [1, -1]), make_experience(DOMAIN, 0))
    head = float(jax.nn.softmax(params[0])[0])
    # Beyond a ratio of 1.2 nothing pushes on but Adam's momentum.
    assert 0.6 <= head < 0.75
    assert int(opt_state[0].count) == 60
    assert float(entropy) == pytest.approx(np.log(2))
    free, _, _ = _steps(
        replace(update, clip=0.9), jnp.zeros((1, 2)), trials([0, 1], [1, -1]), make_experience(DOMAIN, 0)
    )
    assert float(jax.nn.softmax(free[0])[0]) > head + 0.1


def test_the_whole_batch_or_a_few_trials_a_step() -> None:
    batch = trials([0, 1, 0, 1], [1, -1, 1, -1])
    for size, count in ((1, 8), (3, 4), (None, 2)):
        params, opt_state, _ = _steps(
            Ppo(epochs=2, minibatch=size), jnp.zeros((1, 2)), batch, make_experience(DOMAIN, 0)
        )
        assert int(opt_state[0].count) == count
        assert params[0, 0] > 0 > params[0, 1]


@pytest.mark.parametrize("size", [1, 4])
def test_a_policy_learns_what_pays(size: int) -> None:
    searcher = Controller(update=Ppo(replay=8))
    state = searcher.init(COIN, jax.random.key(0))
    sides = [Candidate({"side": side}) for side in ("head", "tail")] * 20
    for first in range(0, 40, size):
        batch = finish_trials(
            sides[first : first + size], first, lambda candidate: float(candidate.values["side"] == "head")
        )
        state = searcher.tell(state, batch)
    assert state.arrays.params[0, 0] > state.arrays.params[0, 1] + 0.5
    assert state.arrays.past.mask.all()
    assert searcher.summary(state)["baseline"] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"learning_rate": 0}, "Ppo's learning_rate must be a number above 0, got 0."),
        ({"entropy_weight": -1}, "Ppo's entropy_weight must be a number of at least 0, got -1."),
        ({"clip": 1}, "Ppo's clip must be a number above 0 and below 1, got 1."),
        ({"minibatch": 0}, "Ppo's minibatch must be an integer of at least 1 or null, got 0."),
        ({"epochs": 0}, "Ppo's epochs must be an integer of at least 1, got 0."),
        ({"replay": -1}, "Ppo's replay must be an integer of at least 0, got -1."),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(arguments: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Ppo(**arguments)  # type: ignore[arg-type]
    assert str(caught.value) == sentence
