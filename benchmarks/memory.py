"""Memory of a long search: the slope of RSS over distinct architectures, and what refusing oversized ones costs.

    python benchmarks/memory.py --trials 300 --refused 1000 --json FILE

Each part is one search in a process of its own that does everything itself (executor=inline): every candidate of
the first part is a program of its own, no candidate of the second part fits this machine. RSS is read as each trial
ends; the slope is the least-squares line over the trials after the warm-up.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from about import announce

from l2l.machine import compilation_cache

MIB = 1 << 20
WARM_UP = 100
"""Trials before the slope is taken."""


def make_space(low: int, high: int) -> Any:
    """Perceptrons of two or three layers, widths from `low` to `high`, none padded: a program for each."""
    import jax
    import optax
    from flax import nnx

    from l2l.space import Integer, Real, SearchSpace
    from l2l.types import Learner

    class Perceptron(nnx.Module):
        def __init__(self, widths: Sequence[int], rngs: nnx.Rngs) -> None:
            self.layers = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in itertools.pairwise(widths)])

        def __call__(self, x: jax.Array) -> jax.Array:
            x = x.reshape(len(x), -1)
            for layer in self.layers[:-1]:
                x = nnx.relu(layer(x))
            return self.layers[-1](x)

    def build(values: Mapping[str, Any], spec: Any) -> Learner:
        widths = [values[f"width{n}"] for n in range(1, values["depth"] + 1)]
        sizes = [math.prod(spec.inputs), *widths, spec.outputs]
        return Learner(lambda rngs: Perceptron(sizes, rngs), optax.adam(values["learning_rate"]), batch_size=64)

    choices: dict[str, Any] = {"depth": Integer(low=2, high=3)}
    for n in (1, 2, 3):
        choices[f"width{n}"] = Integer(low=low, high=high, log=True, when={"depth": tuple(range(max(n, 2), 4))})
    choices["learning_rate"] = Real(low=1e-3, high=1e-2, log=True)
    return SearchSpace(choices, build, name="distinct")


class Scale:
    """A tracker that reads this process's resident memory, in bytes, as each trial ends."""

    def __init__(self) -> None:
        self.rss: list[int] = []

    def start(self, run: Any, finished: Iterable[Any]) -> None:
        """Nothing to begin."""

    def tell(self, trial: Any, seconds: Mapping[str, float]) -> None:
        """One reading."""
        self.rss.append(read_resident_bytes())
        if len(self.rss) % 50 == 0:
            print(f"{len(self.rss)} trials, {self.rss[-1] / MIB:.0f} MiB", file=sys.stderr, flush=True)

    def tell_batch(self, batch: Sequence[Any], summary: Mapping[str, float]) -> None:
        """Nothing to see."""

    def finish(self, result: Any) -> None:
        """Nothing to end."""


def read_resident_bytes() -> int:
    """Bytes of this process that lie in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run_search(trials: int, low: int, high: int) -> dict[str, Any]:
    """One search: RSS at each trial's end, seconds, and how many trials ended how."""
    import collections

    from l2l.api import search
    from l2l.errors import SearchError
    from l2l.executors.inline import Inline
    from l2l.objectives.trained import Trained
    from l2l.searchers.random_search import Random
    from l2l.tasks.digits import Digits

    scale, figures = Scale(), dict[str, Any]()
    objective = functools.partial(Trained, epochs=1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        started, worked = time.perf_counter(), time.process_time()
        try:
            result = search(
                make_space(low, high), Digits(), Random(), objective=objective, executor=Inline(),
                tracker={"scale": scale}, final=None,
                trials=trials, batch=10, seed=0, out="run",
            )  # fmt: skip
            figures["status"] = dict(collections.Counter(trial.status.value for trial in result.trials))
            figures["distinct"] = len({json.dumps(dict(trial.candidate.values)) for trial in result.trials})
        except SearchError as error:
            figures["status"] = str(error)
        figures |= {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - worked}
        os.chdir("/")
    return {**figures, "rss": scale.rss}


def fit_line(rss: Sequence[int]) -> float:
    """The least-squares line through the readings, in MiB a trial."""
    import numpy as np

    return float(np.polyfit(np.arange(len(rss)), np.asarray(rss) / MIB, 1)[0])


def run_part(name: str, count: int) -> dict[str, Any]:
    """One part's figures, from a process of its own."""
    script = f"import json, memory; print(json.dumps(memory.{name}({count})))"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with tempfile.TemporaryDirectory() as cache:  # cold, and on as in any search
        environment = {**os.environ, **compilation_cache(), "JAX_COMPILATION_CACHE_DIR": cache, "PYTHONPATH": path}
        process = subprocess.run([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(process.stdout.splitlines()[-1])


def search_distinct(count: int) -> dict[str, Any]:
    """A search over `count` distinct architectures."""
    figures = run_search(count, 4, 200)
    rss = figures.pop("rss")
    warm = rss[min(WARM_UP, count // 2) :]
    return {
        **figures, "rss_slope_mib_per_trial": fit_line(warm), "rss_after_warm_up_mib": warm[0] / MIB,
        "rss_end_mib": rss[-1] / MIB, "rss_peak_mib": max(rss) / MIB,
        "rss_of_every_tenth_mib": [round(size / MIB) for size in rss[::10]],
    }  # fmt: skip


def search_refused(count: int) -> dict[str, Any]:
    """A search over `count` candidates that are all too large."""
    figures = run_search(count, 10**6, 10**9)
    rss = figures.pop("rss")
    return {**figures, "rss_growth_mib": (rss[-1] - rss[0]) / MIB, "rss_peak_mib": max(rss) / MIB}


def main() -> None:
    """Runs both parts and prints their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--refused", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    record: dict[str, Any] = {"about": announce()}
    for name, count in (("distinct", options.trials), ("refused", options.refused)):
        if count:
            record[name] = run_part(name, count)
            print(name, json.dumps(record[name], indent=2), flush=True)
    if options.json:
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
