"""The floor under every peer: the candidates' operations at the fastest matrix product that this machine shows."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

SIZES = (512, 1024, 2048, 4096)
"""Rows of the square fp32 matrices that are multiplied."""
BUDGET = 1.0
"""Seconds spent on each size."""

SCRIPT = """
import sys, time
library, size, budget = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
if library == "numpy":
    import numpy
    a = numpy.random.default_rng(0).standard_normal((size, size), dtype=numpy.float32)
    product = lambda: a @ a
elif library == "torch":
    import torch
    a = torch.randn(size, size)
    product = lambda: a @ a
else:
    import jax
    a = jax.random.normal(jax.random.key(0), (size, size))
    multiply = jax.jit(lambda a: a @ a)
    product = lambda: multiply(a).block_until_ready()
product()
best, begun = float("inf"), time.perf_counter()
while time.perf_counter() - begun < budget:
    started = time.perf_counter()
    product()
    best = min(best, time.perf_counter() - started)
print(2 * size**3 / best / 1e9)
"""


def measure_peak(pythons: Mapping[str, str], sizes: Sequence[int] = SIZES, budget: float = BUDGET) -> dict[str, Any]:
    """The best GFLOP/s of square fp32 products, by library (`numpy`, `xla`, `torch`) and size, and the best of all.

    `pythons` names the interpreter of each library; each product runs in a process of its own with all cores.
    """
    speeds: dict[str, dict[str, float]] = {}
    for library, python in pythons.items():
        for size in sizes:
            command = [python, "-c", SCRIPT, library, str(size), str(budget)]
            process = subprocess.run(command, capture_output=True, text=True)
            if process.returncode == 0:
                speeds.setdefault(library, {})[str(size)] = float(process.stdout)
    if not speeds:
        raise RuntimeError(f"none of {sorted(pythons)} could multiply matrices.")
    best = max((value, library, size) for library, by_size in speeds.items() for size, value in by_size.items())
    return {"gflops": best[0], "by": f"{best[1]}, {best[2]} x {best[2]}", "all": speeds}


def describe_peak(measured: Mapping[str, Any]) -> str:
    """How the peak was measured, in a sentence."""
    sizes = "/".join(next(iter(measured["all"].values())))
    return (
        f"peak {measured['gflops']:.0f} GFLOP/s ({measured['by']}): the fastest single fp32 product of two square "
        f"matrices, {sizes} rows, each for {BUDGET:.0f} s in a process of its own with all cores, of "
        f"{', '.join(measured['all'])}"
    )


def count_operations(space: Any, candidates: Sequence[Mapping[str, Any]], spec: Any) -> list[float]:
    """Operations of each candidate's training in its true shape, forward and backward."""
    from l2l.engine import cost

    return [cost.count_training_operations(space, candidate, spec) for candidate in candidates]
