"""The transformer policy: its log-probabilities are those of what it samples, and it reads the trials told."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l.encoding import Encoding
from l2l.errors import InputError
from l2l.searchers.controllers.policy import Experience, make_experience
from l2l.searchers.controllers.transformer import Transformer, TransformerParams
from l2l.testing import SPACES
from l2l.types import Array

DOMAIN = Encoding(SPACES["nested"], bins=4).domain
POLICY = Transformer(context=5)


def spread() -> TransformerParams:
    """Parameters far from where they start."""
    params, draw = POLICY.init(DOMAIN, jax.random.key(0)), np.random.default_rng(0)
    return TransformerParams(*(leaf + draw.normal(0, 0.15, leaf.shape).astype(np.float32) for leaf in params))


@functools.partial(jax.jit, static_argnums=0)
def sample_points(policy: Transformer, params: TransformerParams, past: Experience) -> tuple[Array, Array]:
    uniforms = jax.random.uniform(jax.random.key(1), (40, len(DOMAIN.valid)))
    return policy.sample(params, DOMAIN, uniforms, past)


@functools.partial(jax.jit, static_argnums=0)
def compute_log_probs(
    policy: Transformer, params: TransformerParams, codes: Array, past: Experience
) -> tuple[Array, Array]:
    return policy.compute_log_probs(params, DOMAIN, codes, past)


def make_past(room: int, filled: int, seed: int = 3) -> Experience:
    """A context in which the last `filled` are trials."""
    draw = np.random.default_rng(seed)
    codes = draw.integers(0, DOMAIN.valid.sum(-1), (room, len(DOMAIN.valid))).astype(np.int32)
    numbers = draw.normal(size=(2, room)).astype(np.float32)
    return Experience(*map(jnp.asarray, (codes, *numbers, np.arange(room) >= room - filled)))


@pytest.mark.parametrize(("room", "filled"), [(0, 0), (5, 0), (5, 2), (5, 5), (9, 7)])
def test_log_probabilities_are_those_of_what_is_sampled(room: int, filled: int) -> None:
    params, past = spread(), make_past(room, filled)
    codes, log_probs = sample_points(POLICY, params, past)
    log_probs_again, entropies = compute_log_probs(POLICY, params, codes, past)
    assert np.allclose(log_probs, log_probs_again, atol=1e-5)
    assert len(set(np.round(log_probs, 3).tolist())) > 2
    assert (entropies > 0).all()
    assert (entropies <= np.log(DOMAIN.valid.sum(-1)).sum()).all()


def test_an_empty_context_is_as_good_as_none() -> None:
    params = spread()
    codes, log_probs = sample_points(POLICY, params, make_experience(DOMAIN, 5))
    same, none = sample_points(POLICY, params, make_experience(DOMAIN, 0))
    assert np.array_equal(codes, same)
    assert np.allclose(log_probs, none, atol=1e-5)
    # What stands in places that nothing fills is not read.
    assert np.allclose(compute_log_probs(POLICY, params, codes, make_past(5, 0))[0], log_probs, atol=1e-5)


@pytest.mark.parametrize("filled", [0, 4])
def test_gradients_are_finite_and_reach_every_weight(filled: int) -> None:
    params, past = spread(), make_past(5, filled)
    codes, _ = sample_points(POLICY, params, past)
    weights = jnp.linspace(-1, 1, len(codes))

    def gain(params: TransformerParams) -> Array:
        log_probs, entropies = POLICY.compute_log_probs(params, DOMAIN, codes, past)
        return (weights * log_probs + entropies).sum()

    gradient = jax.jit(jax.grad(gain))(params)
    for name, leaf in zip(gradient._fields, gradient, strict=True):
        assert np.isfinite(leaf).all(), name
        assert bool(np.any(leaf)) == (name != "trial" or filled > 0), name


def test_it_reads_codes_advantages_and_age_of_the_trials() -> None:
    params, past = spread(), make_past(5, 3)
    codes, _ = sample_points(POLICY, params, past)
    before, _ = compute_log_probs(POLICY, params, codes, past)
    other = make_past(5, 3, seed=4)
    changes = {
        "codes": past._replace(codes=other.codes),
        "advantages": past._replace(advantages=other.advantages),
        "order": jax.tree.map(lambda leaf: jnp.concatenate([leaf[:2], leaf[2:][::-1]]), past),
    }
    for name, changed in changes.items():
        assert np.abs(compute_log_probs(POLICY, params, codes, changed)[0] - before).max() > 1e-3, name
    # Only what is a reward's and a choice's: an advantage without bounds is read like a large one.
    large, larger = (past._replace(advantages=jnp.full(5, advantage)) for advantage in (3.0, 1e9))
    assert np.array_equal(*(compute_log_probs(POLICY, params, codes, history)[0] for history in (large, larger)))


def test_it_reads_no_further_back_than_its_context() -> None:
    params, past = spread(), make_past(9, 9)
    codes, log_probs = sample_points(POLICY, params, past)
    short = jax.tree.map(lambda leaf: leaf[-5:], past)
    assert np.allclose(compute_log_probs(POLICY, params, codes, short)[0], log_probs, atol=1e-5)
    longer = compute_log_probs(Transformer(context=9), params, codes, past)[0]
    assert np.abs(longer - log_probs).max() > 1e-3


def test_a_decision_sees_those_before_it_alone() -> None:
    params, past = spread(), make_past(5, 3)
    # Of kind, norm, decay, kernel and depthwise: neither decay nor what follows is active without norm.
    codes = jnp.array([[kind, norm, 3, 3, 1] for kind in (0, 1) for norm in (0, 1)], jnp.int32)
    log_probs, _ = compute_log_probs(POLICY, params, codes, past)
    without = jnp.where(jnp.arange(5) < 2, codes, 0)
    log_probs_without, _ = compute_log_probs(POLICY, params, without, past)
    assert np.allclose(log_probs[::2], log_probs_without[::2], atol=1e-6)
    assert np.abs(log_probs[1::2] - log_probs_without[1::2]).min() > 1e-3


def test_parameters_start_within_their_scales() -> None:
    params = Transformer(units=8, layers=3).init(DOMAIN, jax.random.key(0))
    assert params.attention.shape == params.wide.shape == (3, 8, 32)
    assert params.narrow.shape == (3, 32, 8)
    assert not np.any(params.head_bias)
    assert float(jnp.abs(params.attention).max()) <= math.sqrt(3 / 8)
    assert float(params.embedding.std()) == pytest.approx(1 / math.sqrt(3), rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"units": 0}, "a Transformer's units must be an integer of at least 1, got 0."),
        ({"layers": 1.5}, "a Transformer's layers must be an integer of at least 1, got 1.5."),
        ({"heads": 3}, "a Transformer's units must be a multiple of its heads (3), got 32."),
        ({"context": -1}, "a Transformer's context must be an integer of at least 0, got -1."),
        ({"temperature": 0}, "a Transformer's temperature must be a number above 0, got 0."),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(arguments: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Transformer(**arguments)  # type: ignore[arg-type]
    assert str(caught.value) == sentence
