"""Transformers: attention and mixture of experts, layer by layer, with depth, width and the training recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from l2l.errors import InputError
from l2l.nn.attention import KINDS, Attention
from l2l.nn.blocks import ACTIVATIONS
from l2l.nn.length import Length
from l2l.nn.moe import MixtureOfExperts
from l2l.nn.number import Number
from l2l.nn.option import Option
from l2l.nn.position import POSITIONS
from l2l.nn.router import ROUTERS
from l2l.nn.transformer import PLACEMENTS, Block, Embedding, FeedForward, Residual, Transformer, count_tokens
from l2l.space import Categorical, Choice, Integer, Real, SearchSpace
from l2l.types import Learner, Spec
from search_spaces import recipe

MICROBATCH = 32
"""Examples of a gradient: batches of several of them share a program."""
KV_HEADS = ("all", "half", "one")
"""How many key and value heads there are for the query heads: multi-head, grouped-query, multi-query."""
NORMALISATIONS = ("layer", "rms")
FORWARD = ("dense", "experts")
# Where a space does not search it: what most published models of this size have.
DEFAULTS: Mapping[str, Any] = {
    "heads": 4, "head_size": 16, "kv_heads": "all", "attention": "global", "position": "rotary", "placement": "pre",
    "normalisation": "layer", "query_key_norm": "none", "gate": False, "mlp_ratio": 2,
}  # fmt: skip
LEARNING_RATES = {**recipe.LEARNING_RATES, "adamw": (5e-4, 3e-2), "lion": (5e-5, 3e-3)}
"""Higher than other spaces': models as narrow as these learn most of a text in one epoch at 0.01 (adamw)."""
CAUSAL_ROUTERS = tuple(router for router in ROUTERS if router != "expert_choice")


def build(values: Mapping[str, Any], spec: Spec) -> Learner:
    """The transformer of these values, with its recipe. Raises: InputError if the task's tokens do not allow it."""
    _check(values, spec)
    return recipe.make_learner(lambda rngs: build_network(values, spec, rngs), values, spec, MICROBATCH)


def _check(values: Mapping[str, Any], spec: Spec) -> None:
    """Checks plain values against the task's tokens. Raises: InputError."""
    context = count_tokens(spec.inputs)
    for name, value in values.items():
        layer, _, choice = name.partition("_")
        if choice == "window" and (window := Option.of(value)).is_plain and window.value > context:
            raise InputError(f"a window of {value} tokens is longer than the context of {context}; take smaller ones.")
        if choice == "router" and spec.targets and Option.of(value).can_be("expert_choice"):
            raise InputError(
                "the router expert_choice looks ahead, which a next-token model must not; take other routers."
            )
        if choice == "capacity":
            _check_capacity(Number(value), values[f"{layer}_k"], values[f"{layer}_experts"], context)


def _check_capacity(capacity: Number, k: int | Option, experts: int | Length, context: int) -> None:
    k, experts = Option.of(k), Length.of(experts)
    if not (capacity.is_plain and k.is_plain and experts.is_plain):
        return
    if k.value * context * capacity.value < experts.size:
        raise InputError(
            f"a capacity of {capacity.value:g} leaves an expert less than one of {context} tokens, with k={k.value} "
            f"and {experts.size} experts; take larger capacities, or fewer experts."
        )


def build_network(values: Mapping[str, Any], spec: Spec, rngs: nnx.Rngs) -> Transformer:
    """The untrained transformer: causal if each token has a target; else the token 0 of a text is a blank."""
    width = values["width"]
    embedding = Embedding(spec.inputs, spec.tokens, width, rngs=rngs)
    depth = Length.of(values["depth"])
    blocks = [_build_block(values, f"layer{n}_", spec, rngs) for n in range(1, depth.size + 1)]
    return Transformer(
        embedding, blocks, depth, width, spec.outputs, per_token=bool(spec.targets),
        normalisation=values.get("layer1_normalisation", DEFAULTS["normalisation"]), tied=values.get("tied", False),
        blank=bool(spec.tokens) and not spec.targets, rngs=rngs,
    )  # fmt: skip


