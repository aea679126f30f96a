"""Optuna and PyTorch eager, on one thread: `torch_eager.py FOLDER PART`.

Any number of these processes share the candidates; PART tells apart the files that they write.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from claims import claim_candidates
from torch import nn
from torch.nn import functional
from torch_recipe import ACTIVATIONS, Optimizer, rate_of, score


class Network(nn.Module):
    """The perceptron or convolutional network of a candidate."""

    def __init__(self, values: dict[str, Any], inputs: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.act, self.rate, self.cnn = ACTIVATIONS[values["activation"]], values["dropout"], values["family"] == "cnn"
        height, width, channels = inputs
        if self.cnn:
            sizes = [channels, *[values["filters"]] * values["depth"]]
            kernel = values["kernel"]
            self.layers = nn.ModuleList(nn.Conv2d(a, b, kernel, padding="same") for a, b in itertools.pairwise(sizes))
            height, width = -(-height // 2), -(-width // 2)
            self.window = -(-max(height, width) // 4)
            places = -(-height // self.window) * -(-width // self.window)
            self.head = nn.Linear(sizes[-1] * places, outputs)
        else:
            sizes = [math.prod(inputs), *[values["width"]] * values["depth"]]
            self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
            self.head = nn.Linear(sizes[-1], outputs)
        for layer in [*self.layers, self.head]:
            fan = layer.weight[0].numel()
            nn.init.normal_(layer.weight, std=math.sqrt(2.0 / fan))
            nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images `[B, C, H, W]` to logits."""
        if not self.cnn:
            x = x.flatten(1)
        for n, layer in enumerate(self.layers):
            x = self.act(layer(x))
            if self.cnn and n == 0:
                x = functional.max_pool2d(x, 2, ceil_mode=True)
            if not self.cnn:
                x = functional.dropout(x, self.rate, self.training)
        if self.cnn:
            if self.window > 1:
                x = functional.avg_pool2d(x, self.window, ceil_mode=True, count_include_pad=False)
            x = functional.dropout(x.flatten(1), self.rate, self.training)
        return self.head(x)


def train(values: dict[str, Any], data: Any, order: np.ndarray, outputs: int, seed: int) -> float | None:
    """Validation accuracy after training, None if it diverged; `seed` is that of initialisation and dropout."""
    torch.manual_seed(seed)
    x, y, validation_x, validation_y = data
    model = Network(values, (x.shape[2], x.shape[3], x.shape[1]), outputs)
    optimizer = Optimizer(values, model)
    size = values["batch_size"]
    per_epoch = len(x) // size
    step, steps = 0, per_epoch * len(order)
    accuracy, loss = 0.0, torch.zeros(())
    for epoch in order:
        model.train()
        for at in range(per_epoch):
            index = epoch[at * size : (at + 1) * size]
            loss = functional.cross_entropy(model(x[index]), y[index], label_smoothing=values["label_smoothing"])
            optimizer.clear()
            loss.backward()
            optimizer.step(rate_of(values, step, steps))
            step += 1
        if not math.isfinite(loss.item()):
            return None
        accuracy = score(model, validation_x, validation_y)
    return accuracy


def main(folder: Path, part: int) -> None:
    """Trains candidates until none is left, proposed by an Optuna study, and writes their accuracies."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    candidates = json.loads((folder / "candidates.json").read_text())
    about = json.loads((folder / "about.json").read_text())
    arrays = np.load(folder / "data.npz")
    images = [torch.from_numpy(np.ascontiguousarray(arrays[name].transpose(0, 3, 1, 2))) for name in ("x", "vx")]
    labels = [torch.from_numpy(arrays[name].astype(np.int64)) for name in ("y", "vy")]
    data = (images[0], labels[0], images[1], labels[1])
    orders = np.load(folder / "orders.npy", mmap_mode="r")
    study = optuna.create_study(direction="maximize")
    accuracies: dict[int, float | None] = {}

    def objective(trial: optuna.Trial) -> float:
        at = trial.suggest_int("candidate", 0, len(candidates) - 1)
        order = torch.from_numpy(np.array(orders[at])).long()
        accuracy = accuracies[at] = train(candidates[at], data, order, about["outputs"], at)
        return math.nan if accuracy is None else accuracy  # Optuna takes it for a failed trial

    for at in claim_candidates(folder, len(candidates)):
        study.enqueue_trial({"candidate": at})
        study.optimize(objective, n_trials=1)
    (folder / f"torch-{part}.json").write_text(json.dumps(accuracies))


if __name__ == "__main__":
    started = time.perf_counter()
    main(Path(sys.argv[1]), int(sys.argv[2]))
    print(f"{time.perf_counter() - started:.2f} s")
