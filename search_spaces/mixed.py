"""Perceptrons and convolutional networks of one width each, side by side: small enough for many to be tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from l2l.nn.blocks import ACTIVATIONS
from l2l.nn.length import Length
from l2l.space import Categorical, Choice, Integer, SearchSpace
from l2l.types import Learner, Spec
from search_spaces import recipe
from search_spaces.cnn import Cnn
from search_spaces.mlp import Mlp

MICROBATCH = 32
"""Examples of a gradient: batches of several of them share a program."""


def build(values: Mapping[str, Any], spec: Spec) -> Learner:
    """The network of these values, with its recipe. Raises: InputError if the task does not allow it."""
    recipe.check_one_target(spec)
    if values["family"] == "cnn":
        recipe.check_images(spec)
    width = values["width"] if values["family"] == "mlp" else values["filters"]
    layers: dict[str, Any] = {"depth": values["depth"], "dropout": values["dropout"]}
    for n in range(1, Length.of(values["depth"]).size + 1):
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
    return recipe.make_learner(lambda rngs: model(layers, spec, rngs), values, spec, MICROBATCH)


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
    families = recipe.read_names("family", families, ("mlp", "cnn"))
    low, high = recipe.read_range("depth", depth)
    choices: dict[str, Choice] = {
        "family": Categorical(options=families),
        "depth": Integer(low=low, high=high, repeats=True),
    }
    if "mlp" in families:
        choices["width"] = Categorical(options=recipe.read_sizes("widths", widths), when={"family": "mlp"}, pad="width")
    if "cnn" in families:
        when = {"family": "cnn"}
        choices["filters"] = Categorical(options=recipe.read_sizes("filters", filters), when=when, pad="filters")
        choices["kernel"] = Categorical(options=recipe.read_sizes("kernels", kernels), when=when)
    activations = recipe.read_names("activation", activations, ACTIVATIONS)
    choices["activation"] = Categorical(options=activations, traced=True)
    return SearchSpace(choices | recipe.make_choices(optimizers, batch_sizes, MICROBATCH), build, name="mixed")
