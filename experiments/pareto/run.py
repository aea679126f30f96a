"""Searchers for two objectives on NAS-Bench-201: accuracy and a cost, by the hypervolume of what they found.

    L2L_DATA=... python experiments/pareto/run.py

Every searcher gets the same evaluations and seeds. The hypervolume is that between the front and a reference, an
accuracy of 80 % at the highest cost in the table, with the cost as a logarithm; 1 is the volume of the true front.
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
from l2l.pareto import find_front, hypervolume
from l2l.searchers.controllers.controller import Controller
from l2l.searchers.evolution import Evolution
from l2l.searchers.gp.gp_critic import GpCritic
from l2l.searchers.optuna_samplers import Nsga2, Tpe
from l2l.searchers.preferences import Preferences
from l2l.searchers.random_search import Random
from l2l.space import Categorical, SearchSpace
from l2l.types import Outcome, Status, Trial

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "benchmarks"))

import about  # noqa: E402

ROWS: Mapping[str, Any] = {
    "random": Random(),
    "nsga2": Nsga2(),
    "tpe": Tpe(),
    "preferences (reinforce)": Preferences(Controller()),
    "preferences (evolution)": Preferences(Evolution(population=25, tournament=5)),
    "gp_critic": GpCritic(),
}
STOPS = (50, 100, 200)
FLOOR = 80.0
"""Percent of accuracy below which nothing counts."""
BATCH = 10


class Problem(NamedTuple):
    """Columns of the table."""

    accuracy: str
    cost: str


PROBLEMS = [
    Problem("cifar10_val_acc_12ep", "cifar10_flops"),
    Problem("cifar10_val_acc_12ep", "latency_1080ti_1"),
    Problem("cifar10_val_acc_12ep", "latency_gold_6226"),
]
OPS = 5
SPACE: SearchSpace[Any] = SearchSpace(
    {f"ops{n}": Categorical(options=tuple(range(OPS))) for n in range(6)}, lambda values, spec: None
)


def load_points(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """The table's objectives `[N, 2]`, larger better, scaled to their range over the reference; and each code's row."""
    with np.load(Path(os.environ["L2L_DATA"]) / "nasbench201/nasbench201.npz") as table:
        accuracy, cost, ops = (np.asarray(table[name]) for name in (*problem, "ops"))
    cost = np.log(np.maximum(cost.astype(float), 1e-9))
    scaled = np.stack([
        (accuracy.astype(float) - FLOOR) / (accuracy.max() - FLOOR), (cost.max() - cost) / (cost.max() - cost.min())
    ], 1)  # fmt: skip
    rows = np.zeros(OPS**6, int)
    rows[ops.astype(int) @ OPS ** np.arange(6)] = np.arange(len(ops))
    return scaled, rows


def compute_volumes(job: tuple[str, Problem, int]) -> list[float]:
    """The hypervolume after each stop of one search, as a share of the true front's."""
    import jax

    name, problem, seed = job
    values, row_of = load_points(problem)
    full = hypervolume(values[find_front(values.tolist())].tolist(), [0.0, 0.0])
    searcher, key = ROWS[name], jax.random.key(seed)
    state, rewards_so_far, shares = searcher.init(SPACE, key), list[tuple[float, ...]](), list[float]()
    for first in range(0, STOPS[-1], BATCH):
        candidates = searcher.ask(state, jax.random.fold_in(key, first + 1), BATCH)
        rows = [row_of[sum(int(candidate.values[f"ops{n}"]) * OPS**n for n in range(6))] for candidate in candidates]
        rewards = [tuple(values[row].tolist()) for row in rows]
        state = searcher.tell(state, [
            Trial(first + n, candidate, (first, BATCH), (first + n,), Status.COMPLETE, Outcome(), reward)
            for n, (candidate, reward) in enumerate(zip(candidates, rewards, strict=True))
        ])  # fmt: skip
        rewards_so_far += rewards
        if first + BATCH in STOPS:
            shares.append(hypervolume(rewards_so_far, [0.0, 0.0]) / full)
    return shares


def main() -> None:
    """Runs every searcher on every problem and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, default=HERE / "results.json")
    args = parser.parse_args()
    machine, started = about.announce(), time.perf_counter()
    record: dict[str, Any] = {
        "about": machine,
        "command": about.read_command(),
        "seeds": args.seeds,
        "stops": STOPS,
        "problems": [],
    }
    with ProcessPoolExecutor(args.processes, get_context("spawn")) as pool:
        for problem in PROBLEMS:
            jobs = [(name, problem, seed) for name in ROWS for seed in range(args.seeds)]
            shares = np.asarray(list(pool.map(compute_volumes, jobs, chunksize=5))).reshape(
                len(ROWS), args.seeds, len(STOPS)
            )
            rows = dict(zip(ROWS, shares, strict=True))
            print(f"\n{problem.accuracy} and {problem.cost}, {args.seeds} seeds: share of the true front's volume\n")
            print(f"| searcher | {' | '.join(f'after {stop}' for stop in STOPS)} | difference to random | to nsga2 |")
            print("|---" * (len(STOPS) + 3) + "|")
            record["problems"].append({**problem._asdict(), "rows": {}})
            for name, volume in rows.items():
                cells = [f"{share:.3f}" for share in volume.mean(0)]
                row: dict[str, Any] = {"volume": volume.mean(0).tolist(), "std": volume.std(0, ddof=1).tolist()}
                for other in ("random", "nsga2"):
                    difference = volume[:, -1] - rows[other][:, -1]
                    low, high = bootstrap_mean(difference)
                    row[other] = {"low": low, "high": high, "verdict": judge_differences(difference)}
                    cells.append("" if name == other else f"{low:+.3f} to {high:+.3f}, {judge_differences(difference)}")
                record["problems"][-1]["rows"][name] = row
                print(f"| {name} | {' | '.join(cells)} |", flush=True)
            record["seconds"] = time.perf_counter() - started
            args.json.write_text(json.dumps(record, indent=2) + "\n")
    print(f"\n{record['seconds']:.0f} s")


if __name__ == "__main__":
    main()
