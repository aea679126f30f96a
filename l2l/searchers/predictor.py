"""Predictor-based search: an ensemble of small networks predicts the rewards of mutations of the best candidates.

Source: White et al. 2021, BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture Search,
AAAI, algorithm 1 (one-hot encoding; the ensemble trains further after each trial, not from scratch after ten).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from l2l.encoding import Domain
from l2l.errors import check_integer
from l2l.searchers.core.base import ArraySearcher, Proposal
from l2l.searchers.core.points import (
    History,
    Points,
    choose_capacity,
    choose_decisions,
    compute_uniforms,
    is_active,
    is_repeat,
    make_history,
    mutate_points,
    pad_history,
    sample_points,
    zero_inactive,
)
from l2l.types import Array, Key

WIDTH = 32
"""Units of each hidden layer."""
LEARNING_RATE = 0.01
MINIBATCH = 32


class Networks(NamedTuple):
    """An ensemble of networks with F inputs and two hidden layers of U units."""

    first: Array
    """[networks, F, U]"""
    second: Array
    """[networks, U, U]"""
    last: Array
    """[networks, U]"""
    biases: Array
    """[networks, 2, U]"""
    offset: Array
    """[networks]"""


class PredictorState(NamedTuple):
    """All trials, and the networks that were trained on them."""

    history: History
    networks: Networks
    opt_state: optax.OptState
    key: Key


@dataclass(frozen=True)
class Predictor(ArraySearcher):
    """Random candidates at first, then mutations of the best: the one that maximises a Thompson sample of the ensemble.

    Raises: InputError if a number is below 1.
    """

    first: int = 20
    """Random trials to begin with."""
    ensemble: int = 5
    steps: int = 10
    """Steps of Adam for each trial."""
    parents: int = 10
    """Number of the best trials that are mutated."""
    mutations: int = 128
    """Mutations to choose from, at least four for each candidate of a batch; each changes one to three decisions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("first", "ensemble", "steps", "parents", "mutations"):
            check_integer(f"Predictor's {name}", getattr(self, name), 1)

    def start(self, domain: Domain, key: Key) -> PredictorState:
        """Untrained networks."""
        rows, width = domain.valid.shape
        inputs, count = rows * (width + 2), self.ensemble
        keys = jax.random.split(key, 4)
        networks = Networks(
            jax.random.normal(keys[0], (count, inputs, WIDTH)) / rows**0.5,
            jax.random.normal(keys[1], (count, WIDTH, WIDTH)) / WIDTH**0.5,
            jax.random.normal(keys[2], (count, WIDTH)) / WIDTH**0.5,
            jnp.zeros((count, 2, WIDTH)),
            jnp.zeros(count),
        )
        return PredictorState(make_history(domain), networks, optax.adam(LEARNING_RATE).init(networks), keys[3])  # pyright: ignore[reportArgumentType]

    def reserve(self, state: PredictorState, count: int) -> PredictorState:
        """The same state with capacity for `count` trials in all."""
        return state._replace(history=pad_history(state.history, choose_capacity(count)))

    def propose(self, state: PredictorState, domain: Domain, key: Key, count: int) -> Proposal:
        """`count` candidates, each by a Thompson sample of its own."""
        keys, history = jax.random.split(key, 6), state.history
        scores = jnp.where(history.has_trial(), history.impute_scores(), -jnp.inf)
        parent_count, child_count = min(self.parents, len(scores)), max(self.mutations, 4 * count)
        _, best = jax.lax.top_k(scores, parent_count)
        parent = jax.random.randint(keys[0], (child_count,), 0, jnp.clip(history.count, 1, parent_count))
        parents = history.points.take(best[parent])
        size, step = jax.random.uniform(keys[1], (2, child_count, 1))
        chosen = choose_decisions(domain, parents.codes, keys[2], 1 + jnp.floor(3 * size).astype(jnp.int32))
        children = zero_inactive(domain, mutate_points(domain, parents, chosen, keys[3], 0.02 * 15**step))
        predictions = predict_rewards(state.networks, encode_points(domain, children))  # [networks, children]
        mean, std = predictions.mean(0), predictions.std(0)
        samples = mean + std * jax.random.normal(keys[4], (count, child_count))
        was_tried = is_repeat(history, children.codes) & jnp.asarray(domain.exact).all()
        best_children, values = self._choose_distinct(jnp.where(was_tried, -jnp.inf, samples))
        fresh = zero_inactive(domain, sample_points(domain, keys[5], count))
        is_random = ((history.count + jnp.arange(count) < self.first) | ~jnp.isfinite(values))[:, None]
        pairs = zip(fresh, children.take(best_children), strict=True)
        points = Points(*(jnp.where(is_random, a, b) for a, b in pairs))
        return Proposal(points.codes, compute_uniforms(domain, points), {})

    def _choose_distinct(self, samples: Array) -> tuple[Array, Array]:
        """The best column [N] of each row of samples [N, children], no column twice, and its value [N]."""

        def choose(is_taken: Array, row: Array) -> tuple[Array, tuple[Array, Array]]:
            values = jnp.where(is_taken, -jnp.inf, row)
            best = jnp.argmax(values)
            return is_taken.at[best].set(True), (best, values[best])

        return jax.lax.scan(choose, jnp.zeros(samples.shape[1], jnp.bool_), samples)[1]

    def learn(self, state: PredictorState, domain: Domain, points: Points, scores: Array) -> PredictorState:
        """The state after N trials: `steps` steps of Adam on the whole history for each of them."""
        history = state.history.append(zero_inactive(domain, points), scores)
        features, targets = encode_points(domain, history.points), scale_scores(history)
        key = jax.random.fold_in(state.key, history.count)
        shape = (self.steps * len(scores), self.ensemble, MINIBATCH)
        uniforms = jax.random.uniform(key, shape)
        minibatches = jnp.minimum(jnp.floor(uniforms * history.count).astype(jnp.int32), history.count - 1)

        def step(carry: tuple[Networks, optax.OptState], rows: Array) -> tuple[tuple[Networks, optax.OptState], None]:
            networks, opt_state = carry

            def loss(networks: Networks) -> Array:
                predictions = predict_rewards(networks, features[rows])
                return ((predictions - targets[rows]) ** 2).mean(1).sum()

            updates, opt_state = optax.adam(LEARNING_RATE).update(jax.grad(loss)(networks), opt_state)
            return (optax.apply_updates(networks, updates), opt_state), None  # pyright: ignore[reportReturnType, reportArgumentType]

        (networks, opt_state), _ = jax.lax.scan(step, (state.networks, state.opt_state), minibatches)
        return PredictorState(history, networks, opt_state, state.key)

    def summarise(self, state: PredictorState) -> Mapping[str, Array]:
        """The best reward."""
        has_score = state.history.has_score()
        best = jnp.where(has_score, state.history.scores, -jnp.inf).max()
        return {"best": jnp.where(has_score.any(), best, jnp.nan)}


