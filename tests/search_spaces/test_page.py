"""The worked example of docs/one-program-for-many-candidates.md does what the page says."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.engine.bucket import (
    list_padded_sizes,
    make_exact_bucket,
    make_lane_data,
    make_own_values,
    make_program_values,
    make_shared_bucket,
)
from l2l.space import SearchSpace
from l2l.types import Learner, Spec

PAGE = Path(__file__).parents[2] / "docs/one-program-for-many-candidates.md"
SPEC = Spec(inputs=(8, 8, 1), outputs=10, examples=512, epochs=2)


def read_example() -> SearchSpace[Learner]:
    names: dict[str, Any] = {}
    exec(PAGE.read_text().split("```python\n")[1].split("```")[0], names)
    return names["space"]()


def test_all_candidates_of_the_example_share_a_program() -> None:
    space = read_example()
    largest = {pad: sizes[-1:] for pad, sizes in list_padded_sizes(space).items()}
    candidates = [space.sample(random.Random(seed)) for seed in range(20)]
    (name,) = {make_shared_bucket(space, candidate, largest).name for candidate in candidates}
    bucket = make_shared_bucket(space, candidates[0], largest)
    assert bucket.name == name

    def compute_logits(data: Any, x: jax.Array) -> jax.Array:
        model: Any = space.build(make_program_values(space, bucket, data), SPEC).model(nnx.Rngs(0))
        return model(x)

    x = jnp.zeros((3, 8, 8, 1))
    assert jax.eval_shape(compute_logits, dict(make_lane_data(space, candidates[0], bucket)), x).shape == (3, 10)


def test_a_candidate_of_the_example_by_itself_is_a_plain_model() -> None:
    space = read_example()
    candidate = space.candidate({"depth": 2, "width": 16, "activation": "tanh", "learning_rate": 0.01})
    values = make_own_values(space, candidate, make_exact_bucket(candidate))
    model: Any = space.build(values, SPEC).model(nnx.Rngs(0))
    assert [layer.linear.kernel.shape for layer in model.layers] == [(64, 16), (16, 16)]
    assert set(map(type, jax.tree.leaves(nnx.state(model), is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)))) == {
        nnx.Param
    }
