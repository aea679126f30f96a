"""The latency of a model on this device."""

from __future__ import annotations

import statistics
import time
from typing import Any

import jax
import numpy as np
from flax import nnx

from l2l.types import Task

WARM_UP = 2
"""Calls before those that are measured."""
REPEATS = 31
"""Calls that are measured."""


def measure_latency(model: nnx.Module, task: Task, batch: int = 1) -> float:
    """Seconds from `batch` raw examples of the validation split to their logits; the median of `REPEATS` calls.

    The program is compiled, and weights and examples are on the first device. A split that is smaller than the batch
    is repeated.
    """
    examples = task.load("validation")[0]
    device = jax.local_devices()[0]
    graph, state = nnx.split(model)
    state, x = jax.device_put((state, np.resize(examples, (batch, *examples.shape[1:]))), device)

    def forward(state: Any, x: jax.Array) -> jax.Array:
        frozen: Any = nnx.merge(graph, state)
        frozen.eval()
        return frozen(x)

    run = jax.jit(forward).lower(state, x).compile()
    seconds: list[float] = []
    for _ in range(WARM_UP + REPEATS):
        started = time.perf_counter()
        jax.block_until_ready(run(state, x))
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[WARM_UP:])
