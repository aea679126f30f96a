"""Predictor-based search: an ensemble of small networks guesses rewards, and mutations of the best are tried.

Source: White et al. 2021, BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture Search,
AAAI, algorithm 1 (one-hot encoding; the ensemble is trained on after each trial instead of anew after each ten).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from l2l.encoding import Domain
from l2l.errors import InputError
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
RATE = 0.01
MINIBATCH = 32


class Networks(NamedTuple):
    """E networks of two hidden layers, F inputs."""

    first: Array
    """[E, F, W]"""
    second: Array
    """[E, W, W]"""
    last: Array
    """[E, W]"""
    biases: Array
    """[E, 2, W]"""
    offset: Array
    """[E]"""


class Learnt(NamedTuple):
    """All trials, and the networks that were trained on them."""

    history: History
    networks: Networks
    opt_state: optax.OptState
    key: Key


@dataclass(frozen=True)
class Predictor(ArraySearcher):
    """Random candidates at first; then the mutation of the best that one draw of the ensemble's beliefs prefers.

    Raises: InputError if a number is below 1.
    """

    first: int = 20
    """Random trials to begin with."""
    ensemble: int = 5
    steps: int = 10
    """Of Adam, for each trial."""
    parents: int = 10
    """The best, which are mutated."""
    mutations: int = 128
    """Candidates to choose from, and four for each that is asked for at least; one to three decisions are changed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("first", "ensemble", "steps", "parents", "mutations"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InputError(f"Predictor's {name} must be a whole number of at least 1, got {value!r}.")

    def start(self, domain: Domain, key: Key) -> Learnt:
        """Networks as they are drawn."""
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
        return Learnt(make_history(domain), networks, optax.adam(RATE).init(networks), keys[3])  # pyright: ignore[reportArgumentType]

    def reserve(self, state: Learnt, count: int) -> Learnt:
        """The same state with room for `count` trials in all."""
        return state._replace(history=pad_history(state.history, choose_capacity(count)))

    def propose(self, state: Learnt, domain: Domain, key: Key, count: int) -> Proposal:
        """`count` candidates, each chosen by beliefs of its own."""
        keys, kept = jax.random.split(key, 6), state.history
        scores = jnp.where(kept.has_trial(), kept.impute_scores(), -jnp.inf)
        among, many = min(self.parents, len(scores)), max(self.mutations, 4 * count)
        _, order = jax.lax.top_k(scores, among)
        parents = kept.points.take(order[jax.random.randint(keys[0], (many,), 0, jnp.clip(kept.count, 1, among))])
        size, step = jax.random.uniform(keys[1], (2, many, 1))
        chosen = choose_decisions(domain, parents.codes, keys[2], 1 + jnp.floor(3 * size).astype(jnp.int32))
        children = zero_inactive(domain, mutate_points(domain, parents, chosen, keys[3], 0.02 * 15**step))
        guesses = predicted(state.networks, inputs(domain, children))  # [E, M]
        draws = guesses.mean(0) + guesses.std(0) * jax.random.normal(keys[4], (count, many))
        stale = is_repeat(kept, children.codes) & jnp.asarray(domain.exact).all()
        picked, values = self._apart(jnp.where(stale, -jnp.inf, draws))
        fresh = zero_inactive(domain, sample_points(domain, keys[5], count))
        early = ((kept.count + jnp.arange(count) < self.first) | ~jnp.isfinite(values))[:, None]
        points = Points(*(jnp.where(early, a, b) for a, b in zip(fresh, children.take(picked), strict=True)))
        return Proposal(points.codes, compute_uniforms(domain, points), {})

    def _apart(self, draws: Array) -> tuple[Array, Array]:
        """The best column [N] of each row of draws [N, M], none of them twice, and its value."""

        def one(taken: Array, row: Array) -> tuple[Array, tuple[Array, Array]]:
            left = jnp.where(taken, -jnp.inf, row)
            best = jnp.argmax(left)
            return taken.at[best].set(True), (best, left[best])

        return jax.lax.scan(one, jnp.zeros(draws.shape[1], jnp.bool_), draws)[1]

    def learn(self, state: Learnt, domain: Domain, points: Points, scores: Array) -> Learnt:
        """Some steps of Adam on what is known now, `steps` for each trial."""
        kept = state.history.append(zero_inactive(domain, points), scores)
        features, targets = inputs(domain, kept.points), scaled(kept)
        draw = jax.random.fold_in(state.key, kept.count)
        total = self.steps * len(scores)
        shape = (total, self.ensemble, MINIBATCH)
        picks = jnp.minimum(jnp.floor(jax.random.uniform(draw, shape) * kept.count).astype(jnp.int32), kept.count - 1)

        def step(carry: tuple[Networks, optax.OptState], rows: Array) -> tuple[tuple[Networks, optax.OptState], None]:
            networks, opt_state = carry

            def loss(networks: Networks) -> Array:
                found = predicted(networks, features[rows])
                return ((found - targets[rows]) ** 2).mean(1).sum()

            updates, opt_state = optax.adam(RATE).update(jax.grad(loss)(networks), opt_state)
            return (optax.apply_updates(networks, updates), opt_state), None  # pyright: ignore[reportReturnType, reportArgumentType]

        (networks, opt_state), _ = jax.lax.scan(step, (state.networks, state.opt_state), picks)
        return Learnt(kept, networks, opt_state, state.key)

    def summarise(self, state: Learnt) -> Mapping[str, Array]:
        """The best reward."""
        known = state.history.has_score()
        best = jnp.where(known, state.history.scores, -jnp.inf).max()
        return {"best": jnp.where(known.any(), best, jnp.nan)}


def inputs(domain: Domain, points: Points) -> Array:
    """What the networks see of points [N, D]: [N, D * (K + 2)], the option taken, or none, and the quantile."""
    width = domain.valid.shape[1]
    masks = is_active(domain, points.codes)
    hot = jax.nn.one_hot(jnp.where(masks, points.codes, width), width + 1)
    places = jnp.where(masks & jnp.asarray(domain.ordinal), points.quantiles - 0.5, 0)
    return jnp.concatenate([hot, places[..., None]], -1).reshape(len(hot), -1)


def predicted(networks: Networks, features: Array) -> Array:
    """The standardised rewards [E, N] that E networks expect of features [N, F], or [E, N, F]."""
    hidden = jax.nn.relu(features @ networks.first + networks.biases[:, None, 0])
    hidden = jax.nn.relu(hidden @ networks.second + networks.biases[:, None, 1])
    return jnp.einsum("enw,ew->en", hidden, networks.last) + networks.offset[:, None]


def scaled(kept: History) -> Array:
    """Rewards [C] with mean 0 and variance 1, outliers held at three; 0 where there is none."""
    scores, told = kept.impute_scores(), kept.has_trial()
    count = jnp.maximum(kept.count, 1)
    mean = jnp.where(told, scores / count, 0).sum()
    apart = jnp.where(told, jnp.abs(scores - mean) / count, 0).sum()
    return jnp.where(told, jnp.clip((scores - mean) / jnp.maximum(1.25 * apart, 1e-30), -3, 3), 0)
