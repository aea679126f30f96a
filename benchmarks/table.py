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


def summary(results: Mapping[str, Sequence[Result]], count: int, flops: float, peak: float) -> dict[str, Any]:
    """Medians and spread of each peer, and l2l's ratio to it.

    `flops` are the operations of all candidates, `peak` the GFLOP/s of the machine. Accuracies are averaged over
    the candidates that no run of any peer lost.
    """
    made: dict[str, Any] = {
        "candidates_per_minute": {}, "seconds": {}, "mean_accuracy": {}, "peak_memory_mib": {}, "share_of_floor": {},
        "ledger": {}, "ratio": ratios(results),
        "flops": flops, "peak_gflops": peak, "floor_seconds": flops / peak / 1e9,
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
    return made


def ratios(results: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
    """How many times as fast l2l is, by `cold to flax`, `warm to flax`, `warm to cold flax`, `cold to torch` and so on.

    The first word says which of l2l's runs; the peer's is as cold or as warm unless the name says otherwise. Pairs are
    of the same repeat, of as many as the peer took part in: the first ones.
    """
    found: dict[str, Any] = {}
    for name, runs in results.items():
        peer, _, state = name.partition(" ")
        for own in ("cold", "warm"):
            # A search that has its programs and one that has not: it says nothing if the former is the peer's.
            if peer == "l2l" or (own, state) == ("cold", "warm"):
                continue
            pairs = zip(runs, results[f"l2l {own}"], strict=False)
            every = [theirs.seconds / ours.seconds for theirs, ours in pairs]
            key = f"{own} to {peer}" if state in ("", own) else f"{own} to {state} {peer}"
            found[key] = {"median": statistics.median(every), "all": every}
    return found


def lost(runs: Iterable[Mapping[int, float | None]]) -> set[int]:
    """The candidates whose training diverged in one of these runs at least."""
    return {number for accuracies in runs for number, accuracy in accuracies.items() if accuracy is None}


def markdown(record: Mapping[str, Any]) -> str:
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
        rates = {"median": 60 * count / seconds["median"], "all": [60 * count / each for each in seconds["all"]]}
        accuracy = record["mean_accuracy"][name]
        lines.append(
            f"| {NAMES.get(name, name)} | {len(seconds['all'])} | {spread(seconds, 1)} | {spread(rates, 0)} | "
            f"{'-' if accuracy is None else f'{accuracy:.4f}'} | {record['peak_memory_mib'][name]:.0f} | "
            f"{100 * record['share_of_floor'][name]:.2g} % | {faster(record['ratio'], name)} |"
        )
    lines += ["", diverged(record)]
    ledgers = {name: each for name, each in record["ledger"].items() if each}
    if ledgers:
        purposes = list(next(iter(ledgers.values())))
        lines += ["", f"| seconds of l2l | {' | '.join(purposes)} |", "|---" * (len(purposes) + 1) + "|"]
        for name, ledger in ledgers.items():
            figures = " | ".join(f"{ledger[each]:.1f}" for each in purposes)
            lines.append(f"| {name.removeprefix('l2l ')} | {figures} |")
        lines += ["", LEDGER]
    return "\n".join([*lines, "", f"What l2l ran: `{record['command']}`"])


def faster(ratio: Mapping[str, Any], name: str) -> str:
    """How many times as fast l2l is as this row, cold and warm: like to like, both for a peer that compiles nothing."""
    peer, _, state = name.partition(" ")
    cells = [
        spread(ratio[f"{own} to {peer}"], 2) if state in ("", own) and f"{own} to {peer}" in ratio else "-"
        for own in ("cold", "warm")
    ]
    return " / ".join(cells) if set(cells) != {"-"} else "-"


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
