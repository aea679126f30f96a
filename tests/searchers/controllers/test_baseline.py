"""Baselines: each one's advantages by hand, and what all owe: finite numbers that keep the order of the rewards."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l.errors import InputError
from l2l.searchers.controllers.baseline import Averages, Baseline, LeaveOneOut, MovingAverage, Ranks
from l2l.searchers.core.base import MAX_REWARD

NAN = math.nan
ALL = [MovingAverage(), MovingAverage(normalise=False), LeaveOneOut(window=8), Ranks(window=8)]
BASELINES = pytest.mark.parametrize("baseline", ALL, ids=["moving", "plain", "leave_one_out", "ranks"])
_compare = jax.jit(lambda baseline, known, scores: baseline.compute_advantages(known, scores), static_argnums=0)


def compared(baseline: Baseline, *batches: list[float], known: Any = None) -> tuple[list[float], Any]:
    """The advantages of the last batch, and what is known after it."""
    known, advantages = baseline.start() if known is None else known, np.zeros(0)
    for batch in batches:
        advantages, known = _compare(baseline, known, jnp.asarray(batch, jnp.float32))
    return np.asarray(advantages).tolist(), known


def averages(mean: float, spread: float, weight: float, lowest: float) -> Averages:
    return Averages(*(jnp.float32(value) for value in (mean, spread, weight, lowest)))


def test_a_moving_average_by_hand() -> None:
    baseline = MovingAverage(decay=0.5)
    _, first = compared(baseline, [1, 3, NAN])
    assert [float(value) for value in first] == pytest.approx([2.0, 1.0, 0.75, 1.0])
    _, second = compared(baseline, [6], known=first)
    # The past weighs 0.375, the new 0.5.
    assert float(second.mean) == pytest.approx((0.375 * 2 + 0.5 * 6) / 0.875)
    assert compared(baseline, [NAN], known=second)[1] == second


def test_a_moving_average_gives_finite_and_clipped_advantages() -> None:
    before, plain = averages(1.0, 0.5, 1.0, 0.8), MovingAverage(normalise=False)
    assert compared(MovingAverage(), [1.5, 100, NAN], known=before)[0] == [1, 3, -1]
    assert compared(plain, [1.5, NAN], known=before)[0] == [0.5, -0.5]
    assert compared(plain, [NAN], known=averages(1, 0.5, 1, -1))[0] == [-2]
    flat = averages(1.0, 0.0, 1.0, 1.0)
    assert compared(MovingAverage(), [1, NAN], known=flat)[0] == [0, -1]
    assert compared(plain, [1e30, NAN], known=flat)[0] == pytest.approx([1e9, 0])
    assert compared(MovingAverage(), [NAN])[0] == [0]


def test_one_is_left_out_by_hand() -> None:
    advantages, _ = compared(LeaveOneOut(), [0, 1, 5])
    # Each against the mean of the two others, in mean distances from the mean of all: 2.
    assert advantages == pytest.approx([-1.5, -0.75, 2.25])
    # The window reaches back, and what has left it counts no more.
    advantages, known = compared(LeaveOneOut(window=3), [100, 0, 1], [NAN], known=None)
    assert advantages == pytest.approx([-1.0], abs=0.6)
    assert float(LeaveOneOut().estimate_reward(known)) == pytest.approx(0.5)


def test_ranks_by_hand() -> None:
    advantages, known = compared(Ranks(window=4), [3, 1, NAN, 3, 7])
    assert advantages == pytest.approx([0.25, -0.5, -1, 0.25, 1])
    assert float(Ranks().estimate_reward(known)) == pytest.approx(11 / 3)
    # Scale and shape of the rewards do not matter.
    assert compared(Ranks(window=4), [1e9, -1e9, NAN, 1e9, 2e9])[0] == advantages
    assert compared(Ranks(window=4), [5], known=known)[0] == pytest.approx([0.5])


@BASELINES
def test_before_any_reward_failures_say_nothing(baseline: Baseline) -> None:
    advantages, known = compared(baseline, [NAN, NAN], [NAN, NAN])
    assert advantages == [0, 0]
    assert math.isnan(baseline.estimate_reward(known))
    assert math.isnan(baseline.estimate_reward(baseline.start()))


@BASELINES
def test_a_failure_is_the_worst(baseline: Baseline) -> None:
    for batch in ([0.5, NAN, 0.5], [-3.0, NAN, 2.0]):
        advantages, _ = compared(baseline, batch)
        assert advantages[1] <= min(advantages)
        assert advantages[1] < 0 or not getattr(baseline, "normalise", True)
        later, _ = compared(baseline, batch, [NAN])
        assert later[0] <= advantages[0]


@BASELINES
@settings(deadline=None)
@given(data=st.lists(st.one_of(st.floats(-MAX_REWARD, MAX_REWARD, width=32), st.just(NAN)), min_size=5, max_size=5))
def test_advantages_are_finite_and_in_the_order_of_the_rewards(baseline: Baseline, data: list[float]) -> None:
    first, known = compared(baseline, data)
    second, after = compared(baseline, data, known=known)
    for advantages in (first, second):
        assert all(math.isfinite(value) for value in advantages)
        ranked = sorted(
            (reward, advantage) for reward, advantage in zip(data, advantages, strict=True) if reward == reward
        )
        assert [value for _, value in ranked] == sorted(value for _, value in ranked)
    level = float(baseline.estimate_reward(after))
    assert math.isfinite(level) == any(value == value for value in data)


@BASELINES
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_the_scale_of_the_rewards_does_not_matter(baseline: Baseline, scale: float) -> None:
    if not getattr(baseline, "normalise", True):
        pytest.skip("keeps the scale of the rewards")
    batches = [[0.1, 0.7, 0.4], [0.9, NAN, 0.2]]
    plain, _ = compared(baseline, *batches)
    scaled, _ = compared(baseline, *([scale * value for value in batch] for batch in batches))
    assert scaled == pytest.approx(plain, abs=1e-4)
    assert compared(baseline, [0, 0, 0], [0, 0, 0])[0] == [0, 0, 0]


@BASELINES
def test_equal_rewards_are_equal_for_ever(baseline: Baseline) -> None:
    def step(known: Any, score: Any) -> Any:
        advantages, known = baseline.compute_advantages(known, score[None])
        return known, advantages[0]

    known = jax.tree.map(jnp.asarray, baseline.start())
    for reward in (0.1, 0.97, 12345.678):
        _, advantages = jax.lax.scan(step, known, jnp.full(3000, reward, jnp.float32))
        assert np.abs(advantages).max() <= 1e-6


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: MovingAverage(decay=1.0),
            "MovingAverage's decay must be a number of at least 0 and below 1, got 1.0.",
        ),
        (lambda: LeaveOneOut(window=1), "LeaveOneOut's window must be an integer of at least 2, got 1."),
        (lambda: Ranks(window=2.5), "Ranks's window must be an integer of at least 2, got 2.5."),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(make: Any, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == sentence


def test_baselines_are_told_apart() -> None:
    assert LeaveOneOut() != Ranks()
    assert len({LeaveOneOut(), LeaveOneOut(), Ranks(), Ranks(window=3)}) == 3
