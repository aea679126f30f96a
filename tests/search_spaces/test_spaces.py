"""The built-in spaces, and one of a user's own, through the contract; and what their constructors refuse."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from l2l.errors import InputError
from l2l.space import Categorical, Integer, Real, SearchSpace
from l2l.testing import SpaceContract
from l2l.types import Learner, Spec
from search_spaces import cnn, mixed, mlp, recipe


class TestMlp(SpaceContract):
    def space(self) -> SearchSpace[Learner]:
        return mlp.space(depth=(1, 2), widths=(16, 32))


@pytest.mark.slow
class TestDefaultMlp(SpaceContract):
    def space(self) -> SearchSpace[Learner]:
        return mlp.space()


class TestCnn(SpaceContract):
    spec = Spec(inputs=(9, 7, 3), outputs=4, examples=130, epochs=1)

    def space(self) -> SearchSpace[Learner]:
        return cnn.space(depth=(1, 2))


@pytest.mark.slow
class TestPooling(SpaceContract):
    """Every layer pools, so that none of them can be skipped."""

    spec = Spec(inputs=(9, 7, 1), outputs=3, examples=130, epochs=1)

    def space(self) -> SearchSpace[Learner]:
        return cnn.space(depth=(1, 2), filters=(8, 16), kernels=(3,), poolings=("max", "average"))


class TestMixed(SpaceContract):
    spec = Spec(inputs=(6, 5, 2), outputs=3, examples=260, epochs=2)

    def space(self) -> SearchSpace[Learner]:
        return mixed.space()


@pytest.mark.slow
class TestOneByOne(SpaceContract):
    """An image of a single pixel: no pooling and no kernel may be too large for it."""

    spec = Spec(inputs=(1, 1, 1), outputs=2, examples=128, epochs=1)

    def space(self) -> SearchSpace[Learner]:
        return cnn.space(
            depth=(2, 2), filters=(1, 2), kernels=(4,), activations=("elu", "leaky_relu"), optimizers=("sgd",)
        )


class Own(nnx.Module):
    """A user's model of stock layers, which need plain numbers."""

    def __init__(self, values: Mapping[str, Any], spec: Spec, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(math.prod(spec.inputs), values["units"], rngs=rngs)
        self.drop = nnx.Dropout(values["rate"], rngs=rngs)
        self.head = nnx.Linear(values["units"], spec.outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.drop(nnx.relu(self.hidden(x.reshape(len(x), -1)))))


def build_own(values: Mapping[str, Any], spec: Spec) -> Learner:
    return Learner(lambda rngs: Own(values, spec, rngs), optax.adam(values["learning_rate"]))


OWN = {"units": Integer(low=1, high=64, log=True), "rate": Real(low=0, high=0.5)}


class TestOwn(SpaceContract):
    traces = False

    def space(self) -> SearchSpace[Learner]:
        return SearchSpace({**OWN, "learning_rate": Real(low=1e-4, high=1e-1, log=True)}, build_own, "own")


def test_layers_repeat_where_some_keep_the_size_of_a_map() -> None:
    for poolings in (("max", "none"), ("none", "average")):
        space = cnn.space(poolings=poolings)
        assert space.choices["layer1_pooling"].value_at(0.0) != "none"
        assert space.choices["layer2_pooling"].value_at(1.0) == "none"
        assert space.choices["depth"] == Integer(low=1, high=4, repeats=True)
    assert cnn.space(poolings=("max",)).choices["depth"] == Integer(low=1, high=4)


def changed(**changes: Any) -> Callable[..., Learner]:
    """`build_own`, but for these fields of the learner."""
    return lambda values, spec: build_own(values, spec)._replace(**changes)


@pytest.mark.parametrize(
    ("build", "test", "words"),
    [
        (build_own, "test_traced_values_may_be_arrays", "bool"),
        (build_own, "test_every_option_gives_logits_and_every_value_is_used", "idle"),
        (lambda values, spec: build_own(values, spec._replace(outputs=3)), "test_every_option", "3"),
        (changed(batch_size=64.0), "test_batches_fit_the_training_split", "float"),
        (changed(batch_size=513), "test_batches_fit_the_training_split", "513"),
        (changed(optimizer=optax.sgd(0.0)), "test_a_step_changes_weights_and_keeps_them_finite", "any"),
        (changed(optimizer=optax.sgd(math.inf)), "test_a_step_changes_weights_and_keeps_them_finite", "all"),
    ],
)
def test_the_contract_notices_what_a_space_does_wrong(build: Callable[..., Learner], test: str, words: str) -> None:
    class Broken(SpaceContract):
        def space(self) -> SearchSpace[Learner]:
            choices = {**OWN, "learning_rate": Real(low=0.1, high=1), "idle": Categorical(options=(1, 2))}
            return SearchSpace(choices, build, "broken")

    (name,) = (name for name in dir(Broken) if name.startswith(test))
    with pytest.raises((AssertionError, jax.errors.TracerBoolConversionError), match=words) as caught:
        getattr(Broken(), name)()
    assert any(note.startswith("candidate: {'units': ") for note in caught.value.__notes__)


@pytest.mark.parametrize("make", [mlp.space, cnn.space])
def test_static_and_traced(make: Callable[..., SearchSpace[Learner]]) -> None:
    space = make()
    traced = {name for name, choice in space.choices.items() if choice.traced}
    rates = {f"{name}_learning_rate" for name in recipe.LEARNING_RATES}
    assert {"weight_decay", "warmup", "dropout", "label_smoothing", "optimizer", "schedule", *rates} < traced
    assert not {"batch_size", "depth"} & traced
    assert space.count() == math.inf
    assert space.choices["depth"] == Integer(low=1, high=4, repeats=True)
    for candidate in space.cover():
        layers = {name.split("_")[0] for name in candidate.values if name.startswith("layer")}
        assert layers == {f"layer{n}" for n in range(1, candidate.values["depth"] + 1)}
        assert rates & set(candidate.values) == {f"{candidate.values['optimizer']}_learning_rate"}


def test_the_schedule_rises_and_falls() -> None:
    values = {"warmup": 0.25, "weight_decay": 0.0, "batch_size": 8, "label_smoothing": 0.0, "optimizer": "sgd"}
    weights = {"w": np.ones((1, 1), np.float32)}
    sizes: dict[str, list[float]] = {}
    for schedule in ("constant", "linear", "cosine"):
        recipe_values = {**values, "schedule": schedule, "sgd_learning_rate": 1.0}
        rule = recipe.make_learner(lambda rngs: nnx.Module(), recipe_values, Spec((1,), 1, 64, 1)).optimizer
        state, sizes[schedule] = rule.init(weights), []
        before = 0.0
        for _ in range(8):
            updates, state = rule.update({"w": np.ones((1, 1), np.float32)}, state, weights)
            momentum = 0.9 * before + 1.0
            sizes[schedule].append(-float(updates["w"][0, 0]) / (0.9 * momentum + 1.0))
            before = momentum
    np.testing.assert_allclose(sizes["constant"], [0.5, *[1.0] * 7], rtol=1e-5)
    np.testing.assert_allclose(sizes["linear"], [0.5, 1.0, *(1 - (n - 2) / 6 for n in range(2, 8))], rtol=1e-5)
    assert sizes["cosine"][2:] == sorted(sizes["cosine"][2:], reverse=True)
    assert sizes["cosine"][-1] < 0.1


def test_weights_decay_but_biases_do_not() -> None:
    values = {"warmup": 0.0, "weight_decay": 0.5, "batch_size": 8, "label_smoothing": 0.0, "schedule": "constant"}
    weights = {"kernel": np.full((2, 2), 2.0, np.float32), "bias": np.full(2, 2.0, np.float32)}
    for name in recipe.LEARNING_RATES:
        recipe_values = {**values, "optimizer": name, f"{name}_learning_rate": 0.1}
        rule = recipe.make_learner(lambda rngs: nnx.Module(), recipe_values, Spec((1,), 1, 64, 1)).optimizer
        zero = jax.tree.map(np.zeros_like, weights)
        updates, _ = rule.update(zero, rule.init(weights), weights)
        np.testing.assert_allclose(updates["kernel"], -0.1 * 0.5 * 2.0, rtol=1e-6)
        np.testing.assert_array_equal(updates["bias"], 0.0)


@pytest.mark.parametrize("make", [mlp.space, cnn.space])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"depth": (3, 1)}, "depth must be [low, high] with 1 <= low <= high, got [3, 1]."),
        ({"depth": (2,)}, "depth must be [low, high] with 1 <= low <= high, got [2]."),
        ({"depth": 3}, "depth must be [low, high] with 1 <= low <= high, got 3."),
        ({"depth": (0, 2)}, "depth must be integers of at least 1, got 0."),
        ({"depth": (1, True)}, "depth must be integers of at least 1, got True."),
        ({"activations": ("rulu",)}, "activation 'rulu' is unknown: did you mean 'relu'"),
        (
            {"normalisations": ("group",)},
            "normalisation 'group' is unknown: expected one of 'batch', 'layer', 'none', 'rms'.",
        ),
        ({"optimizers": ("adam",)}, "optimizer 'adam' is unknown: did you mean 'adamw'?"),
        ({"batch_sizes": (0,)}, "batch_sizes must be integers of at least 1, got 0."),
        ({"batch_sizes": (64, 64)}, "batch_sizes must differ, 64 stands twice."),
        ({"batch_sizes": ()}, "at least one"),
        ({"optimizers": ()}, "at least one"),
    ],
)
def test_bad_arguments(make: Callable[..., SearchSpace[Learner]], arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        make(**arguments)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("make", "arguments", "words"),
    [
        (mlp.space, {"widths": (8, -1)}, "widths must be integers of at least 1, got -1."),
        (mlp.space, {"widths": (8.0,)}, "widths must be integers of at least 1, got 8.0."),
        (cnn.space, {"filters": ("8",)}, "filters must be integers of at least 1, got '8'."),
        (cnn.space, {"kernels": (0,)}, "kernels must be integers of at least 1, got 0."),
        (cnn.space, {"poolings": ("mean",)}, "pooling 'mean' is unknown: did you mean 'max'?"),
    ],
)
def test_bad_arguments_of_one_space(make: Callable[..., Any], arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        make(**arguments)
    assert str(caught.value) == words
