"""What the runs of a benchmark come to: one record of medians and spreads, and the table that a reader sees."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

NAMES = {
    "flax cold": "Optuna + usual Flax loop, empty cache",
    "flax warm": "Optuna + usual Flax loop, programs cached",
    "torch": "Optuna + PyTorch eager",
    "ray cold": "Ray Tune + usual Flax loop, empty cache",
    "ray warm": "Ray Tune + usual Flax loop, programs cached",
    "l2l cold": "**l2l, empty cache**",
    "l2l warm": "**l2l, programs cached**",
}
"""What readers call a peer, cold and warm."""
LEDGER = (
    "Train is drawing the weights, training and scoring (scoring is part of the compiled program, hence evaluate 0); "
    "trace, compile and train are summed over the workers, so that the parts add up to more than the total."
)
"""What l2l's seconds are."""


class Result(NamedTuple):
    """One run of a peer."""

    seconds: float
    memory: float
    """MiB of all its processes."""
    accuracies: Mapping[int, float | None]
    """By candidate; None where its training diverged."""
    ledger: Mapping[str, float]
    """Seconds by purpose, of l2l alone."""


def summarise_runs(results: Mapping[str, Sequence[Result]], count: int, flops: float, peak: float) -> dict[str, Any]:
    """Medians and spread of each peer, and l2l's ratio to it.

    `flops` are the operations of all candidates, `peak` the GFLOP/s of the machine. Accuracies are averaged over
    the candidates that no run of any peer lost.
    """
    figures: dict[str, Any] = {
        "candidates_per_minute": {}, "seconds": {}, "mean_accuracy": {}, "peak_memory_mib": {}, "share_of_floor": {},
        "ledger": {}, "ratio": compute_ratios(results),
        "flops": flops, "peak_gflops": peak, "floor_seconds": flops / peak / 1e9,
    }  # fmt: skip
    lost_by = {name: find_lost([run.accuracies for run in runs]) for name, runs in results.items()}
    first = next(iter(results.values()))[0].accuracies
    common = [number for number in first if not any(number in numbers for numbers in lost_by.values())]
    figures |= {"accuracies_of": len(common), "lost": {name: len(numbers) for name, numbers in lost_by.items()}}
    for name, runs in results.items():
        seconds = [run.seconds for run in runs]
        middle = statistics.median(seconds)
        figures["seconds"][name] = {"median": middle, "all": seconds}
        figures["candidates_per_minute"][name] = 60 * count / middle
        accuracies = [float(runs[0].accuracies[number] or 0.0) for number in common]
        figures["mean_accuracy"][name] = statistics.mean(accuracies) if accuracies else None
        figures["peak_memory_mib"][name] = max(run.memory for run in runs)
        figures["share_of_floor"][name] = figures["floor_seconds"] / middle
        if name.startswith("l2l"):
            figures["ledger"][name] = {
                key: statistics.median(run.ledger[key] for run in runs) for key in runs[0].ledger
            }
    return figures


def compute_ratios(results: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
    """How many times as fast l2l is, by `cold to flax`, `warm to flax`, `warm to cold flax`, `cold to torch` and so on.

    The first word says which of l2l's runs; the peer's is as cold or as warm unless the name says otherwise. Pairs are
    of the same repeat, of as many as the peer took part in: the first ones.
    """
    speedups: dict[str, Any] = {}
    for name, runs in results.items():
        peer, _, state = name.partition(" ")
        for temperature in ("cold", "warm"):
            # A search that has its programs and one that has not: it says nothing if the former is the peer's.
            if peer == "l2l" or (temperature, state) == ("cold", "warm"):
                continue
            pairs = zip(runs, results[f"l2l {temperature}"], strict=False)
            quotients = [peer_run.seconds / l2l_run.seconds for peer_run, l2l_run in pairs]
            key = f"{temperature} to {peer}" if state in ("", temperature) else f"{temperature} to {state} {peer}"
            speedups[key] = {"median": statistics.median(quotients), "all": quotients}
    return speedups


def find_lost(runs: Iterable[Mapping[int, float | None]]) -> set[int]:
    """The candidates whose training diverged in one of these runs at least."""
    return {number for accuracies in runs for number, accuracy in accuracies.items() if accuracy is None}


def format_table(record: Mapping[str, Any]) -> str:
    """The record as a table, and below it whose trainings diverged, l2l's ledger and its command.

    Figures are the median (smallest to largest) over the repeats.
    """
    lines = [
        "| | runs | seconds | candidates/min | mean accuracy | peak memory, MiB | share of floor "
        "| faster: l2l cold / warm |",
        "|---|---|---|---|---|---|---|---|",
    ]
    count = record["candidates"]
    for name, seconds in record["seconds"].items():
        rates = {"median": 60 * count / seconds["median"], "all": [60 * count / value for value in seconds["all"]]}
        accuracy = record["mean_accuracy"][name]
        lines.append(
            f"| {NAMES.get(name, name)} | {len(seconds['all'])} | {format_range(seconds, 1)} | "
            f"{format_range(rates, 0)} | "
            f"{'-' if accuracy is None else f'{accuracy:.4f}'} | {record['peak_memory_mib'][name]:.0f} | "
            f"{100 * record['share_of_floor'][name]:.2g} % | {format_ratio(record['ratio'], name)} |"
        )
    lines += ["", describe_lost(record)]
    ledgers = {name: value for name, value in record["ledger"].items() if value}
    if ledgers:
        purposes = list(next(iter(ledgers.values())))
        lines += ["", f"| seconds of l2l | {' | '.join(purposes)} |", "|---" * (len(purposes) + 1) + "|"]
        for name, ledger in ledgers.items():
            figures = " | ".join(f"{ledger[value]:.1f}" for value in purposes)
            lines.append(f"| {name.removeprefix('l2l ')} | {figures} |")
        lines += ["", LEDGER]
    return "\n".join([*lines, "", f"What l2l ran: `{record['command']}`"])


def format_ratio(ratio: Mapping[str, Any], name: str) -> str:
    """How many times as fast l2l is as this row, cold and warm: like to like, both for a peer that compiles nothing."""
    peer, _, state = name.partition(" ")
    cells = [
        format_range(ratio[f"{temperature} to {peer}"], 2)
        if state in ("", temperature) and f"{temperature} to {peer}" in ratio
        else "-"
        for temperature in ("cold", "warm")
    ]
    return " / ".join(cells) if set(cells) != {"-"} else "-"


def describe_lost(record: Mapping[str, Any]) -> str:
    """What the mean accuracies are over, and how many candidates each peer lost, in a sentence."""
    counts = ", ".join(f"{name} {number}" for name, number in record["lost"].items())
    return (
        f"Accuracy is over the {record['accuracies_of']} candidates that no peer lost to a training that diverged "
        f"(lost: {counts})."
    )


def format_range(figures: Mapping[str, Any], digits: int) -> str:
    """The median, and the smallest and the largest if there are several."""
    values = figures["all"]
    middle = f"{figures['median']:.{digits}f}"
    return middle if len(values) < 2 else f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"
