"""Searchers on NAS-Bench-201, 500 seeds: how well they search, and whether ours are the published ones.

    L2L_DATA=FOLDER python experiments/nasbench201/run.py                     the table and the figure, both data sets
    L2L_DATA=FOLDER python experiments/nasbench201/run.py ablation --seeds 200
    L2L_DATA=FOLDER python experiments/nasbench201/run.py warm --seeds 200    learning from the other data set
    L2L_DATA=FOLDER python experiments/nasbench201/run.py whole               whole searches as one program

Each part writes its figures into `results.json` beside this file, and prints them. The reward of an architecture is
its validation accuracy after 12 epochs, its score the test accuracy after 200.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from l2l.compare.bootstrap import accumulate_best, bootstrap_mean
from l2l.compare.on_benchmark import search_alone
from l2l.compare.runner import compare
from l2l.machine import compilation_cache
from l2l.objectives.benchmark_table import BenchmarkTable
from l2l.objectives.tabular import Tabular
from l2l.objectives.tabular import benchmark_space as space
from l2l.searchers.controllers.baseline import MovingAverage
from l2l.searchers.controllers.controller import Controller
from l2l.searchers.controllers.ppo import Ppo
from l2l.searchers.controllers.reinforce import Reinforce
from l2l.searchers.evolution import Evolution
from l2l.searchers.gp.gp_critic import GpCritic
from l2l.searchers.local_search import LocalSearch
from l2l.searchers.optuna_samplers import Tpe
from l2l.searchers.predictor import Predictor
from l2l.searchers.random_search import Random
from l2l.tasks.tabular import Lookup
from l2l.types import Searcher

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "benchmarks"))

import about  # noqa: E402

PATH = "nasbench201/nasbench201.npz"
SETS = ("cifar10", "cifar100")
PUBLISHED = {"random": (93.70, 71.0), "evolution_nb201": (93.92, 71.8), "reinforce_nb201": (93.85, 71.7)}
"""Test accuracies at the papers' budget of 12,000 seconds, about 100 evaluations (Dong and Yang 2020)."""
ROWS: Mapping[str, Searcher[Any]] = {
    "random": Random(),
    "evolution_nb201": Evolution(population=10, tournament=3),
    "evolution": Evolution(),
    "reinforce_nb201": Controller(
        update=Reinforce(learning_rate=0.03, entropy_weight=0.0), baseline=MovingAverage(decay=0.9, normalise=False)
    ),
    "reinforce": Controller(),
    "ppo": Controller(update=Ppo()),
    "local": LocalSearch(),
    "predictor": Predictor(),
    "gp_critic": GpCritic(),
}
ABLATION: Mapping[str, Searcher[Any]] = {
    "random": Random(),
    "whole": GpCritic(),
    "policy off": GpCritic(sampled=0),
    "local edits off": GpCritic(edits=0, moves=0),
    "one-edits off": GpCritic(edits=0),
    "uniform proposals off": GpCritic(uniform=1),
    "first design of 5": GpCritic(first=5),
    "critic off (its policy alone)": GpCritic().controller,
}


def make_settings(name: str) -> dict[str, Any]:
    """The table of one data set, as `compare` wants it."""
    reward = f"{name}_val_acc_12ep"
    objective = functools.partial(Tabular, path=PATH, codes="ops", reward=reward, report=f"{name}_test_acc_200ep")
    return {"objective": objective, "space": space(PATH, "ops"), "task": Lookup(PATH, reward)}


def load_benchmark(name: str) -> BenchmarkTable:
    """The table of one data set."""
    parts = make_settings(name)
    return parts["objective"](space=parts["space"], task=parts["task"]).benchmark


def compare_searchers(
    rows: Mapping[str, Searcher[Any]], seeds: int, first: int, trials: int, out: Path
) -> dict[str, Any]:
    """The rows on both data sets, and ours against every other one."""
    results: dict[str, Any] = {}
    for name in SETS:
        started = time.perf_counter()
        comparison = compare(
            rows,
            **make_settings(name),
            trials=trials,
            seeds=seeds,
            seed=first,
            out=out / name,
            command=about.read_command(),
        )
        results[name] = {
            "seconds": time.perf_counter() - started,
            "rows": comparison.to_json()["rows"],
            "best": comparison.best,
        }
    return results


