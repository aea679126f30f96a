"""Ours against local search, and the others, on made-up landscapes of 6 to 12 decisions whose rewards are noisy.

    python experiments/landscapes/run.py --seeds 100 --json experiments/landscapes/results.json

Each landscape (see `l2l.testing.make_landscape`) is a tabular benchmark. A searcher learns from rewards with normal
noise; the result is the true reward of the candidate with the best noisy one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from l2l.compare.bootstrap import bootstrap_mean, judge_differences
from l2l.searchers.controllers.controller import Controller
from l2l.searchers.core.base import ArraySearcher
from l2l.searchers.evolution import Evolution
from l2l.searchers.gp.gp_critic import GpCritic
from l2l.searchers.local_search import LocalSearch
from l2l.searchers.predictor import Predictor
from l2l.searchers.random_search import Random
from l2l.space import Categorical, SearchSpace
from l2l.testing import make_landscape

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "benchmarks"))

import about  # noqa: E402

ROWS: Mapping[str, ArraySearcher] = {
    "random": Random(),
    "evolution": Evolution(),
    "reinforce": Controller(),
    "local": LocalSearch(),
    "predictor": Predictor(),
    "gp_critic": GpCritic(),
}
PART = 20


class Problem(NamedTuple):
    """A landscape and the noise of its rewards, which reach from 0 to 1."""

    decisions: int
    options: int
    ruggedness: int
    noise: float


PROBLEMS = [
    Problem(decisions, options, ruggedness, noise)
    for decisions, options in ((6, 5), (8, 4), (12, 3))
    for ruggedness in (1, 3)
    for noise in (0.0, 0.05, 0.15)
]


def run_job(job: tuple[str, Problem, tuple[int, ...], int]) -> np.ndarray:
    """True rewards [S] of the candidates that searches took for the best, each seed on a landscape of its own."""
    import jax
    import jax.numpy as jnp

    from l2l.encoding import Encoding
    from l2l.searchers.core.compiled_search import run_searches, sample_observation_noise

    name, problem, seeds, trials = job
    choices = {f"c{n}": Categorical(options=tuple(range(problem.options))) for n in range(problem.decisions)}
    encoding = Encoding(SearchSpace(choices, lambda values, spec: None))
    rows = jnp.arange(problem.options**problem.decisions)
    best_rewards: list[float] = []
    for seed in seeds:
        true = make_landscape(problem.decisions, problem.options, seed, problem.ruggedness).rewards
        key = jax.random.key(seed)
        rewards = jnp.asarray(true, jnp.float32)
        (order,) = np.asarray(run_searches(ROWS[name], encoding, rows, rewards, key[None], trials, noise=problem.noise))
        noisy = true[order] + problem.noise * np.asarray(sample_observation_noise(key, jnp.arange(trials)))
        best_rewards.append(float(true[order[noisy.argmax()]]))
    return np.array(best_rewards)


def prepare_worker() -> None:
    """Before a worker's first job: one thread."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def main() -> None:
    """Runs every row on every problem and prints how they compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--trials", type=int, default=150)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    machine, started = about.announce(), time.perf_counter()
    seeds = range(args.seed, args.seed + args.seeds)
    jobs = [
        (name, problem, tuple(seeds[first : first + PART]), args.trials)
        for name in reversed(ROWS)
        for problem in PROBLEMS
        for first in range(0, args.seeds, PART)
    ]
    parts: dict[tuple[Problem, str], list[np.ndarray]] = {}
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=prepare_worker) as pool:
        for (name, problem, _, _), rewards in zip(jobs, pool.map(run_job, jobs), strict=True):
            parts.setdefault((problem, name), []).append(rewards)
    results: list[dict[str, Any]] = []
    print("| decisions | ruggedness | noise | " + " | ".join(ROWS) + " | gp_critic less local |")
    print("|---" * (4 + len(ROWS)) + "|")
    for problem in PROBLEMS:
        rewards = {name: np.concatenate(parts[problem, name]) for name in ROWS}
        differences = rewards["gp_critic"] - rewards["local"]
        bounds = bootstrap_mean(differences)
        means = {name: float(values.mean()) for name, values in rewards.items()}
        results.append({**problem._asdict(), "means": means, "gp_critic_less_local": list(bounds)})
        cells = " | ".join(f"{mean:.4f}" for mean in means.values())
        label = f"{problem.decisions} of {problem.options} | {problem.ruggedness} | {problem.noise}"
        print(
            f"| {label} | {cells} | {bounds.low:+.4f} to {bounds.high:+.4f}, {judge_differences(differences)} |",
            flush=True,
        )
    seconds = time.perf_counter() - started
    if args.json:
        record = {"about": machine, "command": about.read_command(), "seconds": seconds, "found": results}
        args.json.write_text(json.dumps(record, indent=2) + "\n")
    print(f"{seconds:.0f} s")


if __name__ == "__main__":
    main()