def encode_points(domain: Domain, points: Points) -> Array:
    """Features [N, D * (K + 2)] of points [N, D]: each decision's option, or none, as one-hot, and its quantile."""
    width = domain.valid.shape[1]
    mask = is_active(domain, points.codes)
    one_hot = jax.nn.one_hot(jnp.where(mask, points.codes, width), width + 1)
    quantiles = jnp.where(mask & jnp.asarray(domain.ordinal), points.quantiles - 0.5, 0)
    return jnp.concatenate([one_hot, quantiles[..., None]], -1).reshape(len(one_hot), -1)


def predict_rewards(networks: Networks, features: Array) -> Array:
    """Standardised rewards [networks, N] that they predict from features [N, F], or [networks, N, F]."""
    hidden = jax.nn.relu(features @ networks.first + networks.biases[:, None, 0])
    hidden = jax.nn.relu(hidden @ networks.second + networks.biases[:, None, 1])
    return jnp.einsum("enw,ew->en", hidden, networks.last) + networks.offset[:, None]


def scale_scores(history: History) -> Array:
    """Rewards [capacity] with mean 0 and a scale of about 1, outliers clipped at three; 0 where there is no trial."""
    scores, has_trial = history.impute_scores(), history.has_trial()
    count = jnp.maximum(history.count, 1)
    mean = jnp.where(has_trial, scores / count, 0).sum()
    deviation = jnp.where(has_trial, jnp.abs(scores - mean) / count, 0).sum()
    # For a normal distribution 1.25 mean absolute deviations are one standard deviation.
    scaled = jnp.clip((scores - mean) / jnp.maximum(1.25 * deviation, 1e-30), -3, 3)
    return jnp.where(has_trial, scaled, 0)
