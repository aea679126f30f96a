"""What a module is made of: boxes from the input to the logits, with the parameters of each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from l2l.engine.cost import count_idle_parameters
from l2l.nn.attention import Attention
from l2l.nn.blocks import Convolution, Dense, Standardised
from l2l.nn.dropout import Dropout
from l2l.nn.length import Length
from l2l.nn.moe import MixtureOfExperts
from l2l.nn.norm import PaddedNorm
from l2l.nn.number import Number
from l2l.nn.option import Option
from l2l.nn.stack import Stack
from l2l.nn.text import TextModel
from l2l.nn.transformer import Block, Embedding, FeedForward, Residual, Transformer, count_tokens
from l2l.types import Spec

POSITIONS = {"none": "no positions", "learned": "learned positions", "rotary": "rotary positions", "alibi": "ALiBi"}
NORMS = {nnx.BatchNorm: "batch", nnx.LayerNorm: "layer", nnx.RMSNorm: "rms"}
TIMES = "\N{MULTIPLICATION SIGN}"
SILENT = (nnx.Dropout, Dropout)
"""What has no box: a rate is the recipe's."""


@dataclass(frozen=True)
class Box:
    """A part of a module, or several in the order in which they are computed."""

    title: str = ""
    facts: tuple[str, ...] = ()
    name: str = ""
    """Where it stands in its module."""
    tone: str = "plain"
    """Of what kind it is: data, plain, norm, attention, dense or experts."""
    own: int = 0
    """Parameters that are in none of `inner`."""
    spared: int = 0
    """Of these, those that a token is not computed with, on average."""
    experts: tuple[int, int] = (0, 0)
    """How many there are, and how many compute a token."""
    skip: bool = False
    """Whether its input is added to what it gives."""
    inner: tuple[Box, ...] = ()
    shape: tuple[int, ...] = ()
    """Of what it gives for one example; empty where that is not known."""

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return self.own + sum(each.parameters for each in self.inner)

    @property
    def idle(self) -> int:
        """Of the parameters, those that a token is not computed with, on average."""
        return self.spared + sum(each.idle for each in self.inner)

    def leaves(self) -> Iterator[Box]:
        """The boxes that hold no others, in order."""
        if not self.inner:
            yield self
        for each in self.inner:
            yield from each.leaves()


def outline(model: nnx.Module, spec: Spec) -> list[Box]:
    """The boxes of a found model, the input first and the logits last; their parameters add up to the model's."""
    facts = [sizes(spec.inputs)]
    if isinstance(model, TextModel):
        facts = [f"{sizes(spec.inputs)} symbols of {spec.tokens}"]
    if isinstance(model, Standardised) and not _is_neutral(model):
        facts.append("centred and scaled")
    inner: Any = model.model if isinstance(model, Standardised | TextModel) else model
    walk = _Walk(spec.inputs)
    boxes = walk.parts(inner)
    if rest := walk.count(model):
        boxes = [Box(type(inner).__name__, ("weights of its own",), own=rest), *boxes]
    first = Box("input", tuple(facts), tone="data", shape=spec.inputs)
    return [first, *boxes, Box("logits", (sizes((*spec.targets, spec.outputs)),), tone="data")]


def sizes(shape: Sequence[int]) -> str:
    """A shape in words."""
    return f" {TIMES} ".join(map(str, shape))


def _is_neutral(model: Standardised) -> bool:
    return not np.any(np.asarray(model.mean[...])) and bool(np.all(np.asarray(model.scale[...]) == 1))


def _plain(held: Any) -> Any:
    """What a module kept of an option, whether plain or data."""
    return held.options[int(held.index)] if isinstance(held, Option) else held


def _whole(held: Length | Option | Number) -> int:
    return int(held.active if isinstance(held, Length) else held.value)


def _inside(held: Any) -> list[tuple[str, Any]] | None:
    """The members of what holds several, with their names; None for anything else."""
    held = held.layers if isinstance(held, nnx.Sequential) else held
    if isinstance(held, Stack) and held.layers is not None:
        held = list(held.layers)[: _whole(held.depth)]
    if isinstance(held, list | tuple | nnx.List):
        return [(str(place), each) for place, each in enumerate(held, 1)]
    return [(str(key), each) for key, each in held.items()] if isinstance(held, Mapping | nnx.Dict) else None


def _children(model: nnx.Module) -> list[tuple[str, nnx.Module]]:
    """The modules that a module holds, lists of them one by one, as they were made."""
    found: list[tuple[str, Any]] = []
    for attribute, held in vars(model).items():
        name = attribute.replace("_", " ").strip()
        several = None if attribute.startswith("_pytree__") else _inside(held)
        if several is None:
            found.append((name, held))
        else:
            found += [(f"{name.removesuffix('s')} {which}", each) for which, each in several]
    return [(name, each) for name, each in found if isinstance(each, nnx.Module) and not isinstance(each, SILENT)]


