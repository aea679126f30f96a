"""The perceptrons and convolutional networks of l2l's spaces in PyTorch, by the same values."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch_recipe import ACTIVATIONS

GRID = 4
"""The last feature map is averaged down to at most this many rows and columns before the linear head."""


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of the channels at each pixel of images `[B, C, H, W]`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The same shape."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class Layer(nn.Module):
    """A linear map or convolution, normalisation, activation, the input added if `skip`, and pooling by 2."""

    def __init__(self, inputs: int, outputs: int, values: dict[str, Any], prefix: str, is_image: bool) -> None:
        super().__init__()
        kind, skip = values[f"{prefix}normalisation"], values[f"{prefix}skip"]
        self.act = ACTIVATIONS[values[f"{prefix}activation"]]
        self.pooling = values[f"{prefix}pooling"] if is_image else "none"
        kernel = values[f"{prefix}kernel"] if is_image else 0
        # Batch normalisation cancels a bias.
        self.map = make_map(inputs, outputs, kernel, bias=kind != "batch")
        norms: dict[str, Any] = {
            "batch": (nn.BatchNorm2d if is_image else nn.BatchNorm1d, {"eps": 1e-5, "momentum": 0.01}),
            "layer": (ChannelNorm if is_image else nn.LayerNorm, {"eps": 1e-6}),
        }
        self.norm = norms[kind][0](outputs, **norms[kind][1]) if kind != "none" else None
        self.skip = skip
        self.project = make_map(inputs, outputs, 1 if is_image else 0, False) if skip and inputs != outputs else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features `[B, in]` or images `[B, in, H, W]`."""
        y = self.map(x)
        y = self.act(y if self.norm is None else self.norm(y))
        if self.skip:
            y = y + (x if self.project is None else self.project(x))
        return pool(self.pooling, y, 2)


class Perceptron(nn.Module):
    """A perceptron over flattened inputs."""

    def __init__(self, values: dict[str, Any], inputs: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.rate = values["dropout"]
        layers: list[nn.Module] = []
        features = math.prod(inputs)
        for n in range(1, values["depth"] + 1):
            width = values[f"layer{n}_width"]
            layers.append(Layer(features, width, values, f"layer{n}_", is_image=False))
            features = width
        self.layers, self.head = nn.ModuleList(layers), make_map(features, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images `[B, C, H, W]` to logits."""
        x = x.flatten(1)
        for layer in self.layers:
            x = functional.dropout(layer(x), self.rate, self.training)
        return self.head(x)


class ConvNet(nn.Module):
    """Convolutional layers, average pooling to a small grid and a linear head."""

    def __init__(self, values: dict[str, Any], inputs: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.rate = values["dropout"]
        layers: list[nn.Module] = []
        height, width, channels = inputs
        for n in range(1, values["depth"] + 1):
            filters = values[f"layer{n}_filters"]
            layer = Layer(channels, filters, values, f"layer{n}_", is_image=True)
            layers.append(layer)
            channels = filters
            if layer.pooling != "none":
                height, width = -(-height // 2), -(-width // 2)
        self.layers = nn.ModuleList(layers)
        self.window = -(-max(height, width) // GRID)
        self.head = make_map(channels * -(-height // self.window) * -(-width // self.window), outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images `[B, C, H, W]` to logits."""
        for layer in self.layers:
            x = layer(x)
        x = pool("average", x, self.window)
        return self.head(functional.dropout(x.flatten(1), self.rate, self.training))


def make_map(inputs: int, outputs: int, kernel: int = 0, bias: bool = True) -> Any:
    """A linear map, or a convolution with a kernel of this size, with He's initial weights."""
    layer = (
        nn.Conv2d(inputs, outputs, kernel, padding="same", bias=bias) if kernel else nn.Linear(inputs, outputs, bias)
    )
    nn.init.normal_(layer.weight, std=math.sqrt(2.0 / layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def pool(kind: str, x: torch.Tensor, window: int) -> torch.Tensor:
    """Images in windows that do not overlap; what lies beyond the border counts for nothing."""
    if kind == "none" or window == 1 or max(x.shape[2:]) == 1:
        return x
    if kind == "max":
        return functional.max_pool2d(x, window, ceil_mode=True)
    return functional.avg_pool2d(x, window, ceil_mode=True, count_include_pad=False)


def spread_layers(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a candidate of `mixed`, whose layers are alike, as those of `mlp` and `cnn`."""
    layers: dict[str, Any] = dict(values)
    for n in range(1, values["depth"] + 1):
        layers |= {
            f"layer{n}_width": values.get("width"), f"layer{n}_filters": values.get("filters"),
            f"layer{n}_kernel": values.get("kernel"), f"layer{n}_activation": values["activation"],
            f"layer{n}_pooling": "max" if n == 1 else "none",
            f"layer{n}_normalisation": "none", f"layer{n}_skip": False,
        }  # fmt: skip
    return layers


def make_model(space: str, values: dict[str, Any], job: dict[str, Any]) -> nn.Module:
    """The untrained model of these values; `job` says what the task asks of it."""
    inputs, outputs = tuple(job["inputs"]), job["outputs"]
    if space in ("transformer", "moe"):
        from torch_transformer import Transformer

        return Transformer({**job["defaults"], **values}, inputs, outputs)
    family = values["family"] if space == "mixed" else space
    values = spread_layers(values) if space == "mixed" else values
    return {"mlp": Perceptron, "cnn": ConvNet}[family](values, inputs, outputs)
