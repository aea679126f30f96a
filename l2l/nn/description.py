"""Layers in words: every layer of `l2l.nn` has a method `describe`, and stock layers have a function here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from flax import nnx

TIMES = "\N{MULTIPLICATION SIGN}"
NORMS = {nnx.BatchNorm: "batch norm", nnx.LayerNorm: "layer norm", nnx.RMSNorm: "rms norm"}
"""Titles of stock normalisations."""


@dataclass(frozen=True)
class Description:
    """A layer in words, or several in the order in which they are computed."""

    title: str = ""
    facts: tuple[str, ...] = ()
    name: str = ""
    """Its name in the module that holds it; empty if it needs none."""
    kind: str = "plain"
    """What kind of layer it is: plain, norm, attention, dense or experts."""
    shape: tuple[int, ...] = ()
    """The shape of its output for one example; empty where that is unknown."""
    module: nnx.Module | None = None
    """The module whose parameters it has, besides those of `parts`."""
    parts: tuple[Description, ...] = ()
    adds_input: bool = False
    """Whether its input is added to its output."""
    experts: tuple[int, int] = (0, 0)
    """How many experts there are, and how many of them compute a token."""


@runtime_checkable
class Describable(Protocol):
    """A layer that describes itself."""

    def describe(self, shape: tuple[int, ...]) -> Description:
        """The layer in words, for inputs that have this shape without the batch; empty where that is unknown."""
        ...


def describe(module: Any, shape: tuple[int, ...]) -> Description | None:
    """A layer in words, for inputs of this shape; None if it is neither a stock layer nor describes itself."""
    if isinstance(module, Describable):
        return module.describe(shape)
    function = STOCK_LAYERS.get(type(module))
    return None if function is None else function(module, shape)


def describe_all(modules: Sequence[Any], shape: tuple[int, ...]) -> tuple[Description, ...]:
    """Layers in words, each with the output of the one before it as its input; None among them is left out."""
    descriptions: list[Description] = []
    for module in modules:
        if module is None:
            continue
        description = describe(module, shape) or Description(type(module).__name__, module=module)
        descriptions.append(description)
        shape = description.shape
    return tuple(descriptions)


def map_shape(shape: tuple[int, ...], size_in: int, size_out: int) -> tuple[int, ...]:
    """The shape behind a linear map: of all features if they are flattened before it, else of the last axis."""
    if not shape:
        return ()
    is_flattened = shape[-1] != size_in or math.prod(shape) == size_in
    return (size_out,) if is_flattened else (*shape[:-1], size_out)


def format_shape(shape: Sequence[int]) -> str:
    """A shape in words."""
    return f" {TIMES} ".join(map(str, shape))


def describe_kernel(layer: nnx.Conv) -> tuple[str, tuple[str, ...]]:
    """The title and the facts of a convolution."""
    kernel: Any = layer.kernel_size
    sizes: list[int] = list(kernel) if isinstance(kernel, Sequence) else [kernel]
    title = f"{format_shape(sizes)} convolution" if len(sizes) > 1 else f"convolution of {sizes[0]}"
    return title, (f"{layer.in_features} → {layer.out_features} channels",)


def _describe_linear(layer: nnx.Linear, shape: tuple[int, ...]) -> Description:
    facts = [f"{layer.in_features} → {layer.out_features}"]
    if len(shape) == 3:
        positions, rest = divmod(layer.in_features, shape[-1])
        if not rest and 1 < positions < math.prod(shape[:-1]):
            facts.insert(0, f"pooled to {positions} positions")
    return Description(
        "linear", tuple(facts), shape=map_shape(shape, layer.in_features, layer.out_features), module=layer
    )


def _describe_conv(layer: nnx.Conv, shape: tuple[int, ...]) -> Description:
    return Description(*describe_kernel(layer), module=layer)


def _describe_norm(layer: Any, shape: tuple[int, ...]) -> Description:
    return Description(NORMS[type(layer)], kind="norm", shape=shape, module=layer)


STOCK_LAYERS: dict[type, Callable[[Any, tuple[int, ...]], Description]] = {
    nnx.Linear: _describe_linear,
    nnx.Conv: _describe_conv,
    **dict.fromkeys(NORMS, _describe_norm),
}
