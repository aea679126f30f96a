"""Outlines a model: boxes from the input to the logits, with the parameters of each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from l2l.engine.cost import count_idle_parameters
from l2l.nn.blocks import Standardised
from l2l.nn.description import Description, describe, format_shape
from l2l.nn.dropout import Dropout
from l2l.nn.stack import Stack
from l2l.nn.text import TextModel
from l2l.types import Spec

WITHOUT_BOX = (nnx.Dropout, Dropout)
"""Layers that no box shows: their rate belongs to the training recipe."""


@dataclass(frozen=True)
class Box:
    """A layer with its parameters, or several in the order in which they are computed."""

    title: str = ""
    facts: tuple[str, ...] = ()
    name: str = ""
    """Its name in the module that holds it."""
    tone: str = "plain"
    """What kind of layer it is: data, plain, norm, attention, dense or experts."""
    own_parameters: int = 0
    """Parameters that are in none of `inner`."""
    own_idle: int = 0
    """How many of them one token is not computed with, on average."""
    experts: tuple[int, int] = (0, 0)
    """How many experts there are, and how many of them compute a token."""
    skip: bool = False
    """Whether its input is added to its output."""
    inner: tuple[Box, ...] = ()
    shape: tuple[int, ...] = ()
    """The shape of its output for one example; empty where that is unknown."""

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return self.own_parameters + sum(box.parameters for box in self.inner)

    @property
    def idle_parameters(self) -> int:
        """How many of the parameters one token is not computed with, on average."""
        return self.own_idle + sum(box.idle_parameters for box in self.inner)

    def leaves(self) -> Iterator[Box]:
        """The boxes that hold no others, in order."""
        if not self.inner:
            yield self
        for box in self.inner:
            yield from box.leaves()


def outline(model: nnx.Module, spec: Spec) -> list[Box]:
    """The boxes of a found model, the input first and the logits last; their parameters add up to the model's."""
    facts = [format_shape(spec.inputs)]
    if isinstance(model, TextModel):
        facts = [f"{format_shape(spec.inputs)} tokens of {spec.tokens}"]
    if isinstance(model, Standardised) and not _is_neutral(model):
        facts.append("centred and scaled")
    inner: Any = model.model if isinstance(model, Standardised | TextModel) else model
    counter = _ParameterCounter()
    boxes = _make_boxes(_describe_model(inner, spec.inputs), counter)
    if rest := counter.count_new(model):
        boxes = [Box(type(inner).__name__, ("weights of its own",), own_parameters=rest), *boxes]
    first = Box("input", tuple(facts), tone="data", shape=spec.inputs)
    return [first, *boxes, Box("logits", (format_shape((*spec.targets, spec.outputs)),), tone="data")]


def _is_neutral(model: Standardised) -> bool:
    return not np.any(np.asarray(model.mean[...])) and bool(np.all(np.asarray(model.scale[...]) == 1))


def _describe_model(model: nnx.Module, shape: tuple[int, ...]) -> list[Description]:
    """The description of a model that describes itself, or else of every module that it holds, in their order."""
    children = _list_children(model)
    description = describe(model, shape)
    if description is not None or not children:
        return [description or _describe_unknown(model)]
    descriptions: list[Description] = []
    for name, child in children:
        description = describe(child, shape) or _describe_unknown(child)
        shape = description.shape
        descriptions.append(replace(description, name=name))
    return descriptions


def _describe_unknown(module: nnx.Module) -> Description:
    """A module by its class, with the classes of the modules in it that hold no others."""
    inner = [part for _, part in nnx.iter_modules(module) if part is not module]
    counts = Counter(
        type(part).__name__ for part in inner if not isinstance(part, nnx.List | nnx.Dict) and not _list_children(part)
    )
    facts = tuple(f"{count} {name}" if count > 1 else name for name, count in counts.items())
    return Description(type(module).__name__, facts, module=module)


def _list_children(module: nnx.Module) -> list[tuple[str, nnx.Module]]:
    """The modules that a module holds, with their names, in the order of creation; lists of them one by one."""
    children: list[tuple[str, Any]] = []
    for attribute, value in vars(module).items():
        name = attribute.replace("_", " ").strip()
        members = None if attribute.startswith("_pytree__") else _list_members(value)
        if members is None:
            children.append((name, value))
        else:
            children += [(f"{name.removesuffix('s')} {key}", member) for key, member in members]
    return [
        (name, child)
        for name, child in children
        if isinstance(child, nnx.Module) and not isinstance(child, WITHOUT_BOX)
    ]


def _list_members(value: Any) -> list[tuple[str, Any]] | None:
    """The members of a container with their names; None for anything else."""
    value = value.layers if isinstance(value, nnx.Sequential) else value
    if isinstance(value, Stack) and value.layers is not None:
        value = list(value.layers)[: int(value.depth.active)]
    if isinstance(value, list | tuple | nnx.List):
        return [(str(number), member) for number, member in enumerate(value, 1)]
    return [(str(key), member) for key, member in value.items()] if isinstance(value, Mapping | nnx.Dict) else None


class _ParameterCounter:
    """Counts parameters where they first occur."""

    def __init__(self) -> None:
        self._counted: set[int] = set()

    def is_counted(self, module: nnx.Module) -> bool:
        """Whether some parameters of a module were counted before."""
        return not self._counted.isdisjoint(_find_parameters(module))

    def count_new(self, module: nnx.Module) -> int:
        """The parameters of a module that were not counted before."""
        parameters = _find_parameters(module)
        new = [parameter for key, parameter in parameters.items() if key not in self._counted]
        self._counted |= set(parameters)
        return sum(math.prod(jnp.shape(leaf)) for parameter in new for leaf in jax.tree.leaves(parameter.get_value()))


def _find_parameters(module: nnx.Module) -> dict[int, Any]:
    """The variables of a module that are trained, by identity."""
    return {id(node): node for _, node in nnx.iter_graph(module) if isinstance(node, nnx.Param)}


def _make_boxes(descriptions: Sequence[Description], counter: _ParameterCounter) -> list[Box]:
    """A box for each description; one that only lists parts, without a name, gives way to these."""
    boxes: list[Box] = []
    for description in descriptions:
        if description.title or description.name or description.adds_input:
            boxes.append(_make_box(description, counter))
        else:
            boxes += _make_boxes(description.parts, counter)
    return boxes


def _make_box(description: Description, counter: _ParameterCounter) -> Box:
    facts, module, parameters, idle = description.facts, description.module, 0, 0
    if module is not None:
        if counter.is_counted(module):
            facts = (*facts, "shares weights from above")
        parameters, idle = counter.count_new(module), count_idle_parameters(module)
    return Box(
        description.title,
        facts,
        description.name,
        description.kind,
        own_parameters=parameters,
        own_idle=idle,
        experts=description.experts,
        skip=description.adds_input,
        inner=tuple(_make_boxes(description.parts, counter)),
        shape=description.shape,
    )
