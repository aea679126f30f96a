"""The predictor-based search: the contract, that its networks learn, and bad input."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l.encoding import Encoding
from l2l.errors import InputError
from l2l.searchers.core.compiled_search import run_searches
from l2l.searchers.core.points import Points, locate_points
from l2l.searchers.predictor import Predictor, PredictorState, encode_points, predict_rewards
from l2l.searchers.random_search import Random
from l2l.space import Categorical, SearchSpace
from l2l.testing import SearcherContract, make_landscape

CELL = SearchSpace({f"c{n}": Categorical(options=(0, 1, 2)) for n in range(6)}, lambda values, spec: None)


class TestPredictor(SearcherContract):
    def searcher(self) -> Predictor:
        return Predictor(first=8, ensemble=3, steps=4, mutations=32)


def learn(searcher: Predictor, encoding: Encoding, points: Points, scores: jax.Array) -> PredictorState:
    """The state that has learnt the scores of these points."""
    domain = encoding.domain
    return jax.jit(lambda key: searcher.learn(searcher.start(domain, key), domain, points, scores))(jax.random.key(1))


def test_the_networks_learn_what_they_are_told() -> None:
    encoding, searcher = Encoding(CELL), Predictor(steps=20)
    domain = encoding.domain
    points = locate_points(domain, jax.random.uniform(jax.random.key(0), (48, 6)))
    scores = (points.codes[:, 0] == 2) + 0.5 * (points.codes[:, 3] == 1)
    inner = learn(searcher, encoding, points, scores.astype(jnp.float32))
    predictions = np.asarray(predict_rewards(inner.networks, encode_points(domain, points)).mean(0))
    assert np.corrcoef(predictions, np.asarray(scores))[0, 1] > 0.9


def test_it_does_better_than_chance_on_a_landscape() -> None:
    landscape = make_landscape(6, 3, seed=2)
    rows, rewards = jnp.arange(3**6), jnp.asarray(landscape.rewards, jnp.float32)
    keys = jax.vmap(jax.random.key)(jnp.arange(4))
    predictor_rows, random_rows = (
        np.asarray(run_searches(searcher, Encoding(CELL), rows, rewards, keys, 50))
        for searcher in (Predictor(), Random())
    )
    assert landscape.rewards[predictor_rows].max(1).mean() > landscape.rewards[random_rows].max(1).mean()


def test_more_are_asked_for_than_it_would_mutate() -> None:
    encoding, searcher = Encoding(CELL), Predictor(first=1, mutations=4, parents=1000, steps=1)
    domain = encoding.domain
    points = locate_points(domain, jax.random.uniform(jax.random.key(0), (8, 6)))
    inner = learn(searcher, encoding, points, jnp.arange(8, dtype=jnp.float32))
    codes = np.asarray(jax.jit(searcher.propose, static_argnums=3)(inner, domain, jax.random.key(2), 20).codes)
    assert len(np.unique(codes, axis=0)) > 15


@pytest.mark.parametrize("name", ["first", "ensemble", "steps", "parents", "mutations"])
def test_bad_arguments_are_refused_in_one_sentence(name: str) -> None:
    arguments: dict[str, Any] = {name: 0}
    with pytest.raises(InputError) as caught:
        Predictor(**arguments)
    assert str(caught.value) == f"Predictor's {name} must be an integer of at least 1, got 0."
