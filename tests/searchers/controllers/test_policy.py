"""Every policy samples by its own log-probabilities: against plain sums over every candidate of a small space."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l.encoding import Encoding
from l2l.errors import InputError
from l2l.searchers.controllers.factorised import Factorised
from l2l.searchers.controllers.lstm import Lstm
from l2l.searchers.controllers.policy import Experience, Policy, append_experience, make_experience, sample_codes
from l2l.searchers.controllers.transformer import Transformer
from l2l.space import Categorical, Integer, SearchSpace

SPACE = SearchSpace(
    {
        "kind": Categorical(options=("dense", "conv", "none")),
        "norm": Categorical(options=(False, True), when={"kind": ["dense", "conv"]}),
        "kernel": Integer(low=1, high=4, when={"kind": "conv", "norm": True}),
        "last": Integer(low=0, high=1),
    },
    lambda values, spec: None,
)
DOMAIN = Encoding(SPACE).domain
POLICIES = pytest.mark.parametrize(
    "policy", [Factorised(), Lstm(), Transformer(context=6)], ids=["factorised", "lstm", "transformer"]
)


def spread(policy: Policy) -> object:
    """Parameters far from where they start, so that no two candidates are equally likely."""
    params = policy.init(DOMAIN, jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    draw = np.random.default_rng(0)
    return jax.tree.unflatten(tree, [leaf + draw.normal(0, 0.8, leaf.shape).astype(np.float32) for leaf in leaves])


def every_candidate() -> np.ndarray:
    """Codes [N, D] of all candidates, each once."""
    encoding = Encoding(SPACE)
    codes = np.array(list(itertools.product(range(3), range(2), range(4), range(2))), np.int32)
    return np.unique(np.where(encoding.masks(codes), codes, 0), axis=0)


def make_past() -> Experience:
    """Three trials, and room for three more."""
    past = make_experience(DOMAIN, 6)
    codes = jnp.array([[0, 1, 0, 1], [1, 1, 3, 0], [2, 0, 0, 1]], jnp.int32)
    return append_experience(
        past, Experience(codes, jnp.array([1.0, -2, 0.5]), jnp.array([-3.0, -4, -2]), jnp.ones(3, jnp.bool_))
    )


@functools.partial(jax.jit, static_argnums=0)
def _compute_log_probs(policy: Policy, params: object, codes: jax.Array) -> tuple[jax.Array, jax.Array]:
    return policy.compute_log_probs(params, DOMAIN, codes, make_past())


@functools.partial(jax.jit, static_argnums=0)
def _sample(policy: Policy, params: object, uniforms: jax.Array) -> tuple[jax.Array, jax.Array]:
    return policy.sample(params, DOMAIN, uniforms, make_past())


def compute_log_probs(
    policy: Policy, params: object, codes: np.ndarray | list[list[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities [N] and entropies [N], always compiled for the same N."""
    rows = np.zeros((32, 4), np.int32)
    rows[: len(codes)] = codes
    log_prob, entropy = _compute_log_probs(policy, params, jnp.asarray(rows))
    return np.asarray(log_prob)[: len(codes)], np.asarray(entropy)[: len(codes)]


@POLICIES
def test_probabilities_of_all_candidates_sum_to_one(policy: Policy) -> None:
    codes = every_candidate()
    assert len(codes) == SPACE.count()
    log_prob, _ = compute_log_probs(policy, spread(policy), codes)
    assert float(np.exp(log_prob).sum()) == pytest.approx(1, abs=1e-5)


@POLICIES
def test_mean_entropy_is_the_entropy_of_the_policy(policy: Policy) -> None:
    log_prob, entropy = compute_log_probs(policy, spread(policy), every_candidate())
    prob = np.exp(log_prob)
    assert float((prob * entropy).sum()) == pytest.approx(float(-(prob * log_prob).sum()), abs=1e-5)


@POLICIES
def test_inactive_codes_do_not_matter(policy: Policy) -> None:
    params = spread(policy)
    results = [compute_log_probs(policy, params, [[2, norm, kernel, 1]]) for norm in (0, 1) for kernel in (0, 3)]
    assert len({(float(log_prob[0]), float(entropy[0])) for log_prob, entropy in results}) == 1


