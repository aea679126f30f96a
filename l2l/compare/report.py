"""A comparison as people read it: a table with what may be said of it, and a figure of the best so far."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from l2l.compare.bootstrap import FEWEST, MANY, band

Floats = npt.NDArray[np.float64]

DASHES = ("-", "--", ":", "-.")
"""Of ten rows each, since there are ten colours."""


def markdown(record: Mapping[str, Any]) -> str:
    """The comparison as Markdown: the rows, what they did on the way, what it took, and the field's checklist."""
    rows = record["rows"]
    parts = [
        f"# {len(rows)} searchers, {record['seeds']} seeds, {record['trials']} trials each",
        f"Space: {record['space']['name']}, {record['space']['decisions']} decisions"
        + (f", {record['space']['candidates']} candidates" if record["space"]["candidates"] else "")
        + f". Objective: {record['objective']}. Batches of {record['batch']}; seeds {record['seed']} to "
        f"{record['seed'] + record['seeds'] - 1}, the same for every row.",
        f"Made by: `{record['command']}`" if record["command"] else "",
        "## Best reward at the end",
        _ends(record),
        "Differences are means over pairs of equal seeds with 95 % bootstrap intervals; the chance is that of beating "
        "a random search of any seed, ties counting half." + _caution(record["seeds"]),
        _advice(record),
        "## On the way",
        _way(record),
        "![best reward so far](compare.svg)",
        *_equal_seconds(record),
        "## What it took",
        _took(record),
        "## Checklist",
        "The checklist of Lindauer and Hutter (2020), Best Practices for Scientific Research on Neural Architecture "
        "Search, JMLR 21, item by item, as far as a program can answer.",
        *_checklist(record),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _ends(record: Mapping[str, Any]) -> str:
    rows, best = record["rows"], record["highest"]
    head = ["searcher", "mean", "std", "difference to random", "chance", "verdict"]
    head += [f"difference to {best}"] if best != "random" else []
    head += ["report", "report std"] if record["report"] else []
    lines: list[list[str]] = []
    for name, row in rows.items():
        verdict = "" if name == "random" else row["verdict"]
        line = [
            f"**{name}**" if name == record["recommended"] else name,
            f"{row['reward_mean']:.4f}",
            f"{row['reward_std']:.4f}",
            _interval(row["difference_to_random"]),
            f"{row['chance_over_random']:.2f}",
            verdict,
            *([_interval(row["difference_to_best"])] if best != "random" else []),
        ]
        if record["report"]:
            line += [f"{row['report_mean']:.4f}", f"{row['report_std']:.4f}"]
        lines.append(line)
    return _table(head, lines)


def _caution(seeds: int) -> str:
    """What few seeds mean for a verdict."""
    if seeds < FEWEST:
        return f" Fewer than {FEWEST} seeds show no difference, whatever it is."
    return "" if seeds >= MANY else f" With fewer than {MANY} seeds a verdict needs Student's interval, too."


def _advice(record: Mapping[str, Any]) -> str:
    """What is recommended, and why."""
    name = record["recommended"]
    if name is None:
        return "Recommended: none, since no row is shown to be better than random search."
    if record["rows"][name]["verdict"] == "better":
        return f"Recommended: **{name}**, which is better than random search."
    return (
        f"Recommended: **{name}**, by what it did elsewhere: here no row is shown to be better than it, nor it to be "
        "better than random search."
    )


def _way(record: Mapping[str, Any]) -> str:
    """Rewards after some trials; where the best is known, how far from it and how many searches found it."""
    rows = record["rows"]
    stops = list(next(iter(rows.values()))["reward"])
    known = record["best"] is not None
    head = ["searcher", *(f"after {stop}" for stop in stops)]
    lines: list[list[str]] = []
    for name, row in rows.items():
        if known:
            cells = [f"{row['regret'][stop]:.3f}, {row['found_best'][stop]:.0%}" for stop in stops]
        else:
            cells = [f"{row['reward'][stop]:.4f}" for stop in stops]
        lines.append([name, *cells])
    what = "Mean of the best reward so far"
    if known:
        best = f"{record['best']:.4f}"
        what = f"Mean distance to the best reward there is ({best}), and the share of searches that found it"
    return f"{what}:\n\n{_table(head, lines)}"


def _equal_seconds(record: Mapping[str, Any]) -> list[str]:
    """The rows within equal seconds of training, where candidates are trained."""
    rows = {name: row["equal_seconds"] for name, row in record["rows"].items()}
    if not all(rows.values()):
        return []
    lines = [
        [
            name,
            f"{row['trials']:.1f}",
            f"{row['reward_mean']:.4f}",
            _interval(row["difference_to_random"]),
            "" if name == "random" else row["verdict"],
        ]
        for name, row in rows.items()
    ]
    return [
        "## With equal seconds",
        "The best reward within the seconds of training and evaluating that the row which took least had used up, "
        f"seed by seed: {next(iter(rows.values()))['seconds']:.1f} s a search on average. Compiling is left out, "
        "since rows share programs, and a trial that failed took what was measured of it, often nothing.",
        _table(["searcher", "trials within", "mean", "difference to random", "verdict"], lines),
    ]


def _took(record: Mapping[str, Any]) -> str:
    """How much of the space was seen, and the ledger of all searches of a row together."""
    rows = record["rows"]
    parts = list(next(iter(rows.values()))["seconds"])
    unit = "core-seconds" if parts == ["searcher"] else "seconds"
    head = ["searcher", "different candidates a seed", "failed trials", *(f"{part}, {unit}" for part in parts)]
    return _table(
        head,
        [
            [
                name,
                f"{row['distinct']:.1f}{_share(row['distinct'], record)}",
                str(row["failed"]),
                *(f"{row['seconds'][part]:.1f}" for part in parts),
            ]
            for name, row in rows.items()
        ],
    )


def _share(distinct: float, record: Mapping[str, Any]) -> str:
    count = record["space"]["candidates"]
    return f" ({distinct / count:.2%} of the space)" if count else ""


def _interval(ends: Sequence[float]) -> str:
    return f"{ends[0]:+.4f} to {ends[1]:+.4f}"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _checklist(record: Mapping[str, Any]) -> list[str]:
    """Question and answer."""
    looked_up, where = record["best"] is not None, record["environment"]
    versions = ", ".join(f"{name} {where[name]}" for name in ("l2l", "jax", "flax", "optuna", "numpy"))
    seeds = f"{record['seed']} to {record['seed'] + record['seeds'] - 1}"
    total = sum(sum(row["seconds"].values()) for row in record["rows"].values())
    if "total" in next(iter(record["rows"].values()))["seconds"]:
        total = sum(row["seconds"]["total"] for row in record["rows"].values())
    settings = "`settings` in compare.json"
    own = "what is named in it outside of l2l is yours to release"
    answers = {
        "**Releasing code.** Code of the training pipeline for the final architectures": "none was trained here: the "
        "table's makers have it." if looked_up else f"l2l's; {settings}, and {own}.",
        "Code of the search space": f"the space {record['space']['name']}: {settings}, and {own}.",
        "Hyperparameters of the final evaluation, and its seeds": "none was run: "
        + ("the report is a column of the table." if record["report"] else "rows are compared by the reward."),
        "Code of the methods": f"l2l {where['l2l']}; {own}.",
        "Hyperparameters of the methods, and their seeds": f"{settings}; seeds {seeds} for every row.",
        "**Comparing methods.** The same benchmark: data, space, training code, hyperparameters": "yes, one objective, "
        "task and space for all rows.",
        "Confounding factors, such as hardware, versions and runtimes": f"all rows ran in one call on "
        f"{where['platform']}, Python {where['python']}, {versions}"
        + ("." if looked_up else "; what was continued may have run on another."),
        "Ablation studies": "not by itself: give a row for each part that is switched off.",
        "The same protocol of evaluation": "yes: the reward chooses"
        + (", and the report is that of the candidate with the best reward." if record["report"] else "."),
        "Performance over time": "yes, over trials, in the table and the figure above"
        + ("." if looked_up else ", and within equal seconds."),
        "Comparison with random search": "yes, with the same seeds and budget.",
        "Several runs, with their seeds": f"{record['seeds']} a row, paired, seeds {seeds}.",
        "Tabular or surrogate benchmarks for depth": "yes." if looked_up else "no: candidates were trained.",
        "**Reporting.** How hyperparameters were tuned, and what that took": "not known to this program; say so where "
        "you quote the table.",
        "The time of the whole method, end to end": f"{total:.0f} seconds of searches in all; by part above"
        + ("." if looked_up else ", of a search that was continued its last session's."),
        "All details of the setup": f"{settings}, {where['platform']}, Python {where['python']}, {versions}.",
    }  # fmt: skip
    return [f"- *{question}:* {answer}" for question, answer in answers.items()]


def figure(curves: Mapping[str, Floats], record: Mapping[str, Any]) -> str:
    """The mean of the best reward so far of curves [S, T], with its 95 % interval as a band, as SVG."""
    import matplotlib
    from matplotlib.figure import Figure

    known = record["best"] is not None
    columns = 1 if max(map(len, curves)) > 24 else 4
    drawing = Figure(figsize=(8, 5 + 0.22 * -(-len(curves) // columns)), layout="constrained")
    axes = drawing.add_subplot()
    trials = np.arange(1, record["trials"] + 1)
    points = np.unique(np.geomspace(1, record["trials"], 60).astype(int)) - 1  # an interval costs time
    for number, (name, curve) in enumerate(curves.items()):
        shown = record["best"] - curve if known else curve
        low, high = band(shown[:, points])
        (line,) = axes.plot(
            trials, shown.mean(0), DASHES[number // 10 % len(DASHES)],
            label=textwrap.shorten(name, 90, placeholder=" ..."),
            linewidth=2 if name == record["recommended"] else 1.2, marker="o" if len(trials) == 1 else None,
        )  # fmt: skip
        axes.fill_between(trials[points], low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set_xlabel("trials")
    axes.set_ylabel("distance to the best reward" if known else "best reward so far")
    if known:
        _scaled(axes, curves.values(), record["best"])
    else:
        _cut(axes, curves.values())
    axes.set_title(f"mean over {record['seeds']} seeds, with 95 % intervals")
    drawing.legend(loc="outside lower left", frameon=False, ncols=columns)
    axes.grid(alpha=0.3)
    kept = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "l2l", "svg.fonttype": "none"}):
        drawing.savefig(kept, format="svg", metadata={"Date": None})
    return kept.getvalue()


def _cut(axes: Any, curves: Collection[Floats]) -> None:
    """Leaves out what lies below every mean from the first tenth of the trials on: rows differ at their end."""
    means = np.stack([curve.mean(0) for curve in curves])
    low, high = means[:, means.shape[1] // 10 :].min(), max(curve.max() for curve in curves)
    if low < high:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def _scaled(axes: Any, curves: Collection[Floats], best: float) -> None:
    """Logarithmic distances where they reach over a power of ten or more, and linear ones else."""
    means = np.concatenate([best - curve.mean(0) for curve in curves])
    if means.min() < means.max() / 10:
        spread = float(np.ptp(np.concatenate([curve[:, 0] for curve in curves])))
        axes.set_yscale("symlog", linthresh=max(1e-3 * spread, 1e-9))
    else:
        axes.set_ylim(bottom=0)