def format_results(results: Mapping[str, Any]) -> str:
    """The comparison as a table."""
    lines = ["| searcher | " + " | ".join(f"{n}: found by 50 / 100 / 200 | regret at 100 | test at 100" for n in SETS)]
    lines[0] += " |"
    lines.append("|---" * (1 + 3 * len(SETS)) + "|")
    for row in results[SETS[0]]["rows"]:
        cells: list[str] = []
        for name in SETS:
            figures = results[name]["rows"][row]
            shares = " / ".join(f"{figures['found_best'][stop]:.3f}" for stop in ("50", "100", "200"))
            cells += [shares, f"{figures['regret']['100']:.3f}", f"{figures['report']['100']:.2f}"]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main_part(args: argparse.Namespace) -> dict[str, Any]:
    """All rows, their agreement with the published ones, and the figure."""
    results = compare_searchers(ROWS, args.seeds, args.seed, 200, args.out)
    print(format_results(results))
    for row, published in PUBLISHED.items():
        scores = [results[name]["rows"][row]["report"]["100"] for name in SETS]
        print(f"{row}: {scores[0]:.2f} / {scores[1]:.2f}, published {published[0]:.2f} / {published[1]:.1f}")
    for name in SETS:
        for stop in ("100", "200"):
            rows = results[name]["rows"]
            differences = {row: figures["difference_to_recommended"][stop] for row, figures in rows.items()}
            ahead = all(high < 0 for row, (_, high) in differences.items() if row != "gp_critic")
            print(f"{name}, after {stop}: gp_critic ahead of every other row: {ahead}")
    return results


def ablation(args: argparse.Namespace) -> dict[str, Any]:
    """Ours without one part at a time."""
    results = compare_searchers(ABLATION, args.seeds, args.seed, 200, args.out / "ablation")
    print(format_results(results))
    return results


def peers(args: argparse.Namespace) -> dict[str, Any]:
    """Ours and Optuna's TPE, which runs trial by trial."""
    rows = {"random": Random(), "tpe": Tpe(), "gp_critic": GpCritic()}
    results = compare_searchers(rows, args.seeds, args.seed, 200, args.out / "peers")
    print(format_results(results))
    return results


def warm(args: argparse.Namespace) -> dict[str, Any]:
    """Cold, informed of a finished search of the other data set, and misled: within 50 and 100 evaluations."""
    jobs = [
        (target, kind, tuple(range(first, min(first + 20, args.seed + args.seeds))))
        for target in SETS
        for kind in ("cold", "warm", "negated", "noise", "latency")
        for first in range(args.seed, args.seed + args.seeds, 20)
    ]
    parts: dict[tuple[str, str], list[np.ndarray]] = {}
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=prepare_worker) as pool:
        for (target, kind, _), rewards in zip(jobs, pool.map(run_informed, jobs), strict=True):
            parts.setdefault((target, kind), []).append(rewards)
    results: dict[str, Any] = {}
    for target in SETS:
        best = load_benchmark(target).best_reward
        kinds = [kind for data_set, kind in parts if data_set == target]
        curves = {kind: accumulate_best(np.concatenate(parts[target, kind])) for kind in kinds}
        for kind, curve in curves.items():
            record = {f"found_{stop}": float((curve[:, stop - 1] >= best).mean()) for stop in (25, 50, 100)}
            record |= {
                f"difference_to_cold_{stop}": list(bootstrap_mean(curve[:, stop - 1] - curves["cold"][:, stop - 1]))
                for stop in (25, 50, 100)
            }
            results.setdefault(target, {})[kind] = record
            print(target, kind, json.dumps(record))
    return results