def _build_block(values: Mapping[str, Any], layer: str, spec: Spec, rngs: nnx.Rngs) -> Block:
    """One layer, of the values whose names begin with `layer`, else of the defaults."""

    def read(name: str) -> Any:
        return values[layer + name] if layer + name in values else DEFAULTS.get(name)

    width, dropout, causal = Length.of(values["width"]), values["dropout"], bool(spec.targets)
    activation = values.get("activation", "gelu")
    # A space with one kind of feed-forward part has no choice of it.
    forward = values.get(f"{layer}forward", "experts" if f"{layer}experts" in values else "dense")
    sparse = Option.of(forward).map(lambda name: name == "experts")
    dense = experts = None
    attention = _build_attention(read, width, spec, causal, dropout, rngs)
    if sparse.can_be(False):
        dense = FeedForward(width, width * read("mlp_ratio"), activation=activation, dropout_rate=dropout, rngs=rngs)
    if sparse.can_be(True):
        experts = MixtureOfExperts(
            width, experts=read("experts"), width=width * read("expert_ratio"), k=read("k"), router=read("router"),
            room=read("capacity"), shared=read("shared"), activation=activation, balance_weight=read("balance_weight"),
            causal=causal, length=count_tokens(spec.inputs), dropout_rate=dropout, rngs=rngs,
        )  # fmt: skip
    placement, normalisation = read("placement"), read("normalisation")
    residuals: list[Any] = [
        part and Residual(part, width, placement=placement, normalisation=normalisation, rngs=rngs)
        for part in (attention, dense, experts)
    ]
    return Block(*residuals, sparse=sparse)


def _build_attention(
    read: Callable[[str], Any], width: Length, spec: Spec, causal: bool, dropout: Any, rngs: nnx.Rngs
) -> Attention:
    heads, kind, window = Length.of(read("heads")), Option.of(read("attention")), read("window")
    return Attention(
        width, heads=heads, head_size=read("head_size"), kv_heads=_count_kv_heads(heads, Option.of(read("kv_heads"))),
        kind=kind, window=None if window is None else Option.of(window).value,
        position=_choose_position(kind, read("position"), read("linear_position")), length=count_tokens(spec.inputs),
        query_key_norm=read("query_key_norm"), gate=read("gate"), causal=causal, dropout_rate=dropout, rngs=rngs,
    )  # fmt: skip


def _choose_position(kind: Option, position: Any, linear_position: Any) -> Any:
    """The position encoding of this kind of attention: linear attention has a choice of its own."""
    if linear_position is None:
        return position
    if all(name == "linear" for name in kind.options):
        return linear_position
    if kind.is_plain:
        return position
    position, linear = (Option.of(option).map(POSITIONS.index).value for option in (position, linear_position))
    return Option(POSITIONS, jnp.where(kind.is_("linear"), linear, position))


