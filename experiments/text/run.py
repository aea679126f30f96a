"""What a search finds on tiny_shakespeare against a hand-made default, for each of the spaces of attention and experts.

    L2L_DATA=... python experiments/text/run.py

A search is the README's command: 24 candidates, REINFORCE, one epoch each. The default is what nanoGPT's README has
for a CPU (4 layers, 4 heads, Adam at 0.001 unless --rate says otherwise, no dropout), as far as the space has it; in
the moe space every second layer is that of a Switch Transformer. Both are trained for one epoch, again under further
seeds, and compared by bits per character on the test split. The command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from l2l.compare.bootstrap import compute_student_interval
from l2l.objectives.final import Final
from l2l.objectives.trained import Trained
from l2l.run.result import summarise_test
from l2l.tasks.text import TinyShakespeare
from l2l.types import Outcome, Status, Trial

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "benchmarks"))

import about  # noqa: E402

RECIPE: Mapping[str, Any] = {
    "optimizer": "adamw", "weight_decay": 0.1, "schedule": "cosine", "warmup": 0.05,
    "batch_size": 32, "dropout": 0.0, "label_smoothing": 0.0, "width": 64, "depth": 4,
}  # fmt: skip
ATTENTION = {
    "heads": 4, "kv_heads": "all", "head_size": 16, "attention": "global", "position": "learned",
    "query_key_norm": "none", "gate": False, "placement": "pre", "normalisation": "layer",
}  # fmt: skip
DENSE = {"forward": "dense", "mlp_ratio": 4}
SWITCH = {
    "forward": "experts", "experts": 8, "k": 1, "expert_ratio": 2, "router": "softmax", "capacity": 1.25,
    "shared": False, "balance_weight": 1e-2,
}  # fmt: skip
LAYERS: Mapping[str, list[Mapping[str, Any]]] = {
    "transformer": [ATTENTION | DENSE] * 4,
    "attention": [ATTENTION] * 4,
    "moe": [DENSE, SWITCH] * 2,
}
MORE: Mapping[str, Mapping[str, Any]] = {"transformer": {"activation": "gelu", "tied": True}}


def make_default(name: str, rate: float) -> Mapping[str, Any]:
    """The values of the hand-made candidate of a space, with this learning rate."""
    layers = {f"layer{n}_{key}": value for n, layer in enumerate(LAYERS[name], 1) for key, value in layer.items()}
    return {**RECIPE, "adamw_learning_rate": rate, **MORE.get(name, {}), **layers}


def run_search(name: str, seed: int, trials: int, out: Path) -> dict[str, Any]:
    """What the command found and took."""
    folder = out / f"{name}-{seed}"
    words = f"search space={name} task=tiny_shakespeare searcher=reinforce trials={trials} seed={seed} out={folder}"
    # Of a search that has ended this only shows the result, and it refuses a folder of another one.
    subprocess.run([str(Path(sys.executable).with_name("l2l")), *shlex.split(words)], check=True)
    record = json.loads((folder / "result.json").read_text())
    return {
        "bits": record["best"]["metrics"]["bits"], **record["test"], "seconds": record["seconds"]["total"],
        "parameters": record["best"]["metrics"]["parameters"],
    }  # fmt: skip


def train_default(name: str, seed: int, rate: float, out: Path) -> dict[str, Any]:
    """The same of the default, trained as a search trains a winner."""
    folder = out / f"{name}-{seed}-default-{rate:g}"
    file = folder.with_name(f"{folder.name}.json")
    task = TinyShakespeare()
    space = importlib.import_module(f"search_spaces.{name}").space()
    candidate = space.candidate(make_default(name, rate))
    values = json.loads(json.dumps(candidate.values))
    if file.is_file() and (row := json.loads(file.read_text()))["values"] == values:
        return row
    objective = Trained(space=space, task=task, seed=seed)
    trial = Trial(1 << 15, candidate, (0, 1), (1 << 15,), Status.COMPLETE)
    (first,) = objective([trial])
    assert first.outcome is not None, name
    assert first.outcome.error is None, first.outcome.error
    (ended,) = Final(objective, folder)([first])
    metrics = (ended.outcome or Outcome()).metrics
    row = {
        "bits": first.outcome.metrics["bits"], **vars(summarise_test(task.metric, first, metrics)),
        "parameters": first.outcome.metrics["parameters"], "values": values,
    }  # fmt: skip
    file.write_text(json.dumps(row) + "\n")
    return row


def main() -> None:
    """Searches, trains the defaults and prints how they compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="+", default=list(LAYERS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--rate", type=float, default=1e-3, help="of the default: the peak of Adam's learning rate")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--out", type=Path, default=Path("results/text"))
    parser.add_argument("--json", type=Path, default=HERE / "results.json")
    args = parser.parse_args()
    machine = about.announce()
    args.out.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"about": machine, "command": about.read_command(), "spaces": {}}
    for name in args.spaces:
        rows = [
            {
                "seed": seed, "searched": run_search(name, seed, args.trials, args.out),
                "default": train_default(name, seed, args.rate, args.out),
            }
            for seed in range(args.first, args.first + args.seeds)
        ]  # fmt: skip
        gains = np.asarray([row["default"]["mean"] - row["searched"]["mean"] for row in rows])
        ends = list(compute_student_interval(gains)) if len(gains) > 1 else None
        record["spaces"][name] = {"seeds": rows, "gain": float(gains.mean()), "student": ends}
        print(f"\n{name}: bits per character on the test split, mean over further seeds\n")
        print("| seed | search | default | search, seconds | parameters, search | default |\n|---|---|---|---|---|---|")
        for row in rows:
            winner, default = row["searched"], row["default"]
            print(
                f"| {row['seed']} | {winner['mean']:.3f} | {default['mean']:.3f} | {winner['seconds']:.0f} | "
                f"{winner['parameters']:.0f} | {default['parameters']:.0f} |"
            )
        interval = f", 95 % interval of Student [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else ""
        print(f"\ngain {gains.mean():.3f}{interval}", flush=True)
        args.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
