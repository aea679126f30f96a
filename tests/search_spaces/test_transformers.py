"""Transformers through the contract of spaces, on images and on text; and what their constructor refuses."""

from __future__ import annotations

import functools
import random
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import l2l
from l2l.api import search
from l2l.engine.bucket import (
    list_padded_sizes,
    make_exact_bucket,
    make_lane_data,
    make_program_values,
    make_shared_bucket,
)
from l2l.engine.checkpoint import flatten_state
from l2l.engine.limits import Capacity, Limits
from l2l.engine.population import Population, TrainingPart
from l2l.engine.size_levels import choose_size_levels
from l2l.errors import InputError
from l2l.executors.inline import Inline
from l2l.nn.attention import KINDS
from l2l.nn.moe import MixtureOfExperts
from l2l.nn.text import generate
from l2l.nn.transformer import FeedForward
from l2l.objectives.final import Final
from l2l.objectives.trained import Trained
from l2l.searchers.random_search import Random as RandomSearch
from l2l.space import SearchSpace
from l2l.tasks.text import Text
from l2l.testing import SpaceContract
from l2l.types import Learner, Outcome, Spec
from search_spaces import attention, moe, transformer

TEXT = Spec(inputs=(12,), outputs=7, examples=96, epochs=2, tokens=7, targets=(12,))


class TestSmall(SpaceContract):
    """One kind of attention, dense parts and experts, layers that may be skipped; the slow ones have every option."""

    spec = TEXT

    def space(self) -> SearchSpace[Learner]:
        return small()


@pytest.mark.slow
class TestOnImages(SpaceContract):
    spec = Spec(inputs=(9, 8, 2), outputs=4, examples=130, epochs=1)

    def space(self) -> SearchSpace[Learner]:
        return transformer.space(depth=(1, 2), widths=(8, 16), heads=(2, 4), head_sizes=(4,), batch_sizes=(32, 64))


@pytest.mark.slow
class TestOnLabelledText(SpaceContract):
    """With experts that choose, and a symbol that stands for nothing."""

    spec = Spec(inputs=(12,), outputs=3, examples=96, epochs=2, tokens=7)

    def space(self) -> SearchSpace[Learner]:
        return moe.space(
            depth=(1, 2), widths=(8, 16), experts=(4, 8), routers=("softmax", "noisy", "expert_choice"),
            batch_sizes=(32,),
        )  # fmt: skip


@pytest.mark.slow
class TestOnText(SpaceContract):
    spec = TEXT

    def space(self) -> SearchSpace[Learner]:
        return transformer.space(depth=(1, 2), widths=(8, 16), heads=(1, 4), head_sizes=(2, 4), batch_sizes=(32,))


@nnx.jit
def called(model: Any, x: jax.Array) -> jax.Array:
    """Compiled, which is quicker than one operation after another."""
    return model(x)


def test_text_is_read_from_left_to_right() -> None:
    space = transformer.space(depth=(1, 2), widths=(8,), batch_sizes=(32,))
    for seed in range(6):
        model: Any = space.build(space.sample(random.Random(seed)).values, TEXT).model(nnx.Rngs(seed))
        model.eval()
        x = jax.random.randint(jax.random.key(seed), (2, 12), 0, 7)
        y, changed = called(model, x), called(model, x.at[:, 7:].set((x[:, 7:] + 1) % 7))
        np.testing.assert_array_equal(y[:, :7], changed[:, :7])
        assert not np.array_equal(y[:, 7:], changed[:, 7:])


@pytest.mark.parametrize("seed", range(2))
def test_what_a_text_is_filled_up_with_changes_nothing(seed: int) -> None:
    short = Spec(inputs=(7,), outputs=3, examples=96, epochs=1, tokens=9)
    space = transformer.space(
        depth=(1, 2), widths=(8,), windows=(3,), positions=("none", "rotary", "alibi"), capacities=(8.0,)
    )
    values = space.sample(random.Random(seed)).values
    narrow: Any = space.build(values, short).model(nnx.Rngs(seed))
    wide: Any = space.build(values, short._replace(inputs=(12,))).model(nnx.Rngs(seed))
    narrow.eval(), wide.eval()
    x = jax.random.randint(jax.random.key(seed), (5, 7), 1, 9)
    filled = jnp.pad(x, ((0, 0), (0, 5)))
    np.testing.assert_allclose(called(wide, filled), called(narrow, x), rtol=1e-5, atol=1e-5)
    gradients = nnx.jit(nnx.grad(lambda model: jnp.sum(model(filled) ** 2)))(wide)
    table = gradients["embedding"]["table"]["embedding"][...]
    assert not np.any(table[0])
    assert np.any(table[1:])


