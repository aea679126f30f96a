"""Perceptrons and convolutional networks of one width each, side by side: small enough for many to be tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from l2l.nn.blocks import ACTIVATIONS
from l2l.nn.padded import size
from l2l.space import Categorical, Choice, Integer, SearchSpace
from l2l.types import Learner, Spec
from search_spaces import recipe
from search_spaces.cnn import Cnn
from search_spaces.mlp import Mlp

MICROBATCH = 32
"""Examples of a gradient: batches of several of them share a program."""


def build(values: Mapping[str, Any], spec: Spec) -> Learner:
    """The network that `values` name, with its recipe. Raises: InputError if the task does not allow it."""
    recipe.needs_one_target(spec)
    if values["family"] == "cnn":
        recipe.needs_images(spec)
    width = values["width"] if values["family"] == "mlp" else values["filters"]
    layers: dict[str, Any] = {"depth": values["depth"], "dropout": values["dropout"]}
    for n in range(1, size(values["depth"]) + 1):
        layers |= {
            f"layer{n}_width": width,
            f"layer{n}_filters": width,
            f"layer{n}_kernel": values["kernel"] if values["family"] == "cnn" else 1,
            f"layer{n}_activation": values["activation"],
            f"layer{n}_normalisation": "none",
            f"layer{n}_skip": False,
            f"layer{n}_pooling": "max" if n == 1 else "none",
        }
    model = {"mlp": Mlp, "cnn": Cnn}[values["family"]]
    return recipe.learner(lambda rngs: model(layers, spec, rngs), values, spec, MICROBATCH)


def space(
    families: Sequence[str] = ("mlp", "cnn"),
    depth: Sequence[int] = (1, 4),
    widths: Sequence[int] = (16, 32, 64, 128, 256),
    filters: Sequence[int] = (8, 16, 32, 64),
    kernels: Sequence[int] = (3, 5),
    activations: Sequence[str] = ("relu", "gelu", "silu", "tanh"),
    optimizers: Sequence[str] = ("adamw", "sgd"),
    batch_sizes: Sequence[int] = (32, 64, 128),
) -> SearchSpace[Learner]:
    """Networks of `depth[0]` to `depth[1]` layers of one width, joined with the training recipe.

    Candidates that differ in depth, activation, optimizer, batch size or a number share a program.
    """
    families = recipe.known("family", families, ("mlp", "cnn"))
    low, high = recipe.span("depth", depth)
    found: dict[str, Choice] = {
        "family": Categorical(options=families),
        "depth": Integer(low=low, high=high, repeats=True),
    }
    if "mlp" in families:
        found["width"] = Categorical(options=recipe.positive("widths", widths), when={"family": "mlp"}, pad="width")
    if "cnn" in families:
        when = {"family": "cnn"}
        found["filters"] = Categorical(options=recipe.positive("filters", filters), when=when, pad="filters")
        found["kernel"] = Categorical(options=recipe.positive("kernels", kernels), when=when)
    activations = recipe.known("activation", activations, ACTIVATIONS)
    found["activation"] = Categorical(options=activations, traced=True)
    return SearchSpace(found | recipe.choices(optimizers, batch_sizes, MICROBATCH), build, name="mixed")
