"""Transformers: attention and mixture of experts, layer by layer, with depth, width and the training recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from l2l.errors import InputError
from l2l.nn.attention import KINDS, Attention
from l2l.nn.blocks import ACTIVATIONS
from l2l.nn.moe import MixtureOfExperts
from l2l.nn.padded import Padded, Picked, active, size
from l2l.nn.position import POSITIONS
from l2l.nn.router import ROUTERS
from l2l.nn.transformer import PLACEMENTS, Block, Embedding, FeedForward, Residual, Transformer, length
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
CAUSAL_ROUTERS = tuple(each for each in ROUTERS if each != "expert_choice")


def build(values: Mapping[str, Any], spec: Spec) -> Learner:
    """The transformer that `values` name, with its recipe. Raises: InputError if the task's tokens do not allow it."""
    _check(values, spec)
    return recipe.learner(lambda rngs: network(values, spec, rngs), values, spec, MICROBATCH)


def _check(values: Mapping[str, Any], spec: Spec) -> None:
    """Refuses what does not fit the task's tokens, where values are plain. Raises: InputError."""
    context = length(spec.inputs)
    for name, value in values.items():
        layer, _, what = name.partition("_")
        if what == "window" and isinstance(value, int) and value > context:
            raise InputError(f"a window of {value} tokens is longer than the context of {context}; take smaller ones.")
        if what == "router" and spec.targets and "expert_choice" in getattr(value, "options", (value,)):
            raise InputError(
                "the router expert_choice looks ahead, which a model of the next symbol must not; take other routers."
            )
        if what == "capacity":
            k, experts = values[f"{layer}_k"], values[f"{layer}_experts"]
            plain = all(isinstance(each, int | float) for each in (k, experts, value))
            if plain and k * context * value < experts:
                raise InputError(
                    f"a capacity of {value:g} leaves an expert less than one of {context} tokens, with k={k} and "
                    f"{experts} experts; take larger capacities, or fewer experts."
                )


def network(values: Mapping[str, Any], spec: Spec, rngs: nnx.Rngs) -> Transformer:
    """The untrained transformer: a causal one of text whose every token has a target; else 0 is no symbol of a text."""
    width = values["width"]
    embedding = Embedding(spec.inputs, spec.tokens, width, rngs=rngs)
    blocks = [_block(values, f"layer{n}_", spec, rngs) for n in range(1, size(values["depth"]) + 1)]
    return Transformer(
        embedding, blocks, values["depth"], width, spec.outputs, per_token=bool(spec.targets),
        normalisation=values.get("layer1_normalisation", DEFAULTS["normalisation"]), tied=values.get("tied", False),
        blank=bool(spec.tokens) and not spec.targets, rngs=rngs,
    )  # fmt: skip


def _block(values: Mapping[str, Any], layer: str, spec: Spec, rngs: nnx.Rngs) -> Block:
    """One layer, of the values whose names begin with `layer`, else of the defaults."""

    def value(name: str) -> Any:
        return values[layer + name] if layer + name in values else DEFAULTS.get(name)

    width, dropout, causal = values["width"], values["dropout"], bool(spec.targets)
    forward, activation = values.get(f"{layer}forward"), values.get("activation", "gelu")
    if forward is None:  # there is one way only
        forward = "experts" if f"{layer}experts" in values else "dense"
    dense = experts = None
    mixed: bool | Picked = forward == "experts"
    if isinstance(forward, Picked):
        mixed = Picked(tuple(each == "experts" for each in forward.options), forward.index)
    attention = _attention(value, width, spec, causal, dropout, rngs)
    if mixed is not True:
        inner = width * value("mlp_ratio")
        dense = FeedForward(width, inner, activation=activation, dropout_rate=dropout, rngs=rngs)
    if mixed is not False:
        experts = MixtureOfExperts(
            width, experts=value("experts"), width=width * value("expert_ratio"), k=value("k"), router=value("router"),
            room=value("capacity"), shared=value("shared"), activation=activation,
            balance_weight=value("balance_weight"), causal=causal, length=length(spec.inputs), dropout_rate=dropout,
            rngs=rngs,
        )  # fmt: skip
    residual = [
        part and Residual(
            part, width, placement=value("placement"), normalisation=value("normalisation"), rngs=rngs
        )
        for part in (attention, dense, experts)
    ]  # fmt: skip
    return Block(*residual, mixed=mixed)  # pyright: ignore


