"""Candidates a minute: l2l against Optuna with the usual Flax loop and with PyTorch eager, on the same candidates.

    python benchmarks/candidates.py A --candidates 200 --peers flax,torch,l2l --repeats 5 --json FILE

Every run is a fresh process, timed from its start to its end; the peers take turns. PyTorch runs as two processes
of one thread each, its best arrangement on two cores. "Cold" starts with an empty compilation cache, "warm" with the
one that the cold run left; a peer without one has the same figures for both.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

PEERS = Path(__file__).parent / "peers"


def timed(commands: Sequence[Sequence[str]], folder: Path, **environment: str) -> float:
    """Wall seconds of these commands side by side. Raises: RuntimeError if one fails."""
    started = time.perf_counter()
    with (folder / "output.txt").open("ab") as output:
        running = [
            subprocess.Popen(list(each), cwd=folder, env={**os.environ, **environment}, stdout=output, stderr=output)
            for each in commands
        ]
        codes = [process.wait() for process in running]
    if any(codes):
        raise RuntimeError(f"exit codes {codes}: {(folder / 'output.txt').read_text()[-2000:]}")
    return time.perf_counter() - started


def scripted(peer: str, folder: Path, python: str, processes: int) -> tuple[float, list[float], dict[str, float]]:
    """Seconds and accuracies of a peer that is a script."""
    for old in folder.glob(f"{peer}-*.json"):
        old.unlink()
    script = {"flax": "flax_loop.py", "torch": "torch_eager.py", "ray": "ray_tune.py"}[peer]
    cache = {"XDG_CACHE_HOME": str(folder / "none")}
    commands = [[python, str(PEERS / script), str(folder), str(part), str(processes)] for part in range(processes)]
    seconds = timed(commands, folder, **cache)
    found: dict[str, float] = {}
    for part in folder.glob(f"{peer}-*.json"):
        found |= json.loads(part.read_text())
    return seconds, list(found.values()), {}


def ours(words: Sequence[str], folder: Path, cold: bool) -> tuple[float, list[float], dict[str, float]]:
    """Seconds, accuracies and ledger of `l2l search`."""
    cache, run = folder / "cache", folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    if cold:
        shutil.rmtree(cache, ignore_errors=True)
    command = [sys.executable, "-c", "from l2l.cli import main; main()", "search", *words]
    command += ["~final", "tracker=console", "out=run"]
    seconds = timed([command], folder, XDG_CACHE_HOME=str(cache))
    with (run / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    # A training that diverges is a failed trial here; the peers report what guessing gives.
    accuracies = [float(row["accuracy"]) if row["status"] == "complete" else None for row in rows]
    ledger = json.loads((run / "result.json").read_text())["seconds"]
    return seconds, accuracies, ledger  # pyright: ignore


def main() -> None:
    """Runs the benchmark and prints its table."""
    sys.path.insert(0, str(Path(__file__).parent))
    import workloads

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=sorted(workloads.WORKLOADS))
    parser.add_argument("--candidates", type=int)
    parser.add_argument("--peers", default="flax,torch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--torch-python", default=sys.executable, help="an interpreter that has torch and optuna")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    workload = workloads.WORKLOADS[given.workload]
    count = given.candidates or workload.count
    peers = [*filter(None, given.peers.split(","))]
    print("command:", "python", *sys.argv)
    about = {"machine": f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores"}
    about |= {name: version(name) for name in ("jax", "flax", "optax", "optuna")}
    print("machine:", *(f"{name} {value}" for name, value in about.items()), flush=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        workloads.write(workload, count, given.seed, folder)
        words = workload.words(count, given.seed)
        results: dict[str, list[Any]] = {}
        for _ in range(given.repeats):
            for peer in peers:
                python = given.torch_python if peer == "torch" else sys.executable
                results.setdefault(peer, []).append(scripted(peer, folder, python, 2 if peer == "torch" else 1))
                show(peer, results[peer][-1], count)
            for name, cold in (("l2l cold", True), ("l2l warm", False)):
                results.setdefault(name, []).append(ours(words, folder, cold))
                show(name, results[name][-1], count)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    record = summary(results, count) | {"about": about, "workload": given.workload, "candidates": count,
                                        "peak_memory_of_a_process_mib": peak}  # fmt: skip
    print(json.dumps(record, indent=2))
    if given.json:
        given.json.write_text(json.dumps(record, indent=2) + "\n")


def show(name: str, result: Any, count: int) -> None:
    """One line a run, as it ends."""
    seconds, accuracies, ledger = result
    known = [each for each in accuracies if each is not None]
    parts = {key: round(value, 1) for key, value in ledger.items()}
    print(
        f"{name}: {seconds:.1f} s, {60 * count / seconds:.0f} candidates/min, mean accuracy "
        f"{statistics.mean(known):.4f} ({len(known)} of {count}) {parts or ''}",
        flush=True,
    )


def summary(results: dict[str, list[Any]], count: int) -> dict[str, Any]:
    """Medians and spread of each peer, and l2l's ratio to it, paired run by run."""
    made: dict[str, Any] = {"candidates_per_minute": {}, "seconds": {}, "mean_accuracy": {}, "ratio": {}}
    for name, runs in results.items():
        seconds = [each[0] for each in runs]
        made["seconds"][name] = {"median": statistics.median(seconds), "all": seconds}
        made["candidates_per_minute"][name] = 60 * count / statistics.median(seconds)
        made["mean_accuracy"][name] = statistics.mean(each for each in runs[0][1] if each is not None)
        if not name.startswith("l2l"):
            for kind in ("cold", "warm"):
                pairs = zip(runs, results[f"l2l {kind}"], strict=True)
                ratios = [theirs[0] / own[0] for theirs, own in pairs]
                made["ratio"][f"{kind} to {name}"] = {"median": statistics.median(ratios), "all": ratios}
    return made


if __name__ == "__main__":
    main()