def test_a_table_has_a_token_for_each_column() -> None:
    spec = Spec(inputs=(14,), outputs=2, examples=100, epochs=1)
    space = transformer.space(widths=(8,), windows=(4,))
    model: Any = space.build(space.sample(random.Random(0)).values, spec).model(nnx.Rngs(0))
    model.eval()
    assert called(model, jnp.ones((3, 14))).shape == (3, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"heads": (3,)}, "heads must be 1 or even"),
        ({"head_sizes": (7,)}, "head_sizes must be even"),
        ({"attentions": ("sparse",)}, "attention 'sparse' is unknown"),
        ({"positions": ("alibi",)}, "expected another of positions"),
        ({"positions": ("sine",)}, "position 'sine' is unknown"),
        ({"experts": (4,), "ks": (5,)}, "ks must be at most the number of experts, got 5 of 4"),
        ({"capacities": (0.0,)}, "capacities must be numbers above 0, got 0.0"),
        ({"capacities": ()}, "capacities: expected at least one value in a list, got \\(\\)"),
        ({"heads": (2, 2)}, "heads must differ, 2 stands twice"),
        ({"capacities": (1.0, 1.0)}, "capacities must differ, 1.0 stands twice"),
        ({"routers": "softmax"}, "router: expected at least one value in a list, got 'softmax'"),
        ({"forward": ()}, "forward: expected at least one value"),
        ({"depth": (3, 2)}, "depth must be"),
        ({"batch_sizes": (20,)}, "batch_sizes must be multiples of 32"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        transformer.space(**arguments)
    assert "\n" not in str(caught.value)


def test_a_hundred_candidates_have_few_programs() -> None:
    space = transformer.space()
    levels = choose_size_levels(space, Spec((64,), 65, 15_685, 1, 65, (64,)))
    names = {make_shared_bucket(space, space.sample(random.Random(seed)), levels).name for seed in range(100)}
    assert len(names) <= 16


ONE_OF_EACH = [
    (transformer.space, name, (option,))
    for name, options in {
        "attentions": KINDS, "positions": ("rotary", "none"), "forward": ("dense", "experts"), "heads": (1, 2),
        "head_sizes": (4,), "mlp_ratios": (2,), "experts": (4,), "expert_ratios": (1,), "ks": (1,), "windows": (4,),
        "capacities": (1.25,), "routers": ("noisy", "sigmoid"), "activations": ("silu",), "optimizers": ("lion",),
    }.items() for option in options
]  # fmt: skip


@pytest.mark.parametrize(("make", "name", "option"), [*ONE_OF_EACH, (attention.space, "attentions", ("linear",))])
def test_a_program_can_be_made_where_there_is_one_option(make: Any, name: str, option: tuple[Any, ...]) -> None:
    space = make(**{"depth": (1, 2), "widths": (8,), name: option})
    candidate = space.sample(random.Random(0))
    bucket = make_shared_bucket(space, candidate, {pad: sizes[-1:] for pad, sizes in list_padded_sizes(space).items()})

    def logits(data: Any, x: jax.Array) -> jax.Array:
        model: Any = space.build(make_program_values(space, bucket, data), TEXT).model(nnx.Rngs(0))
        return model(x)

    outputs = jax.eval_shape(logits, dict(make_lane_data(space, candidate, bucket)), jnp.zeros((3, 12), jnp.int32))
    assert outputs.shape == (3, 12, 7)


@pytest.mark.parametrize("make", [attention.space, moe.space, transformer.space])
def test_images_have_few_programs_too(make: Any) -> None:
    space = make()
    levels = choose_size_levels(space, Spec((8, 8, 1), 10, 1077, 30))
    assert len({make_shared_bucket(space, space.sample(random.Random(seed)), levels).name for seed in range(100)}) <= 4


def tale(folder: Path) -> Text:
    """A text that is easy to learn."""
    (folder / "tale.txt").write_text("once upon a time there was a fox. " * 60)
    return Text(folder / "tale.txt", context=12, epochs=2)


def small() -> SearchSpace[Learner]:
    return transformer.space(
        depth=(1, 2), widths=(8,), heads=(2,), head_sizes=(4,), windows=(4,), experts=(4,), mlp_ratios=(2,),
        expert_ratios=(1,), batch_sizes=(32,), attentions=("global",), positions=("learned", "rotary"),
        routers=("softmax",), optimizers=("adamw",), activations=("gelu",),
    )  # fmt: skip


@pytest.mark.exact
def test_going_on_from_a_rung_gives_the_bits_of_going_through(tmp_path: Path) -> None:
    space = small()
    population = Population(space, tale(tmp_path), None)
    candidate, key = space.sample(random.Random(3)), jax.random.key(1)
    bucket = population.bucket(candidate)
    (whole,), _ = population.train([(candidate, key)], bucket, 1)
    (half,), _ = population.train([(candidate, key)], bucket, 1, TrainingPart(0, 1))
    assert half.state is not None
    (again,), _ = population.train([(candidate, key)], bucket, 1, TrainingPart(1, None, [flatten_state(half.state)]))
    for one, other in zip(jax.tree.leaves(whole.params), jax.tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(one, other)
    for name, values in whole.curve.items():
        np.testing.assert_array_equal(values, again.curve[name])
    assert {"bits", "accuracy", "loss", "train_loss", "drop_rate", "expert_load_max", "router_entropy"} <= set(
        whole.curve
    )


@pytest.mark.exact
def test_a_found_transformer_is_reproduced_and_writes(tmp_path: Path) -> None:
    result = search(
        small(), tale(tmp_path), RandomSearch(), objective=functools.partial(Trained, epochs=1), executor=Inline(),
        tracker={}, final=functools.partial(Final, seeds=0), trials=2, batch=2, out=tmp_path / "run",
    )  # fmt: skip
    assert result.best.reward == (-(result.best.outcome or Outcome()).metrics["bits"],)
    assert result.record.test is not None
    assert result.record.test.reproduced
    model: Any = l2l.load(tmp_path / "run/best")
    text = generate(model, "once upon", 20, jax.random.key(0), 0.0)
    assert len(text) == 20
    assert set(text) <= set("once upon a time there was a fox. ")
    (tmp_path / "other.txt").write_text("another story. " * 90)
    with pytest.raises(InputError, match="a vocabulary of 18 tokens, but task 'other' has another one, of 11 tokens"):
        l2l.evaluate(model, Text(tmp_path / "other.txt", context=12))


@pytest.mark.parametrize(("make", "depth"), [(transformer.space, 3), (moe.space, 3)])
def test_with_experts_alone_every_layer_has_them(make: Any, depth: int) -> None:
    space = make(depth=(depth, depth), widths=(8,), forward=("experts",), experts=(4,))
    model = space.build(space.sample(random.Random(0)).values, TEXT).model(nnx.Rngs(0))
    assert sum(isinstance(part, MixtureOfExperts) for _, part in nnx.iter_modules(model)) == depth
    assert not any(isinstance(part, FeedForward) for _, part in nnx.iter_modules(model))


def test_a_candidate_that_does_not_fit_is_refused_before_it_is_trained() -> None:
    space = moe.space(depth=(1, 1), widths=(8,), forward=("experts",), experts=(2, 16), ks=(1,), capacities=(1.0, 0.3))
    capacity = Capacity(space, TEXT, Limits())
    candidates = [space.sample(random.Random(seed)) for seed in range(40)]
    for candidate in candidates:
        short = 12 * candidate.values["layer1_capacity"] < candidate.values["layer1_experts"]
        why = capacity.refusal(candidate, make_exact_bucket(candidate))
        assert (why is not None) == short
        assert not short or "leaves an expert less than one of 12 tokens" in str(why)
