"""Attention, layer by layer: heads, shared keys, windows, linear time, positions and normalisation."""

from __future__ import annotations

from collections.abc import Sequence

from l2l.nn.attention import KINDS
from l2l.nn.position import POSITIONS
from l2l.space import Categorical, SearchSpace
from l2l.types import Learner
from search_spaces import recipe, transformer
from search_spaces.transformer import build

__all__ = ["build", "space"]


def space(
    depth: Sequence[int] = (1, 4),
    widths: Sequence[int] = (32, 64),
    heads: Sequence[int] = (2, 4),
    head_sizes: Sequence[int] = (8, 16),
    attentions: Sequence[str] = KINDS,
    windows: Sequence[int] = (4, 8),
    positions: Sequence[str] = POSITIONS,
    optimizers: Sequence[str] = ("adamw", "lion"),
    batch_sizes: Sequence[int] = (32, 64, 128),
) -> SearchSpace[Learner]:
    """Transformers of `depth[0]` to `depth[1]` layers that differ in their attention; perceptrons are twice as wide."""
    choices = transformer.make_layers(
        depth,
        lambda layer, when: transformer.make_attention_choices(
            layer, when, heads, head_sizes, attentions, windows, positions
        ),
    )
    choices["width"] = Categorical(options=recipe.read_sizes("widths", widths), pad="width")
    rest = recipe.make_choices(optimizers, batch_sizes, transformer.MICROBATCH, transformer.LEARNING_RATES)
    return SearchSpace(choices | rest, build, name="attention")
