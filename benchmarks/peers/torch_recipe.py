"""The training recipe of `search_spaces/recipe.py` in PyTorch: learning rates, optimizers and scores."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

ACTIVATIONS: dict[str, Any] = {
    "relu": functional.relu,
    "gelu": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "tanh": torch.tanh,
}


class Optimizer:
    """adamw, sgd or lion, each with decoupled weight decay on the matrices, which are all arrays but the vectors."""

    def __init__(self, values: dict[str, Any], model: nn.Module) -> None:
        self.name, self.decay = values["optimizer"], values["weight_decay"]
        self.params = list(model.parameters())
        self.matrices = [p for p in self.params if p.ndim > 1]
        if self.name == "adamw":
            vectors = [p for p in self.params if p.ndim == 1]
            groups: list[dict[str, Any]] = [
                {"params": self.matrices, "weight_decay": self.decay}, {"params": vectors, "weight_decay": 0.0}
            ]  # fmt: skip
            self.rule: Any = torch.optim.AdamW(groups, eps=1e-5, fused=True)
        elif self.name == "sgd":
            self.rule = torch.optim.SGD(self.params, lr=1.0, momentum=0.9, nesterov=True, fused=True)
        else:
            self.rule = None
            self.moments = [torch.zeros_like(p) for p in self.params]

    def clear(self) -> None:
        """Forgets the gradients."""
        for p in self.params:
            p.grad = None

    def step(self, rate: float) -> None:
        """One step at this learning rate."""
        if self.name != "adamw":
            with torch.no_grad():
                torch._foreach_mul_(self.matrices, 1.0 - rate * self.decay)
        if self.rule is None:
            self._step_lion(rate)
            return
        for group in self.rule.param_groups:
            group["lr"] = rate
        self.rule.step()

    @torch.no_grad()
    def _step_lion(self, rate: float) -> None:
        """Source: Chen et al. 2023, arXiv:2302.06675, algorithm 2, with the decay taken before."""
        gradients: Any = [p.grad for p in self.params]
        signs = torch._foreach_lerp(self.moments, gradients, 0.1)
        torch._foreach_sign_(signs)
        torch._foreach_add_(self.params, signs, alpha=-rate)
        torch._foreach_lerp_(self.moments, gradients, 0.01)


def rate_of(values: dict[str, Any], step: int, steps: int) -> float:
    """The learning rate of a step, as `search_spaces/recipe.py` has it."""
    warm = values["warmup"] * steps
    share = min(max((step - warm) / max(steps - warm, 1.0), 0.0), 1.0)
    left = {"constant": 1.0, "linear": 1.0 - share, "cosine": 0.5 * (1.0 + math.cos(math.pi * share))}
    peak = values[f"{values['optimizer']}_learning_rate"]
    return peak * min((step + 1.0) / max(warm, 1.0), 1.0) * left[values["schedule"]]


@torch.no_grad()
def score(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """The share of examples that the model, in evaluation mode, gets right."""
    model.eval()
    pairs = zip(x.split(256), y.split(256), strict=True)
    return sum(int((model(part).argmax(1) == labels).sum()) for part, labels in pairs) / len(y)
