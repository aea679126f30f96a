"""Layers in words: what stock layers and our own say of themselves."""

from __future__ import annotations

from typing import Any

import pytest
from flax import nnx

from l2l.nn.blocks import Dense
from l2l.nn.convolution import Convolution
from l2l.nn.description import TIMES, Describable, Description, describe, describe_all, map_shape
from l2l.nn.option import Option


def make_convolution(pooling: str, skip: bool) -> Convolution:
    options: dict[str, Any] = {"kernel": 3, "activation": "relu", "normalisation": "batch", "rngs": nnx.Rngs(0)}
    return Convolution(4, 8, size=(8, 8), pooling=pooling, skip=skip, **options)


def test_stock_layers_are_described_with_the_shape_of_their_output() -> None:
    linear = nnx.Linear(8, 3, rngs=nnx.Rngs(0))
    assert describe(linear, (8,)) == Description("linear", ("8 → 3",), shape=(3,), module=linear)
    assert describe(linear, (5, 8)) == Description("linear", ("8 → 3",), shape=(5, 3), module=linear)
    pooled = describe(nnx.Linear(8, 3, rngs=nnx.Rngs(0)), (4, 4, 2))
    assert pooled is not None
    assert (pooled.facts, pooled.shape) == (("pooled to 4 positions", "8 → 3"), (3,))
    conv = describe(nnx.Conv(1, 4, (3, 5), rngs=nnx.Rngs(0)), (8, 8, 1))
    assert conv is not None
    assert (conv.title, conv.facts) == (f"3 {TIMES} 5 convolution", ("1 → 4 channels",))
    norm = describe(nnx.RMSNorm(4, rngs=nnx.Rngs(0)), (6, 4))
    assert norm is not None
    assert (norm.title, norm.kind, norm.shape) == ("rms norm", "norm", (6, 4))


@pytest.mark.parametrize("module", [nnx.Dropout(0.1), nnx.Sequential(), None])
def test_other_modules_have_no_description(module: Any) -> None:
    assert describe(module, (4,)) is None


def test_a_convolution_pools_behind_the_sum() -> None:
    both = make_convolution("max", True).describe((7, 8, 4))
    assert [part.title for part in both.parts] == [f"3 {TIMES} 3 convolution", "max pooling by 2"]
    assert both.parts[0].adds_input
    assert both.parts[0].facts == ("4 → 8 channels", "batch norm", "relu", "input added, projected")
    assert both.shape == (4, 4, 8)
    pools = make_convolution("max", False).describe((7, 8, 4))
    assert pools.facts[-1] == "max pooling by 2"
    assert not pools.parts
    assert make_convolution("none", True).describe((7, 8, 4)).shape == (7, 8, 8)


def test_each_layer_gets_the_output_of_the_one_before() -> None:
    options: dict[str, Any] = {"activation": "relu", "normalisation": "none", "skip": False, "rngs": nnx.Rngs(0)}
    layers = [Dense(4, 8, **options), None, nnx.Dropout(0.5), Dense(8, 2, **options)]
    descriptions = describe_all(layers, (4,))
    assert [description.title for description in descriptions] == ["dense", "Dropout", "dense"]
    assert [description.shape for description in descriptions] == [(8,), (), ()]
    assert isinstance(layers[0], Describable)


def test_data_may_have_chosen_an_option() -> None:
    assert Option(("relu", "gelu"), 1).read() == "gelu"
    assert Option.of("relu").read() == "relu"


@pytest.mark.parametrize(("shape", "after"), [((), ()), ((4, 4, 2), (3,)), ((32,), (3,)), ((5, 32), (5, 3))])
def test_a_linear_map_takes_all_features_or_the_last_axis(shape: tuple[int, ...], after: tuple[int, ...]) -> None:
    assert map_shape(shape, 32, 3) == after
