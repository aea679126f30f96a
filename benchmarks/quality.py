"""Whether l2l trains as well as the usual Flax loop: the same candidates by both, under several seeds.

`quality.py FOLDER WORKLOAD CANDIDATES BATCH SEED OTHER` trains the candidates of SEED with l2l under the seed OTHER.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from table import find_lost


def compare_accuracies(
    l2l_runs: Sequence[Mapping[int, float | None]], flax_runs: Sequence[Mapping[int, float | None]]
) -> dict[str, Any]:
    """Mean accuracies by seed, over the candidates that neither lost under any seed, and the paired difference."""
    sides = {"l2l": l2l_runs, "flax": flax_runs}
    lost_by = {name: find_lost(runs) for name, runs in sides.items()}
    numbers = [number for number in flax_runs[0] if number not in lost_by["l2l"] | lost_by["flax"]]
    means = {
        name: [statistics.mean(float(accuracies[number] or 0.0) for number in numbers) for accuracies in runs]
        for name, runs in sides.items()
    }
    differences = [mean - other for mean, other in zip(means["l2l"], means["flax"], strict=True)]
    error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else None
    mean = statistics.mean(means["l2l"])
    return {
        "seeds": len(l2l_runs),
        "candidates": len(numbers),
        "lost": {name: len(accuracies) for name, accuracies in lost_by.items()},
        "mean_accuracy": means,
        "difference": {"mean": statistics.mean(differences), "standard_error": error, "all": differences},
        "within": min(means["flax"]) <= mean <= max(means["flax"]),
    }


def describe_comparison(comparison: Mapping[str, Any]) -> str:
    """The comparison in a sentence."""
    means = comparison["mean_accuracy"]
    flax = f"{statistics.mean(means['flax']):.4f} ({min(means['flax']):.4f} to {max(means['flax']):.4f})"
    error = comparison["difference"]["standard_error"]
    return (
        f"Mean accuracy over {comparison['seeds']} seeds of initialisation, dropout and order and the "
        f"{comparison['candidates']} candidates that diverged under none of them (under one at least: "
        f"{comparison['lost']['flax']} in the loop, {comparison['lost']['l2l']} in l2l): usual Flax loop {flax}, "
        f"l2l {statistics.mean(means['l2l']):.4f} ({min(means['l2l']):.4f} to "
        f"{max(means['l2l']):.4f}), {'within' if comparison['within'] else 'outside'} the loop's range; "
        f"l2l minus loop, paired by seed, {comparison['difference']['mean']:+.4f}"
        + (f" ± {error:.4f}." if error is not None else ".")
    )


def main(folder: Path, name: str, count: int, batch: int, seed: int, other: int) -> None:
    """Writes l2l's accuracies by number, null where a training diverged."""
    from l2l.machine import compilation_cache

    os.environ.update(compilation_cache())  # before JAX is imported
    import workloads

    from l2l.objectives.trained import Trained

    workload = workloads.WORKLOADS[name]
    trials = workloads.propose_trials(workload, count, seed, batch)
    space, task = workloads.make_space(workload), workloads.make_task(workload)
    objective = Trained(space, task, seed=other, epochs=workload.epochs)
    accuracies: dict[int, float | None] = {}
    for trial in objective(trials):
        assert trial.outcome is not None
        accuracies[trial.number] = None if trial.outcome.error else trial.outcome.metrics["accuracy"]
    (folder / "l2l-seed.json").write_text(json.dumps(accuracies))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
