"""Optuna and the usual Flax loop, one compiled step a trial: `flax_loop.py FOLDER PART [SEED]`.

Any number of these processes share the candidates; PART tells apart the files that they write.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optuna
from claims import claim_candidates
from flax import nnx

ACTIVATIONS = {"relu": nnx.relu, "gelu": nnx.gelu, "silu": nnx.silu, "tanh": nnx.tanh}


class Network(nnx.Module):
    """The perceptron or convolutional network of a candidate."""

    def __init__(self, values: dict[str, Any], inputs: tuple[int, ...], outputs: int, rngs: nnx.Rngs) -> None:
        self.act, self.cnn = ACTIVATIONS[values["activation"]], values["family"] == "cnn"
        self.drop = nnx.Dropout(values["dropout"], rngs=rngs)
        init: Any = {"kernel_init": nnx.initializers.he_normal(), "rngs": rngs}
        height, width, channels = inputs
        if self.cnn:
            sizes = [channels, *[values["filters"]] * values["depth"]]
            kernel = (values["kernel"], values["kernel"])
            self.layers = nnx.List([nnx.Conv(a, b, kernel, **init) for a, b in itertools.pairwise(sizes)])
            height, width = -(-height // 2), -(-width // 2)
            self.window = -(-max(height, width) // 4)
            size = sizes[-1] * -(-height // self.window) * -(-width // self.window)
        else:
            sizes = [math.prod(inputs), *[values["width"]] * values["depth"]]
            self.layers = nnx.List([nnx.Linear(a, b, **init) for a, b in itertools.pairwise(sizes)])
            size = sizes[-1]
        self.head = nnx.Linear(size, outputs, **init)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images `[B, H, W, C]` to logits."""
        if not self.cnn:
            x = x.reshape(len(x), -1)
        for n, layer in enumerate(self.layers):
            x = self.act(layer(x))
            if self.cnn and n == 0:
                x = nnx.max_pool(x, (2, 2), (2, 2), "SAME")
            if not self.cnn:
                x = self.drop(x)
        if self.cnn:
            if self.window > 1:
                shape = (self.window, self.window)
                x = nnx.avg_pool(x, shape, shape, "SAME", count_include_pad=False)
            x = self.drop(x.reshape(len(x), -1))
        return self.head(x)


def network(about: dict[str, Any], values: dict[str, Any], seed: int) -> tuple[Any, Callable[[Any], Any]]:
    """A candidate's model, and what it adds to the loss.

    A transformer is made of l2l's layers, with plain numbers: a loop of one's own would have to bring them.
    """
    if about["space"] == "transformer":
        from l2l.nn.moe import collect_penalties  # here, since Ray's interpreter need not have l2l
        from l2l.types import Spec
        from search_spaces import transformer

        return transformer.build_network(values, Spec(**about["spec"]), nnx.Rngs(seed)), lambda model: sum(
            collect_penalties(model)
        )
    return Network(values, tuple(about["spec"]["inputs"]), about["outputs"], nnx.Rngs(seed)), lambda model: 0.0


def optimizer_of(values: dict[str, Any], steps: int) -> optax.GradientTransformation:
    """The recipe of `search_spaces/recipe.py`."""
    warm = values["warmup"] * steps

    def rate(count: Any) -> Any:
        step = jnp.asarray(count, jnp.float32)
        share = jnp.clip((step - warm) / max(steps - warm, 1.0), 0.0, 1.0)
        left = {"constant": 1.0, "linear": 1.0 - share, "cosine": 0.5 * (1.0 + jnp.cos(jnp.pi * share))}
        peak = values[f"{values['optimizer']}_learning_rate"]
        return peak * jnp.minimum((step + 1.0) / max(warm, 1.0), 1.0) * left[values["schedule"]]

    rules: dict[str, Any] = {
        "adamw": lambda: optax.scale_by_adam(eps=1e-5),
        "lion": optax.scale_by_lion,
        "sgd": lambda: optax.trace(decay=0.9, nesterov=True),
    }
    rule = rules[values["optimizer"]]()
    decay = optax.add_decayed_weights(values["weight_decay"], lambda p: jax.tree.map(lambda leaf: leaf.ndim > 1, p))
    return optax.chain(rule, decay, optax.scale_by_learning_rate(rate))


def train(about: dict[str, Any], values: dict[str, Any], data: Any, order: np.ndarray, seed: int = 0) -> float | None:
    """Validation accuracy after training, None if it diverged; `seed` is that of initialisation and dropout."""
    x, y, validation_x, validation_y = data
    model, penalty = network(about, values, seed)
    size = values["batch_size"]
    per_epoch = len(x) // size
    optimizer = nnx.Optimizer(model, optimizer_of(values, per_epoch * len(order)), wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        def loss(model: Any) -> jax.Array:
            labels = optax.smooth_labels(jax.nn.one_hot(y, about["outputs"]), values["label_smoothing"])
            return optax.softmax_cross_entropy(model(x), labels).mean() + penalty(model)

        value, gradient = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradient)
        return value

    @nnx.jit
    def correct(model: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.sum(jnp.argmax(model(x), -1) == y)

    training = nnx.cached_partial(step, model, optimizer)
    half = -(-len(validation_x) // -(-len(validation_x) // 256))
    accuracy, value = 0.0, jnp.zeros(())
    for epoch in order:
        model.train()
        for at in range(per_epoch):
            index = epoch[at * size : (at + 1) * size]
            value = training(x[index], y[index])
        if not math.isfinite(value):  # once an epoch, where scoring waits for the last step anyway
            return None
        model.eval()
        parts = [slice(i, i + half) for i in range(0, len(validation_x), half)]
        right = sum(int(correct(model, validation_x[part], validation_y[part])) for part in parts)
        accuracy = right / len(validation_x)
    return accuracy


class Work:
    """What `workloads.py` wrote: the candidates, and all that it takes to train one of them."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.candidates = json.loads((folder / "candidates.json").read_text())
        self.about = json.loads((folder / "about.json").read_text())
        arrays = np.load(folder / "data.npz")
        self.data = tuple(arrays[name] for name in ("x", "y", "vx", "vy"))
        self.orders = np.load(folder / "orders.npy", mmap_mode="r")
        self.seed = seed

    def accuracy(self, at: int) -> float | None:
        """Validation accuracy of this candidate after training, None if it diverged."""
        seed = self.seed * len(self.candidates) + at  # one of its own, so that a mean is over independent trainings
        return train(self.about, self.candidates[at], self.data, np.array(self.orders[at]), seed)


def main(folder: Path, part: int, seed: int = 0) -> None:
    """Trains candidates until none is left, proposed by an Optuna study, and writes their accuracies."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    work = Work(folder, seed)
    study = optuna.create_study(direction="maximize")
    accuracies: dict[int, float | None] = {}

    def objective(trial: optuna.Trial) -> float:
        at = trial.suggest_int("candidate", 0, len(work.candidates) - 1)
        accuracy = accuracies[at] = work.accuracy(at)
        return math.nan if accuracy is None else accuracy  # Optuna takes it for a failed trial

    for at in claim_candidates(folder, len(work.candidates)):
        study.enqueue_trial({"candidate": at})
        study.optimize(objective, n_trials=1)
    (folder / f"flax-{part}.json").write_text(json.dumps(accuracies))


if __name__ == "__main__":
    started = time.perf_counter()
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    print(f"{time.perf_counter() - started:.2f} s")