class _Walk:
    """A way through a module: each parameter counts where it is met first."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.seen: set[int] = set()
        self.known: dict[type, Callable[[Any], Box]] = {
            nnx.Linear: self._linear, nnx.Conv: self._conv, Dense: self._dense, Convolution: self._convolution,
            Embedding: self._embedding, Block: self._block, Attention: self._attention, FeedForward: self._forward,
            MixtureOfExperts: self._experts, PaddedNorm: self._norm, **dict.fromkeys(NORMS, self._norm),
        }  # fmt: skip

    def met(self, part: Any) -> dict[int, Any]:
        """The arrays of parameters in a part."""
        return {id(node): node for _, node in nnx.iter_graph(part) if isinstance(node, nnx.Param)}

    def count(self, part: Any) -> int:
        """The parameters of a part that were not counted before."""
        met = self.met(part)
        new = [node for key, node in met.items() if key not in self.seen]
        self.seen |= set(met)
        return sum(math.prod(jnp.shape(leaf)) for node in new for leaf in jax.tree.leaves(node.get_value()))

    def parts(self, model: nnx.Module) -> list[Box]:
        """A box for each module that a model holds, or for the model itself if there is none."""
        if type(model) is Transformer:
            return self._transformer(model)
        found = _children(model)
        if not found or type(model) in self.known:
            return [self.box(model)]
        return [replace(self.box(each), name=name) for name, each in found]

    def box(self, part: nnx.Module) -> Box:
        """A part by what is known of its class, else by the class's name."""
        again = set(self.met(part)) & self.seen
        if says := self.known.get(type(part)):
            found = replace(says(part), shape=self.shape)
        else:
            self.shape = ()
            found = Box(type(part).__name__, _held(part), own=self.count(part), spared=count_idle_parameters(part))
        return replace(found, facts=(*found.facts, "shares weights from above")) if again else found

    def _transformer(self, model: Transformer) -> list[Box]:
        boxes = [self.box(model.embedding)]
        blocks = _inside(model.blocks) or [("", model.blocks)]
        boxes += [replace(self.box(each), name=f"layer {which}".strip()) for which, each in blocks]
        if model.norm is not None:
            boxes.append(self.box(model.norm))
        facts: tuple[str, ...] = ()
        if not model.per_token:
            facts, self.shape = ("mean over tokens",), self.shape[-1:]
        if model.head is None:
            return [*boxes, Box("tied to the embedding", facts, "head")]
        head = self.box(model.head)
        return [*boxes, replace(head, name="head", facts=(*facts, *head.facts))]

    def _mapped(self, size_in: int, size_out: int) -> None:
        """The shape behind a linear map, of all there is or of the last axis."""
        if self.shape:
            whole = self.shape[-1] != size_in or math.prod(self.shape) == size_in
            self.shape = (size_out,) if whole else (*self.shape[:-1], size_out)

    def _linear(self, part: nnx.Linear) -> Box:
        facts = [f"{part.in_features} → {part.out_features}"]
        if len(self.shape) == 3:
            places, rest = divmod(part.in_features, self.shape[-1])
            if not rest and 1 < places < math.prod(self.shape[:-1]):
                facts.insert(0, f"pooled to {places} places")
        self._mapped(part.in_features, part.out_features)
        return Box("linear", tuple(facts), own=self.count(part))

    def _conv(self, part: nnx.Conv) -> Box:
        self.shape = ()
        return Box(*_kernel(part), own=self.count(part))

    def _norm(self, part: Any) -> Box:
        return Box(_normalisation(part), tone="norm", own=self.count(part))

    def _dense(self, part: Dense) -> Box:
        size_in, size_out = part.linear.in_features, part.linear.out_features
        self._mapped(size_in, size_out)
        facts = (f"{size_in} → {size_out}", *_behind(part))
        return Box("dense", facts, tone="dense", own=self.count(part), skip=_plain(part.skip) != "none")

    def _convolution(self, part: Convolution) -> Box:
        title, facts = _kernel(part.conv)
        pooling, skip, own = _plain(part.pooling), _plain(part.skip) != "none", self.count(part)
        if len(self.shape) == 3:
            by = 1 if pooling == "none" else 2
            self.shape = (*(-(-each // by) for each in self.shape[:2]), part.conv.out_features)
        made = Box(title, (*facts, *_behind(part)), tone="dense", own=own, skip=skip)
        if pooling == "none":
            return made
        pool = Box(f"{pooling} pooling by 2")
        # What is added comes before the pooling.
        return Box(inner=(made, pool)) if skip else replace(made, facts=(*made.facts, pool.title))

    def _embedding(self, part: Embedding) -> Box:
        table: Any = part.table
        if part.tokens:
            features, facts = table.features, (f"{part.tokens} symbols → {table.features}",)
        elif len(part.shape) == 3:
            features = table.out_features
            facts = (
                f"{count_tokens(part.shape)} patches of {sizes((part.patch, part.patch))} pixels",
                f"{table.in_features} → {features}",
            )
        else:
            features = table[...].shape[-1]
            facts = (f"a token of {features} for each of {count_tokens(part.shape)} numbers",)
        self.shape = (count_tokens(part.shape), features)
        return Box("embedding", facts, own=self.count(part))

    def _block(self, part: Block) -> Box:
        residuals = (part.attention, part.dense, part.experts)
        return Box(inner=tuple(box for each in residuals if each is not None for box in self._residual(each)))

    def _residual(self, part: Residual) -> list[Box]:
        """A part with the arrow around it, normalised within that or behind it."""
        norm = [] if part.norm is None else [self.box(part.norm)]
        inner = self.box(part.part)
        if _plain(part.placement) == "pre":
            return [Box(skip=True, inner=(*norm, inner), shape=self.shape)]
        return [Box(skip=True, inner=(inner,), shape=self.shape), *norm]

    def _attention(self, part: Attention) -> Box:
        heads, shared, kind = _whole(part.heads), _whole(part.kv_heads), _plain(part.kind)
        facts = [f"{heads} head{'s' if heads > 1 else ''} {TIMES} {_whole(part.head_size)}"]
        if shared < heads:
            facts.append("1 key-value head" if shared == 1 else f"{shared} key-value heads")
        facts.append(POSITIONS[_plain(part.position)])
        if part.query_norm is not None:
            facts.append(f"query-key {_normalisation(part.query_norm)}")
        if part.gate is not None and _plain(part.gated):
            facts.append("gated")
        if part.causal:
            facts.append("causal")
        title = f"window attention of {_whole(part.window)} tokens" if kind == "window" else f"{kind} attention"
        return Box(title, tuple(facts), tone="attention", own=self.count(part))

    def _forward(self, part: FeedForward) -> Box:
        inner, outer = part.inner, part.outer
        facts = (f"{inner.in_features} → {inner.out_features} → {outer.out_features}", str(_plain(part.activation)))
        return Box("feed-forward", facts, tone="dense", own=self.count(part))

    def _experts(self, part: MixtureOfExperts) -> Box:
        _, size_in, width = part.inner[...].shape
        count, k, kind = _whole(part.router.experts), _whole(part.router.k), str(_plain(part.router.kind))
        facts = [f"{size_in} → {width} → {size_in}", str(_plain(part.activation)), f"{kind.replace('_', ' ')} router"]
        if kind != "expert_choice":
            facts.append("no limit of capacity" if part.room.value is None else f"capacity {float(part.room.value):g}")
            facts.append(f"balance loss {TIMES} {float(part.balance_weight.value):.3g}")
        if part.shared_inner is not None and _plain(part.shared):
            facts.append("a shared expert")
        own, spared = self.count(part), count_idle_parameters(part)
        title = f"{count} experts, {k} a token"
        return Box(title, tuple(facts), tone="experts", own=own, spared=spared, experts=(count, k))


def _held(part: nnx.Module) -> tuple[str, ...]:
    """The modules within a part that hold no others, by class."""
    inner = [
        each for _, each in nnx.iter_modules(part) if each is not part and not isinstance(each, nnx.List | nnx.Dict)
    ]
    kinds = Counter(type(each).__name__ for each in inner if not _children(each))
    return tuple(f"{times} {kind}" if times > 1 else kind for kind, times in kinds.items())


def _kernel(part: nnx.Conv) -> tuple[str, tuple[str, ...]]:
    """A convolution's title and what it maps."""
    held: Any = part.kernel_size
    kernel: list[int] = list(held) if isinstance(held, Sequence) else [held]
    title = f"{sizes(kernel)} convolution" if len(kernel) > 1 else f"convolution of {kernel[0]}"
    return title, (f"{part.in_features} → {part.out_features} channels",)


def _normalisation(part: Any) -> str:
    return f"{_plain(part.kind) if isinstance(part, PaddedNorm) else NORMS[type(part)]} norm"


def _behind(part: Dense | Convolution) -> tuple[str, ...]:
    """What follows the map of a layer."""
    norm = () if part.norm is None else (_normalisation(part.norm),)
    added = {"none": (), "identity": ("input added",), "projected": ("input added, projected",)}[_plain(part.skip)]
    return (*norm, str(_plain(part.activation)), *added)