def _attention(value: Any, width: Any, spec: Spec, causal: bool, dropout: Any, rngs: nnx.Rngs) -> Attention:
    heads, kind, position = value("heads"), value("attention"), value("position")
    if (linear := value("linear_position")) is not None:
        if set(kind.options if isinstance(kind, Picked) else (kind,)) == {"linear"}:
            position = linear
        elif isinstance(kind, Picked):
            position = _merged(kind, position, linear)
    window = value("window")
    return Attention(
        width, heads=heads, head_size=value("head_size"), kv_heads=_kv_heads(heads, value("kv_heads")), kind=kind,
        window=window.number if isinstance(window, Picked) else window, position=position,
        length=length(spec.inputs), query_key_norm=value("query_key_norm"), gate=value("gate"), causal=causal,
        dropout_rate=dropout, rngs=rngs,
    )  # fmt: skip


def _merged(kind: Picked, position: Picked, linear: Picked) -> Picked:
    """How places are told, by what is chosen for this kind of attention."""
    places = [jnp.asarray([POSITIONS.index(name) for name in each.options])[each.index] for each in (position, linear)]
    return Picked(POSITIONS, jnp.where(kind.named("linear"), places[1], places[0]))


def _kv_heads(heads: int | Padded, share: str | Picked) -> int | Padded:
    """Key and value heads for so many query heads."""
    if isinstance(share, str):
        found = {
            "all": heads,
            "half": half(heads),
            "one": Padded(heads.size, jnp.int32(1)) if isinstance(heads, Padded) else 1,
        }
        return found[share]
    count = jnp.asarray(active(heads))
    counts = {"all": count, "half": jnp.maximum(count // 2, 1), "one": jnp.ones_like(count)}
    return Padded(size(heads), jnp.stack([counts[name] for name in share.options])[share.index])


def half(heads: int | Padded) -> int | Padded:
    """Half as many, at least one."""
    if isinstance(heads, Padded):
        return Padded(heads.size, jnp.maximum(heads.active // 2, 1))
    return max(heads // 2, 1)


def attention_choices(
    layer: str,
    when: Mapping[str, Any],
    heads: Sequence[int],
    head_sizes: Sequence[int],
    kinds: Sequence[str],
    windows: Sequence[int],
    positions: Sequence[str],
) -> dict[str, Choice]:
    """What is chosen of one layer's attention. Raises: InputError if an option is unknown or does not fit."""
    kinds = recipe.known("attention", kinds, KINDS)
    positions = recipe.known("position", positions, POSITIONS)
    for each in (heads := recipe.positive("heads", heads)):
        if each > 1 and each % 2:
            raise InputError(f"heads must be 1 or even, so that two can share keys, got {each}.")
    for each in (head_sizes := recipe.positive("head_sizes", head_sizes)):
        if each % 2:
            raise InputError(f"head_sizes must be even, for rotary positions turn pairs of features, got {each}.")
    linear = tuple(each for each in positions if each != "alibi")
    if "linear" in kinds and not linear:
        raise InputError("linear attention has no scores that alibi could be added to: expected another of positions.")
    near = tuple(each for each in kinds if each != "linear")
    found: dict[str, Choice] = {
        "heads": Categorical(options=heads, when=when, pad="heads"),
        "kv_heads": Categorical(options=KV_HEADS, when=when, traced=True),
        "head_size": Categorical(options=head_sizes, when=when, pad="head_size"),
        "attention": Categorical(options=kinds, when=when, traced=True),
    }
    kind = f"{layer}attention"
    if "window" in kinds:
        windows = recipe.positive("windows", windows)
        found["window"] = Categorical(options=windows, when={**when, kind: "window"}, traced=True)
    if near:
        found["position"] = Categorical(options=positions, when={**when, kind: near}, traced=True)
    if "linear" in kinds:
        found["linear_position"] = Categorical(options=linear, when={**when, kind: "linear"}, traced=True)
    found |= {
        "query_key_norm": Categorical(options=("none", "rms"), when=when, traced=True),
        "gate": Categorical(options=(False, True), when=when, traced=True),
        "placement": Categorical(options=PLACEMENTS, when=when, traced=True),
        "normalisation": Categorical(options=NORMALISATIONS, when=when, traced=True),
    }
    return {layer + name: choice for name, choice in found.items()}


def forward_choices(
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
    """What is chosen of one layer's feed-forward part. Raises: InputError if an option is unknown or does not fit."""
    forward = recipe.known("forward", forward, FORWARD)
    found: dict[str, Choice] = {}
    if len(forward) > 1:
        found["forward"] = Categorical(options=forward, when=when, traced=True)
    if "dense" in forward:
        dense = {**when, f"{layer}forward": "dense"} if len(forward) > 1 else when
        found["mlp_ratio"] = Categorical(options=recipe.positive("mlp_ratios", mlp_ratios), when=dense, pad="mlp_ratio")
    if "experts" in forward:
        sparse = {**when, f"{layer}forward": "experts"} if len(forward) > 1 else when
        experts, ks = recipe.positive("experts", experts), recipe.positive("ks", ks)
        if max(ks) > min(experts):
            raise InputError(f"ks must be at most the number of experts, got {max(ks)} of {min(experts)}.")
        for each in (capacities := recipe.options("capacities", capacities)):
            if isinstance(each, bool) or not isinstance(each, int | float) or not each > 0:
                raise InputError(f"capacities must be numbers above 0, got {each!r}.")
        found |= {
            "experts": Categorical(options=experts, when=sparse, pad="experts"),
            "k": Categorical(options=ks, when=sparse, traced=True),
            "expert_ratio": Categorical(
                options=recipe.positive("expert_ratios", expert_ratios), when=sparse, pad="expert_ratio"
            ),
            "router": Categorical(options=recipe.known("router", routers, ROUTERS), when=sparse, traced=True),
            "capacity": Categorical(options=tuple(map(float, capacities)), when=sparse, traced=True),
            "shared": Categorical(options=(False, True), when=sparse, traced=True),
            "balance_weight": Real(low=1e-3, high=1e-1, log=True, when=sparse),
        }
    return {layer + name: choice for name, choice in found.items()}


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
    found = layers(
        depth,
        lambda layer, when: (
            attention_choices(layer, when, heads, head_sizes, attentions, windows, positions)
            | forward_choices(layer, when, forward, mlp_ratios, experts, expert_ratios, ks, capacities, routers)
        ),
    )
    found |= {
        "width": Categorical(options=recipe.positive("widths", widths), pad="width"),
        "activation": Categorical(options=recipe.known("activation", activations, ACTIVATIONS), traced=True),
        "tied": Categorical(options=(False, True), traced=True),
    }
    return SearchSpace(
        found | recipe.choices(optimizers, batch_sizes, MICROBATCH, LEARNING_RATES), build, name="transformer"
    )


def layers(depth: Sequence[int], choices: Callable[[str, Mapping[str, Any]], dict[str, Choice]]) -> dict[str, Choice]:
    """The depth, and the choices of each layer by the beginning of their names and the depths that have it."""
    low, high = recipe.span("depth", depth)
    found: dict[str, Choice] = {"depth": Integer(low=low, high=high, repeats=True)}
    for n in range(1, high + 1):
        found |= choices(f"layer{n}_", {"depth": tuple(range(max(n, low), high + 1))})
    return found
