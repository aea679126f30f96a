"""Mixtures of experts, layer by layer: dense or not, experts, choices of a token, capacity and router."""

from __future__ import annotations

from collections.abc import Sequence

from l2l.space import Categorical, SearchSpace
from l2l.types import Learner
from search_spaces import recipe, transformer
from search_spaces.transformer import build

__all__ = ["build", "space"]


def space(
    depth: Sequence[int] = (1, 4),
    widths: Sequence[int] = (32, 64),
    forward: Sequence[str] = transformer.FORWARD,
    mlp_ratios: Sequence[int] = (1, 2, 4),
    experts: Sequence[int] = (4, 8, 16),
    expert_ratios: Sequence[int] = (1, 2),
    ks: Sequence[int] = (1, 2),
    capacities: Sequence[float] = (1.0, 1.25, 2.0),
    routers: Sequence[str] = transformer.CAUSAL_ROUTERS,
    optimizers: Sequence[str] = ("adamw", "lion"),
    batch_sizes: Sequence[int] = (32, 64, 128),
) -> SearchSpace[Learner]:
    """Transformers of `depth[0]` to `depth[1]` layers that differ in their feed-forward parts; attention is global.

    Of images and rows, whose tokens may look ahead, `routers` may have expert_choice, too.
    """
    choices = transformer.make_layers(
        depth,
        lambda layer, when: transformer.make_forward_choices(
            layer, when, forward, mlp_ratios, experts, expert_ratios, ks, capacities, routers
        ),
    )
    choices["width"] = Categorical(options=recipe.read_sizes("widths", widths), pad="width")
    rest = recipe.make_choices(optimizers, batch_sizes, transformer.MICROBATCH, transformer.LEARNING_RATES)
    return SearchSpace(choices | rest, build, name="moe")