def _count_kv_heads(heads: Length, share: Option) -> Length:
    """Key and value heads for so many query heads: all, half or one."""
    if heads.is_plain and share.is_plain:
        return Length({"all": heads.size, "half": max(heads.size // 2, 1), "one": 1}[share.value])
    active = jnp.asarray(heads.active)
    counts = {"all": active, "half": jnp.maximum(active // 2, 1), "one": jnp.ones_like(active)}
    return Length(heads.size, share.select(lambda name: counts[name]))


def make_attention_choices(
    layer: str,
    when: Mapping[str, Any],
    heads: Sequence[int],
    head_sizes: Sequence[int],
    kinds: Sequence[str],
    windows: Sequence[int],
    positions: Sequence[str],
) -> dict[str, Choice]:
    """The choices of one layer's attention. Raises: InputError if an option is unknown or does not fit."""
    kinds = recipe.read_names("attention", kinds, KINDS)
    positions = recipe.read_names("position", positions, POSITIONS)
    for count in (heads := recipe.read_sizes("heads", heads)):
        if count > 1 and count % 2:
            raise InputError(f"heads must be 1 or even, so that two can share keys, got {count}.")
    for size in (head_sizes := recipe.read_sizes("head_sizes", head_sizes)):
        if size % 2:
            raise InputError(f"head_sizes must be even, for rotary positions rotate pairs of features, got {size}.")
    linear = tuple(name for name in positions if name != "alibi")
    if "linear" in kinds and not linear:
        raise InputError("linear attention has no scores that alibi could be added to: expected another of positions.")
    others = tuple(name for name in kinds if name != "linear")
    choices: dict[str, Choice] = {
        "heads": Categorical(options=heads, when=when, pad="heads"),
        "kv_heads": Categorical(options=KV_HEADS, when=when, traced=True),
        "head_size": Categorical(options=head_sizes, when=when, pad="head_size"),
        "attention": Categorical(options=kinds, when=when, traced=True),
    }
    kind = f"{layer}attention"
    if "window" in kinds:
        windows = recipe.read_sizes("windows", windows)
        choices["window"] = Categorical(options=windows, when={**when, kind: "window"}, traced=True)
    if others:
        choices["position"] = Categorical(options=positions, when={**when, kind: others}, traced=True)
    if "linear" in kinds:
        choices["linear_position"] = Categorical(options=linear, when={**when, kind: "linear"}, traced=True)
    choices |= {
        "query_key_norm": Categorical(options=("none", "rms"), when=when, traced=True),
        "gate": Categorical(options=(False, True), when=when, traced=True),
        "placement": Categorical(options=PLACEMENTS, when=when, traced=True),
        "normalisation": Categorical(options=NORMALISATIONS, when=when, traced=True),
    }
    return {layer + name: choice for name, choice in choices.items()}


def make_forward_choices(
    layer: str,
    when: Mapping[str, Any],
    forward: Sequence[str],
    mlp_ratios: Sequence[int],
    experts: Sequence[int],
    expert_ratios: Sequence[int],
    ks: Sequence[int],
    capacities: Sequence[float],
    routers: Sequence[str],
) -> dict[str, Choice]:
    """The choices of one layer's feed-forward part. Raises: InputError if an option is unknown or does not fit."""
    forward = recipe.read_names("forward", forward, FORWARD)
    choices: dict[str, Choice] = {}
    if len(forward) > 1:
        choices["forward"] = Categorical(options=forward, when=when, traced=True)
    if "dense" in forward:
        dense = {**when, f"{layer}forward": "dense"} if len(forward) > 1 else when
        choices["mlp_ratio"] = Categorical(
            options=recipe.read_sizes("mlp_ratios", mlp_ratios), when=dense, pad="mlp_ratio"
        )
    if "experts" in forward:
        sparse = {**when, f"{layer}forward": "experts"} if len(forward) > 1 else when
        experts, ks = recipe.read_sizes("experts", experts), recipe.read_sizes("ks", ks)
        if max(ks) > min(experts):
            raise InputError(f"ks must be at most the number of experts, got {max(ks)} of {min(experts)}.")
        for capacity in (capacities := recipe.read_options("capacities", capacities)):
            if isinstance(capacity, bool) or not isinstance(capacity, int | float) or not capacity > 0:
                raise InputError(f"capacities must be numbers above 0, got {capacity!r}.")
        choices |= {
            "experts": Categorical(options=experts, when=sparse, pad="experts"),
            "k": Categorical(options=ks, when=sparse, traced=True),
            "expert_ratio": Categorical(
                options=recipe.read_sizes("expert_ratios", expert_ratios), when=sparse, pad="expert_ratio"
            ),
            "router": Categorical(options=recipe.read_names("router", routers, ROUTERS), when=sparse, traced=True),
            "capacity": Categorical(options=tuple(map(float, capacities)), when=sparse, traced=True),
            "shared": Categorical(options=(False, True), when=sparse, traced=True),
            "balance_weight": Real(low=1e-3, high=1e-1, log=True, when=sparse),
        }
    return {layer + name: choice for name, choice in choices.items()}


def space(
    depth: Sequence[int] = (1, 4),
    widths: Sequence[int] = (32, 64),
    heads: Sequence[int] = (2, 4),
    head_sizes: Sequence[int] = (8, 16),
    attentions: Sequence[str] = KINDS,
    windows: Sequence[int] = (4, 8),
    positions: Sequence[str] = POSITIONS,
    forward: Sequence[str] = FORWARD,
    mlp_ratios: Sequence[int] = (1, 2, 4),
    experts: Sequence[int] = (4, 8),
    expert_ratios: Sequence[int] = (1, 2),
    ks: Sequence[int] = (1, 2),
    capacities: Sequence[float] = (1.0, 1.25, 2.0),
    routers: Sequence[str] = CAUSAL_ROUTERS,
    activations: Sequence[str] = ("relu", "gelu", "silu"),
    optimizers: Sequence[str] = ("adamw", "lion"),
    batch_sizes: Sequence[int] = (32, 64, 128),
) -> SearchSpace[Learner]:
    """Transformers of `depth[0]` to `depth[1]` layers, each with its own attention, dense or of experts."""
    choices = make_layers(
        depth,
        lambda layer, when: (
            make_attention_choices(layer, when, heads, head_sizes, attentions, windows, positions)
            | make_forward_choices(layer, when, forward, mlp_ratios, experts, expert_ratios, ks, capacities, routers)
        ),
    )
    choices |= {
        "width": Categorical(options=recipe.read_sizes("widths", widths), pad="width"),
        "activation": Categorical(options=recipe.read_names("activation", activations, ACTIVATIONS), traced=True),
        "tied": Categorical(options=(False, True), traced=True),
    }
    return SearchSpace(
        choices | recipe.make_choices(optimizers, batch_sizes, MICROBATCH, LEARNING_RATES), build, name="transformer"
    )


def make_layers(
    depth: Sequence[int], make_choices: Callable[[str, Mapping[str, Any]], dict[str, Choice]]
) -> dict[str, Choice]:
    """The depth, and the choices of each layer by the beginning of their names and the depths that have it."""
    low, high = recipe.read_range("depth", depth)
    choices: dict[str, Choice] = {"depth": Integer(low=low, high=high, repeats=True)}
    for n in range(1, high + 1):
        choices |= make_choices(f"layer{n}_", {"depth": tuple(range(max(n, low), high + 1))})
    return choices
