"""Our searchers as a sampler of Optuna's against its own, on equal budgets and paired seeds.

    python experiments/sampler/run.py --trials 60 --seeds 20

Prints a table and writes `results.json` beside this file, after each problem and seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from problems import PROBLEMS

from l2l import ControllerSampler
from l2l.compare.bootstrap import bootstrap_mean, judge_differences
from l2l.executors.inline import Inline
from l2l.machine import compilation_cache
from l2l.run.result import describe_environment
from l2l.searchers.controllers.controller import Controller
from l2l.searchers.gp.gp_critic import GpCritic

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: RandomSampler(seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed),
    "controller": lambda seed: ControllerSampler(Controller(), seed=seed),
    "gp_critic": lambda seed: ControllerSampler(GpCritic(), seed=seed),
}
PEERS = ("random", "tpe")


def run_study(sampler: BaseSampler, objective: Callable[[optuna.Trial], float], trials: int) -> dict[str, Any]:
    """One study: the best value after each trial, and the seconds that it took in all and for the objective."""
    study = optuna.create_study(direction="maximize", sampler=sampler)
    started = time.perf_counter()
    study.optimize(objective, n_trials=trials)
    best = np.maximum.accumulate([trial.value for trial in study.trials])
    return {"best": best.round(6).tolist(), "seconds": round(time.perf_counter() - started, 3)}


def describe_difference(differences: Sequence[float]) -> str:
    """A difference in words."""
    bounds = bootstrap_mean(np.asarray(differences))
    figures = f"{statistics.fmean(differences):+.4f} [{bounds.low:+.4f}, {bounds.high:+.4f}]"
    return f"{figures}, {judge_differences(np.asarray(differences))}"


def format_table(rows: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """Mean best value, and paired differences to the peers, of each problem and sampler."""
    lines = ["| problem | sampler | best | minus random | minus tpe |", "|---|---|---|---|---|"]
    for problem, studies_of in rows.items():
        bests = {name: [study["best"][-1] for study in studies] for name, studies in studies_of.items()}
        for name, values in bests.items():
            cells = [
                describe_difference([a - b for a, b in zip(values, bests[peer], strict=True)])
                if peer in bests and peer != name
                else ""
                for peer in PEERS
            ]
            lines.append(f"| {problem} | {name} | {statistics.fmean(values):.4f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Every sampler on every problem and seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--problems", nargs="*", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--samplers", nargs="*", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results.json")
    options = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", compilation_cache()["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    about = describe_environment(Inline())
    print(f"command: {' '.join(sys.argv)}\nmachine: {json.dumps(about)}\n", flush=True)
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    rows: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for problem in options.problems:
        rows[problem] = {name: [] for name in options.samplers}
        for seed in range(options.seeds):
            for name in options.samplers:
                rows[problem][name].append(run_study(SAMPLERS[name](seed), PROBLEMS[problem], options.trials))
            record = {"options": settings, "environment": about, "rows": rows}
            options.json.write_text(json.dumps(record) + "\n")
        studies_of = rows[problem].items()
        seconds = {name: round(sum(study["seconds"] for study in studies), 1) for name, studies in studies_of}
        print(f"{problem}: seconds {seconds}", flush=True)
    print("\n" + format_table(rows))


if __name__ == "__main__":
    main()
