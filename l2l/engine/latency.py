"""How long a model takes on this device."""

from __future__ import annotations

import statistics
import time
from typing import Any

import jax
import numpy as np
from flax import nnx

from l2l.types import Task

REPEATS = 31
"""Calls whose median is taken, after two that are not."""


def latency(model: nnx.Module, task: Task, batch: int = 1) -> float:
    """Seconds from `batch` raw examples of the validation split to their logits, compiled; the median of `REPEATS`.

    Of the first device, which holds weights and examples before; a smaller split is gone through again.
    """
    examples = task.load("validation")[0]
    device = jax.local_devices()[0]
    graph, state = nnx.split(model)
    state, x = jax.device_put((state, np.resize(examples, (batch, *examples.shape[1:]))), device)

    def forward(state: Any, x: jax.Array) -> jax.Array:
        held = nnx.merge(graph, state)
        held.eval()
        return held(x)  # pyright: ignore[reportCallIssue]

    run = jax.jit(forward).lower(state, x).compile()
    seconds: list[float] = []
    for _ in range(REPEATS + 2):
        begun = time.perf_counter()
        jax.block_until_ready(run(state, x))
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[2:])