@POLICIES
def test_draws_follow_the_probabilities(policy: Policy) -> None:
    params, codes = spread(policy), every_candidate()
    sampled, log_probs = _sample(policy, params, jax.random.uniform(jax.random.key(1), (20_000, 4)))
    assert np.allclose(log_probs[:32], compute_log_probs(policy, params, np.asarray(sampled[:32]))[0], atol=1e-5)
    log_prob, _ = compute_log_probs(policy, params, codes)
    masks = Encoding(SPACE).masks(np.asarray(sampled))
    candidates, counts = np.unique(np.where(masks, sampled, 0), axis=0, return_counts=True)
    shares = {tuple(row): count / 20_000 for row, count in zip(candidates, counts, strict=True)}
    for row, expected in zip(codes, np.exp(log_prob), strict=True):
        assert shares.pop(tuple(row), 0.0) == pytest.approx(expected, abs=0.015)
    assert not shares, "only candidates of the space are drawn"


@POLICIES
def test_first_candidates_are_nearly_uniform(policy: Policy) -> None:
    log_prob, _ = compute_log_probs(policy, policy.init(DOMAIN, jax.random.key(0)), [[1, 1, 2, 0], [2, 0, 0, 1]])
    assert np.allclose(log_prob, np.log([1 / (3 * 2 * 4 * 2), 1 / (3 * 2)]), atol=0.1)


def test_a_context_keeps_the_latest() -> None:
    past = make_experience(DOMAIN, 3)
    assert not past.mask.any()
    ones = jnp.ones(2)
    for number in range(3):
        batch = Experience(jnp.full((2, 4), number), number * ones, -number * ones, ones > 0)
        past = append_experience(past, batch)
    assert past.codes[:, 0].tolist() == past.advantages.tolist() == [1, 2, 2]
    assert past.log_probs.tolist() == [-1, -2, -2]
    assert past.mask.all()
    # A batch that is longer than the context, and a context of none.
    assert append_experience(make_experience(DOMAIN, 1), batch).advantages.tolist() == [2]
    assert append_experience(make_experience(DOMAIN, 0), batch).codes.shape == (0, 4)


def test_a_pick_never_leaves_the_valid_codes() -> None:
    valid = jnp.array([True, True, True, False])
    log_probs = jnp.log(jnp.array([0.0, 0.3, 0.7, 0.0]) + 1e-45)
    edges = jnp.array([0.0, 0.29999, 0.5, 1 - 2**-24], jnp.float32)
    assert sample_codes(jnp.broadcast_to(log_probs, (4, 4)), valid, edges).tolist() == [1, 1, 2, 2]


def test_the_lstm_is_the_papers() -> None:
    params = Lstm().init(DOMAIN, jax.random.key(0))
    assert params.kernel.shape == (2, 70, 140)
    assert params.embedding.shape == (4, 5, 35)
    for leaf in params:
        assert float(jnp.abs(leaf).max()) <= 0.08
    assert float(params.kernel.std()) == pytest.approx(0.16 / 12**0.5, rel=0.05)


def test_the_lstm_sees_what_was_decided_before() -> None:
    params = spread(Lstm())
    before = [compute_log_probs(Lstm(), params, [[kind, 0, 0, 0]]) for kind in (0, 1)]
    after = [compute_log_probs(Lstm(), params, [[kind, 0, 0, 1]]) for kind in (0, 1)]
    odds = [float(a[0][0] - b[0][0]) for a, b in zip(after, before, strict=True)]
    assert abs(odds[0] - odds[1]) > 0.01


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"units": 0}, "an Lstm's units must be an integer of at least 1, got 0."),
        ({"layers": 1.5}, "an Lstm's layers must be an integer of at least 1, got 1.5."),
        ({"scale": 0}, "an Lstm's scale must be a number above 0, got 0."),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(arguments: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Lstm(**arguments)  # type: ignore[arg-type]
    assert str(caught.value) == sentence


@pytest.mark.parametrize("policy", [Factorised, Lstm, Transformer])
def test_a_higher_temperature_draws_more_evenly(policy: type[Lstm]) -> None:
    params = spread(policy())
    cold, warm = (
        compute_log_probs(policy(temperature=temperature), params, every_candidate())[0] for temperature in (1.0, 50.0)
    )
    assert warm.std() < cold.std()
    assert np.allclose(np.exp(warm).sum(), 1, atol=1e-5)
    with pytest.raises(InputError, match=r" temperature must be a number above 0, got 0\.$"):
        policy(temperature=0)
