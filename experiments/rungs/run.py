"""Full training against ASHA over the same random candidates, paired over seeds: what is found, and what it takes.

    python experiments/rungs/run.py --trials 200 --seeds 5 --json results.json

Each side runs in worker processes of its own. Without `--warm` every search compiles its programs anew; with it both
sides find them in a cache that an uncounted search of the same seed has filled.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from l2l import search
from l2l.compare.bootstrap import compute_student_interval
from l2l.executors.local import Local
from l2l.objectives.trained import Trained
from l2l.run.result import describe_environment
from l2l.rungs import Asha
from l2l.searchers.random_search import Random
from l2l.tasks.digits import Digits
from l2l.types import Rungs
from search_spaces import mixed


def run_search(rungs: Rungs | None, seed: int, trials: int, batch: int, epochs: int, cache: Path) -> dict[str, Any]:
    """One search: the best validation accuracy, wall seconds, and the share of all epochs that were trained."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)  # the workers' own
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        result = search(
            mixed.space(), Digits(), Random(), objective=functools.partial(Trained, epochs=epochs), rungs=rungs,
            executor=Local(), tracker={}, final=None, trials=trials, batch=batch, seed=seed, out=Path(folder) / "run",
        )  # fmt: skip
        seconds = time.perf_counter() - started
    assert result.best.reward is not None
    curves = [trial.outcome.curve if trial.outcome else {} for trial in result.trials]
    trained = sum(max(map(len, curve.values()), default=0) for curve in curves)
    return {
        "best": result.best.reward[0],
        "number": result.best.number,
        "seconds": seconds,
        "share": trained / (trials * epochs),
        "trials": vars(result.record.trials),
        "ledger": result.record.seconds,
        "candidates": [trial.candidate.key for trial in result.trials],
    }


def run_pair(seed: int, options: argparse.Namespace, caches: Path) -> dict[str, dict[str, Any]]:
    """Both sides on one seed, first the one and then the other in turn."""
    sides: dict[str, Rungs | None] = {"full": None, "asha": Asha(eta=options.eta)}
    sizes = (seed, options.trials, options.batch, options.epochs)
    if options.warm:
        run_search(None, *sizes, caches / "warm")
    measurements: dict[str, dict[str, Any]] = {}
    for name in sorted(sides, reverse=bool(seed % 2)):
        measurements[name] = run_search(sides[name], *sizes, caches / ("warm" if options.warm else f"{name}-{seed}"))
    if measurements["full"].pop("candidates") != measurements["asha"].pop("candidates"):
        raise SystemExit("the two sides were not given the same candidates")
    return measurements


def main() -> None:
    """Prints a table, the difference of the best with its interval, and the ratio of the times."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, value in (("trials", 200), ("seeds", 5), ("batch", 40), ("epochs", 5), ("eta", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--warm", action="store_true", help="both sides find their programs in a cache")
    parser.add_argument("--json", type=Path, help="where to write what was measured")
    options = parser.parse_args()
    about = describe_environment(Local())
    print(f"command: {' '.join(sys.argv)}\nmachine: {json.dumps(about)}\n", flush=True)
    print("| seed | full best | asha best | full s | asha s | asha epochs | asha complete |")
    print("|---|---|---|---|---|---|---|")
    rows: list[dict[str, dict[str, Any]]] = []
    with tempfile.TemporaryDirectory() as caches:
        for seed in range(options.seeds):
            row = run_pair(seed, options, Path(caches))
            full, asha = row["full"], row["asha"]
            rows.append(row)
            figures = [f"{full['best']:.4f}", f"{asha['best']:.4f}", f"{full['seconds']:.1f}", f"{asha['seconds']:.1f}"]
            figures += [f"{asha['share']:.1%}", str(asha["trials"]["complete"])]
            print(f"| {seed} | {' | '.join(figures)} |", flush=True)
    best, seconds = ([[row[side][key] for side in ("asha", "full")] for row in rows] for key in ("best", "seconds"))
    gains, slower = -np.diff(best)[:, 0], -np.diff(np.log(seconds))[:, 0]
    difference = [float(gains.mean()), *compute_student_interval(gains)]
    ratio = np.exp([slower.mean(), *compute_student_interval(slower)]).tolist()
    print("\nasha - full, best accuracy: {:+.4f} [{:+.4f}, {:+.4f}]".format(*difference))
    print("asha / full, seconds: {:.3f} [{:.3f}, {:.3f}]".format(*ratio))
    if options.json:
        settings = {name: value for name, value in vars(options).items() if name != "json"}
        record = {"options": settings, "environment": about, "difference": difference, "ratio": ratio, "rows": rows}
        text = json.dumps(record, indent=2).replace("NaN", "null")
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
