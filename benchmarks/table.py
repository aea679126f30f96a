"""What the runs of a benchmark come to: one record of medians and spreads, and the table that a reader sees."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

NAMES = {
    "flax": "Optuna + usual Flax loop",
    "torch": "Optuna + PyTorch eager",
    "ray": "Ray Tune + usual Flax loop",
    "l2l cold": "**l2l, empty cache**",
    "l2l warm": "**l2l, programs cached**",
}
"""What readers call a peer."""


class Result(NamedTuple):
    """One run of a peer."""

    seconds: float
    memory: float
    """MiB of all its processes."""
    accuracies: Mapping[int, float | None]
    """By candidate; None where its training diverged."""
    ledger: Mapping[str, float]
    """Seconds by purpose, of l2l alone."""


def summary(results: Mapping[str, Sequence[Result]], count: int, flops: float, peak: float) -> dict[str, Any]:
    """Medians and spread of each peer, and l2l's ratio to it, paired run by run.

    `flops` are the operations of all candidates, `peak` the GFLOP/s of the machine. Accuracies are averaged over
    the candidates that no run of any peer lost.
    """
    made: dict[str, Any] = {
        "candidates_per_minute": {}, "seconds": {}, "mean_accuracy": {}, "peak_memory_mib": {}, "share_of_floor": {},
        "ledger": {}, "ratio": {}, "flops": flops, "peak_gflops": peak, "floor_seconds": flops / peak / 1e9,
    }  # fmt: skip
    gone = {name: lost([run.accuracies for run in runs]) for name, runs in results.items()}
    first = next(iter(results.values()))[0].accuracies
    common = [number for number in first if not any(number in each for each in gone.values())]
    made |= {"accuracies_of": len(common), "lost": {name: len(each) for name, each in gone.items()}}
    for name, runs in results.items():
        seconds = [run.seconds for run in runs]
        middle = statistics.median(seconds)
        made["seconds"][name] = {"median": middle, "all": seconds}
        made["candidates_per_minute"][name] = 60 * count / middle
        known = [float(runs[0].accuracies[number] or 0.0) for number in common]
        made["mean_accuracy"][name] = statistics.mean(known) if known else None
        made["peak_memory_mib"][name] = max(run.memory for run in runs)
        made["share_of_floor"][name] = made["floor_seconds"] / middle
        if name.startswith("l2l"):
            made["ledger"][name] = {key: statistics.median(run.ledger[key] for run in runs) for key in runs[0].ledger}
            continue
        for kind in ("cold", "warm"):
            pairs = zip(runs, results[f"l2l {kind}"], strict=True)
            ratios = [theirs.seconds / own.seconds for theirs, own in pairs]
            made["ratio"][f"{kind} to {name}"] = {"median": statistics.median(ratios), "all": ratios}
    return made


def lost(runs: Iterable[Mapping[int, float | None]]) -> set[int]:
    """The candidates whose training diverged in one of these runs at least."""
    return {number for accuracies in runs for number, accuracy in accuracies.items() if accuracy is None}


def markdown(record: Mapping[str, Any]) -> str:
    """The record as a table, and below it whose trainings diverged and l2l's ledger.

    Figures are the median (smallest to largest) over the repeats.
    """
    lines = [
        "| | seconds | candidates/min | mean accuracy | peak memory, MiB | share of floor | faster: l2l cold / warm |",
        "|---|---|---|---|---|---|---|",
    ]
    count = record["candidates"]
    for name, seconds in record["seconds"].items():
        rates = {"median": 60 * count / seconds["median"], "all": [60 * count / each for each in seconds["all"]]}
        accuracy = record["mean_accuracy"][name]
        ratios = [record["ratio"].get(f"{kind} to {name}") for kind in ("cold", "warm")]
        lines.append(
            f"| {NAMES.get(name, name)} | {spread(seconds, 1)} | {spread(rates, 0)} | "
            f"{'-' if accuracy is None else f'{accuracy:.4f}'} | {record['peak_memory_mib'][name]:.0f} | "
            f"{100 * record['share_of_floor'][name]:.2g} % | "
            f"{' / '.join(spread(each, 2) for each in ratios if each) or '-'} |"
        )
    lines += ["", diverged(record)]
    ledgers = {name: each for name, each in record["ledger"].items() if each}
    if ledgers:
        purposes = list(next(iter(ledgers.values())))
        lines += ["", f"| seconds of l2l | {' | '.join(purposes)} |", "|---" * (len(purposes) + 1) + "|"]
        for name, ledger in ledgers.items():
            figures = " | ".join(f"{ledger[each]:.1f}" for each in purposes)
            lines.append(f"| {name.removeprefix('l2l ')} | {figures} |")
    return "\n".join(lines)


def diverged(record: Mapping[str, Any]) -> str:
    """What the mean accuracies are over, and how many candidates each peer lost, in a sentence."""
    told = ", ".join(f"{name} {number}" for name, number in record["lost"].items())
    return (
        f"Accuracy is over the {record['accuracies_of']} candidates that no peer lost to a training that diverged "
        f"(lost: {told})."
    )


def spread(figures: Mapping[str, Any], digits: int) -> str:
    """The median, and the smallest and the largest if there are several."""
    every = figures["all"]
    middle = f"{figures['median']:.{digits}f}"
    return middle if len(every) < 2 else f"{middle} ({min(every):.{digits}f} to {max(every):.{digits}f})"
