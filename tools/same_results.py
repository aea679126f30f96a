"""Holds two checkouts to the same results: eight searches, whose trials and winners must agree to the last bit.

    python tools/same_results.py OLD NEW    # two checkouts; exits with 1 if a search differs

What is compared: `trials.csv` without its columns of seconds, and the digests of all weights in `best/` and `front/`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SEARCHES = {
    "mlp": ["space=mlp", "trials=16", "objective.epochs=3"],
    "cnn": ["space=cnn", "trials=6", "objective.epochs=2"],
    "mixed": ["space=mixed", "trials=12", "objective.epochs=2"],
    "transformer": ["space=transformer", "trials=6", "objective.epochs=1"],
    "asha": ["space=mlp", "rungs=asha", "trials=18", "objective.epochs=9", "seed=1"],
    "gp_critic": ["space=mlp", "searcher=gp_critic", "trials=24", "objective.epochs=2"],
    "two objectives": [
        *("space=mlp", "searcher=gp_critic", "trials=16", "objective.epochs=2", "objective.costs=[flops]"),
        *("reward=several", "reward.metrics={accuracy: true, flops: false}"),
    ],
    "tabular": ["experiment=nasbench201", "searcher=evolution", "trials=200"],
}


def run_search(checkout: Path, overrides: list[str], out: Path) -> dict[str, str]:
    """The digest of each result that one search of a checkout leaves behind."""
    task = [] if "experiment=nasbench201" in overrides else ["task=digits"]
    command = [sys.executable, "-c", "from l2l.cli import main; main()", "search", *overrides, *task]
    command += [f"out={out}", "tracker=none"]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    ended = subprocess.run(command, env=environment, cwd=out.parent, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"{checkout}: {' '.join(overrides)} ended with {ended.returncode}:\n{ended.stderr[-2000:]}")
    files = {"trials.csv": digest_trials(out / "trials.csv")}
    for weights in sorted(out.glob("best/weights.*")) + sorted(out.glob("front/*/weights.*")):
        files[str(weights.relative_to(out))] = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    return files


def digest_trials(path: Path) -> str:
    """Digest of a table of trials without what was measured by a clock."""
    with path.open(newline="") as file:
        rows = [{name: cell for name, cell in row.items() if "seconds" not in name} for row in csv.DictReader(file)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def main(checkouts: list[Path]) -> int:
    """Runs every search in each checkout and says which agree; the exit code."""
    differ = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, overrides in SEARCHES.items():
            results = []
            for number, checkout in enumerate(checkouts):
                out = Path(folder) / str(number) / name.replace(" ", "_")
                out.parent.mkdir(exist_ok=True)
                results.append(run_search(checkout, overrides, out))
                print(f"{name:14} {checkout}: {results[-1]}", flush=True)
            if any(result != results[0] for result in results):
                differ += 1
                print(f"{name:14} DIFFERS", flush=True)
            elif len(results) > 1:
                print(f"{name:14} equal: {len(results[0])} digests", flush=True)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main([Path(word).resolve() for word in sys.argv[1:]]))
