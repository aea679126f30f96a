"""The transformers and mixtures of experts of l2l's spaces in PyTorch, for images, by the same values."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch_models import make_map
from torch_recipe import ACTIVATIONS

PATCHES = 49
"""The most tokens that an image becomes."""
Z_WEIGHT = 0.001


class Attention(nn.Module):
    """Attention of a sequence to itself: to all tokens, those of a window, or in linear time."""

    cosine: torch.Tensor
    sine: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, values: dict[str, Any], prefix: str, length: int) -> None:
        super().__init__()

        def read(name: str) -> Any:
            return values.get(prefix + name, values.get(name))

        width, self.rate = values["width"], values["dropout"]
        self.heads, self.size, self.kind = read("heads"), read("head_size"), read("attention")
        self.kv_heads = {"all": self.heads, "half": max(self.heads // 2, 1), "one": 1}[read("kv_heads")]
        position = read("linear_position") if self.kind == "linear" else read("position")
        total, kv_total = self.heads * self.size, self.kv_heads * self.size
        self.splits = [total, kv_total, kv_total]
        self.project, self.output = make_lecun(width, sum(self.splits)), make_lecun(total, width)
        self.gate = make_lecun(width, total) if read("gate") else None
        has_norm = read("query_key_norm") == "rms"
        self.query_norm, self.key_norm = (nn.RMSNorm(self.size, eps=1e-6) if has_norm else None for _ in range(2))
        self.places = nn.Parameter(sample_lecun(length, width, inputs=length)) if position == "learned" else None
        self.rotary = position == "rotary"
        angles = torch.arange(length)[:, None] * 10_000.0 ** (-2.0 * torch.arange(self.size // 2) / self.size)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)
        window = read("window") if self.kind == "window" else None
        self.register_buffer("bias", make_bias(length, self.heads, position == "alibi", window), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens `[B, L, F]` to the same shape."""
        if self.places is None:
            query, key, value = self.project(x).split(self.splits, -1)
        else:
            pair = sum(self.splits[:2])
            query, key = functional.linear(x + self.places, self.project.weight[:pair]).split(self.splits[:2], -1)
            value = functional.linear(x, self.project.weight[pair:])
        query, key, value = (part.unflatten(-1, (-1, self.size)).transpose(1, 2) for part in (query, key, value))
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if self.kind == "linear":
            y = self._attend_linearly(query, key, value)
        else:
            query, key, value = self._rotate(query), self._repeat(self._rotate(key)), self._repeat(value)
            y = functional.scaled_dot_product_attention(query, key, value, attn_mask=self.bias)
        y = y.transpose(1, 2).flatten(2)
        y = y if self.gate is None else y * torch.sigmoid(self.gate(x))
        return functional.dropout(self.output(y), self.rate, self.training)

    def _attend_linearly(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Source: Katharopoulos et al. 2020, arXiv:2006.16236, equation 7."""
        query, key = functional.elu(query) + 1.0, self._repeat(functional.elu(key) + 1.0)
        total = query @ key.sum(2, keepdim=True).transpose(-1, -2)
        mixed = self._rotate(query) @ (self._rotate(key).transpose(-1, -2) @ self._repeat(value))
        return mixed / total.clamp(min=1e-6)

    def _rotate(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, H, L, D]` with neighbouring features as pairs, each rotated in proportion to its position."""
        if not self.rotary:
            return x
        first, second = x[..., 0::2], x[..., 1::2]
        pairs = (first * self.cosine - second * self.sine, first * self.sine + second * self.cosine)
        return torch.stack(pairs, -1).flatten(-2)

    def _repeat(self, x: torch.Tensor) -> torch.Tensor:
        """Key or value heads as every query head sees them."""
        return x if self.kv_heads == self.heads else x.repeat_interleave(self.heads // self.kv_heads, 1)


class FeedForward(nn.Module):
    """Two linear maps with an activation between, and dropout after them."""

    def __init__(self, values: dict[str, Any], prefix: str) -> None:
        super().__init__()
        width = values["width"]
        inner = width * values[f"{prefix}mlp_ratio"]
        self.inner, self.outer = make_map(width, inner), make_map(inner, width)
        self.act, self.rate = ACTIVATIONS[values.get("activation", "gelu")], values["dropout"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, L, F]` to the same shape."""
        return functional.dropout(self.outer(self.act(self.inner(x))), self.rate, self.training)


class Experts(nn.Module):
    """Perceptrons of which each token is computed by `k`; an expert takes so many tokens of a sequence and no more.

    Its tokens lie in buffers of that capacity, so that all experts are two batched products.
    """

    def __init__(self, values: dict[str, Any], prefix: str, length: int) -> None:
        super().__init__()
        width, self.experts, self.k = values["width"], values[f"{prefix}experts"], values[f"{prefix}k"]
        inner, self.router = width * values[f"{prefix}expert_ratio"], values[f"{prefix}router"]
        room = self.k * length * values[f"{prefix}capacity"] / self.experts
        self.capacity = max(math.ceil(room - 1e-4), 1)
        self.kernel = nn.Parameter(sample_lecun(width, self.experts, inputs=width))
        self.noise = nn.Parameter(torch.zeros(width, self.experts)) if self.router == "noisy" else None
        self.inner = nn.Parameter(sample_lecun(self.experts, width, inner, inputs=width))
        self.outer = nn.Parameter(sample_lecun(self.experts, inner, width, inputs=inner))
        shared = values[f"{prefix}shared"]
        self.shared_inner = make_map(width, inner, bias=False) if shared else None
        self.shared_outer = make_map(inner, width, bias=False) if shared else None
        self.act, self.rate = ACTIVATIONS[values.get("activation", "gelu")], values["dropout"]
        self.balance_weight = values[f"{prefix}balance_weight"]
        self.penalty = torch.zeros(())
        """What the last call in training adds to the loss."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, L, F]` to the same shape."""
        logits = x @ self.kernel
        expert, weight = self._choose(x, logits)
        sent = functional.one_hot(expert, self.experts)  # [B, L * k, E]
        if self.training:
            self.penalty = self._measure(logits, sent)
        rank = (sent.cumsum(1) - 1).gather(2, expert[..., None])[..., 0]
        batch, (experts, width, _) = len(x), self.inner.shape
        rows = batch * self.capacity
        slot = expert * rows + torch.arange(batch)[:, None] * self.capacity + rank
        slot = torch.where(rank < self.capacity, slot, experts * rows).flatten()  # the last row is for the dropped
        buffer = x.new_zeros(experts * rows + 1, width)
        buffer = buffer.index_copy(0, slot, x.repeat_interleave(self.k, 1).flatten(0, 1))
        y = self.act(buffer[:-1].view(experts, rows, width) @ self.inner) @ self.outer
        y = functional.pad(y.flatten(0, 1), (0, 0, 0, 1))[slot] * weight.flatten()[:, None]
        y = y.view(*x.shape[:2], self.k, width).sum(2)
        if self.shared_inner is not None and self.shared_outer is not None:
            y = y + self.shared_outer(self.act(self.shared_inner(x)))
        return functional.dropout(y, self.rate, self.training)

    def _choose(self, x: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The experts of each token and their weights, `[B, L * k]`."""
        selection = logits
        if self.noise is not None and self.training:
            selection = logits + torch.randn_like(logits) * functional.softplus(x @ self.noise)
        largest, expert = selection.topk(self.k, -1)
        if self.router == "noisy":
            weight = largest.softmax(-1)
        else:
            scores = logits.softmax(-1) if self.router == "softmax" else logits.sigmoid()
            weight = scores.gather(-1, expert)
        return expert.flatten(1), weight.flatten(1)

    def _measure(self, logits: torch.Tensor, sent: torch.Tensor) -> torch.Tensor:
        """How unevenly the experts are used, and how large the logits are.

        Source: Fedus et al. 2021, arXiv:2101.03961, equations 4 to 6; Zoph et al. 2022, arXiv:2202.08906, equation 5.
        """
        scores = logits.sigmoid() if self.router == "sigmoid" else logits.softmax(-1)
        scores = scores / scores.sum(-1, keepdim=True) if self.router == "sigmoid" else scores
        share = sent.sum((0, 1)) / sent.sum()
        balance = self.experts * (scores.mean((0, 1)) * share).sum()
        return self.balance_weight * balance + Z_WEIGHT * logits.logsumexp(-1).square().mean()


class Residual(nn.Module):
    """A part that is added to its input, normalised before the part (pre) or after the sum (post)."""

    def __init__(self, part: nn.Module, values: dict[str, Any], prefix: str) -> None:
        super().__init__()
        self.part, self.norm = part, make_norm(values, prefix)
        self.is_pre = values.get(f"{prefix}placement", values["placement"]) == "pre"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, L, F]` to the same shape."""
        return x + self.part(self.norm(x)) if self.is_pre else self.norm(x + self.part(x))


class Transformer(nn.Module):
    """Blocks over the patches of an image, normalised and averaged before a linear head.

    `values` also has the defaults of what its space does not search, by their names without the layer's.
    """

    def __init__(self, values: dict[str, Any], inputs: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        height, width, channels = inputs
        sizes = range(1, max(height, width) + 1)
        self.patch = next(size for size in sizes if -(-height // size) * -(-width // size) <= PATCHES)
        self.padding = (0, -width % self.patch, 0, -height % self.patch)
        length = -(-height // self.patch) * -(-width // self.patch)
        self.embedding = make_map(self.patch**2 * channels, values["width"])
        parts: list[nn.Module] = []
        for n in range(1, values["depth"] + 1):
            prefix = f"layer{n}_"
            parts.append(Residual(Attention(values, prefix, length), values, prefix))
            is_sparse = values[f"{prefix}forward"] == "experts"
            forward = Experts(values, prefix, length) if is_sparse else FeedForward(values, prefix)
            parts.append(Residual(forward, values, prefix))
        self.parts = nn.Sequential(*parts)
        self.norm, self.head = make_norm(values, "layer1_"), make_map(values["width"], outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images `[B, C, H, W]` to logits."""
        patches = functional.pixel_unshuffle(functional.pad(x, self.padding), self.patch)
        x = self.embedding(patches.flatten(2).transpose(1, 2))
        return self.head(self.norm(self.parts(x)).mean(1))


def make_norm(values: dict[str, Any], prefix: str) -> nn.Module:
    """The normalisation of a layer."""
    kind = values.get(f"{prefix}normalisation", values["normalisation"])
    return {"layer": nn.LayerNorm, "rms": nn.RMSNorm}[kind](values["width"], eps=1e-6)


def make_bias(length: int, heads: int, has_slopes: bool, window: int | None) -> torch.Tensor | None:
    """What is added to the scores, `[H, L, L]` or `[L, L]`: ALiBi's slopes, and minus infinity outside the window."""
    if not has_slopes and window is None:
        return None
    distance = (torch.arange(length)[:, None] - torch.arange(length)).abs()
    bias = torch.zeros(length, length)
    if has_slopes:
        bias = -(2.0 ** (-8.0 * torch.arange(1, heads + 1) / heads))[:, None, None] * distance
    return bias if window is None else bias.masked_fill(distance >= window, -math.inf)


def make_lecun(inputs: int, outputs: int) -> nn.Linear:
    """A linear map without a bias, with LeCun's initial weights."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=math.sqrt(1.0 / inputs))
    return layer


def sample_lecun(*shape: int, inputs: int) -> torch.Tensor:
    """Normal weights of variance 1 / inputs."""
    return torch.randn(shape) * math.sqrt(1.0 / inputs)