def run_informed(job: tuple[str, str, tuple[int, ...]]) -> np.ndarray:
    """The rewards [S, 100] of searches of one data set, told of a search of the other one, or of something else."""
    import jax
    import jax.numpy as jnp

    from l2l.searchers.core.compiled_search import run_searches
    from l2l.searchers.core.points import make_points
    from l2l.searchers.gp.earlier_searches import TRIAL_LIMIT, EarlierTrials
    from l2l.searchers.gp.gaussian_process import compute_normal_scores

    data_set, kind, seeds = job
    target, source = (load_benchmark(name) for name in (data_set, *(name for name in SETS if name != data_set)))
    searcher, keys = GpCritic(), jax.vmap(jax.random.key)(jnp.array(seeds, jnp.uint32))

    def run(benchmark: BenchmarkTable, sources: Any) -> np.ndarray:
        arrays = jnp.asarray(benchmark.rows), jnp.asarray(benchmark.rewards, jnp.float32)
        return np.asarray(run_searches(searcher, benchmark.encoding, *arrays, keys, 100, earlier=sources))

    if kind == "cold":
        return target.rewards[run(target, None)]
    domain, rows = target.encoding.domain, run(source, None)  # a search of its own, of 100 trials
    rewards = source.rewards[rows]
    if kind == "negated":
        rewards = -rewards
    elif kind == "noise":
        rewards = np.random.default_rng(seeds[0]).normal(size=rewards.shape)
    elif kind == "latency":
        from l2l.tasks.tabular import read

        rewards = -read(PATH, [LATENCY])[LATENCY][rows].astype(np.float64)
    assert rows.shape[1] <= TRIAL_LIMIT
    codes = np.zeros((*rows.shape, len(domain.valid)), np.int32)
    order = np.argsort(target.rows)  # the index of each row among all codes
    codes[:] = np.stack(np.unravel_index(order[rows], [len(options) for options in target.encoding.decisions]), -1)

    def create_earlier(codes: Any, scores: Any) -> EarlierTrials:
        points = make_points(domain, codes, jnp.zeros(codes.shape))
        targets = compute_normal_scores(scores, jnp.ones(len(codes), bool))
        return EarlierTrials(points, targets, jnp.ones(len(codes), jnp.int32))

    return target.rewards[run(target, jax.vmap(create_earlier)(jnp.asarray(codes), jnp.asarray(rewards, jnp.float32)))]


LATENCY = "latency_1080ti_1"
"""What a search of something else has measured: milliseconds."""


def prepare_worker() -> None:
    """Before a worker's first job: one thread."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def whole(args: argparse.Namespace) -> dict[str, Any]:
    """REINFORCE as one program against the loop in Python, the same searches."""
    import jax
    import jax.numpy as jnp

    from l2l.searchers.core.compiled_search import run_searches

    searcher, benchmark, trials = Controller(), load_benchmark("cifar10"), 500
    keys = jax.vmap(jax.random.key)(jnp.arange(args.seed, args.seed + args.seeds, dtype=jnp.uint32))
    arrays = jnp.asarray(benchmark.rows), jnp.asarray(benchmark.rewards, jnp.float32)
    seconds: list[float] = []
    for _ in range(6):
        started = time.perf_counter()
        rows = np.asarray(run_searches(searcher, benchmark.encoding, *arrays, keys, trials))
        seconds.append(time.perf_counter() - started)
    sample = range(args.seed, args.seed + 5)
    search_alone(searcher, benchmark, sample[0], 20, 1)  # compiles
    started = time.perf_counter()
    loop = np.stack([search_alone(searcher, benchmark, seed, trials, 1) for seed in sample])
    loop_seconds = (time.perf_counter() - started) / len(sample)
    after = float(np.median(seconds[1:]))
    record = {
        "seeds": args.seeds, "trials": trials, "first_call_seconds": seconds[0], "seconds": after,
        "spread": [min(seconds[1:]), max(seconds[1:])], "loop_seconds_a_search": loop_seconds,
        "times_faster": loop_seconds * args.seeds / after,
        "equal_searches": float((rows[: len(sample)] == loop).all(1).mean()),
    }  # fmt: skip
    print(json.dumps(record, indent=2))
    return record


def copy_figures(out: Path) -> None:
    """Both data sets side by side, from what `compare` drew."""
    for name in SETS:
        (HERE / f"{name}.svg").write_text((out / name / "compare.svg").read_text())


PARTS = {"main": main_part, "ablation": ablation, "peers": peers, "warm": warm, "whole": whole}


def main() -> None:
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=PARTS, default="main")
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--out", type=Path, default=Path("nasbench201"), help="folder of the comparisons")
    parser.add_argument("--json", type=Path, default=HERE / "results.json")
    args = parser.parse_args()
    machine, started = about.announce(), time.perf_counter()
    os.environ.update(compilation_cache())  # the processes of the second data set need not compile again
    results = PARTS[args.part](args)
    records = json.loads(args.json.read_text()) if args.json.exists() else {}
    records[args.part] = {
        "about": machine, "command": about.read_command(), "seconds": time.perf_counter() - started, "found": results,
    }  # fmt: skip
    args.json.write_text(json.dumps(records, indent=2) + "\n")
    if args.part == "main":
        copy_figures(args.out)
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
