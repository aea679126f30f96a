"""A comparison as people read it: tables with what may be said of it, and a figure of the best reward so far."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from l2l.compare.bootstrap import FEWEST, MANY, Interval, bootstrap_curves
from l2l.compare.comparison import Analysis, Comparison

Floats = npt.NDArray[np.float64]

DASHES = ("-", "--", ":", "-.")
"""Line styles; each serves ten searchers, since there are ten colours."""

COSTS_HEADING = "## What it took"
"""Where the part of the page begins that the command line does not print."""


def write_markdown(comparison: Comparison) -> str:
    """The comparison as Markdown: ends, curves, costs, and the field's checklist."""
    setting = comparison.setting
    space = setting.space
    parts = [
        f"# {len(comparison.searchers)} searchers, {comparison.seeds} seeds, {comparison.trials} trials each",
        f"Space: {space.name}, {space.decisions} decisions"
        + (f", {space.candidates} candidates" if space.candidates else "")
        + f". Objective: {setting.objective}. Batches of {setting.batch}; seeds {_seeds(comparison)}, the same for "
        "every searcher.",
        f"Made by: `{setting.command}`" if setting.command else "",
        "## Best reward at the end",
        _write_ends(comparison),
        "Differences are means over pairs of equal seeds with 95 % bootstrap intervals; the chance is that of beating "
        "a random search of any seed, ties counting half." + _caution(comparison.seeds),
        _recommendation(comparison),
        "## On the way",
        _write_stops(comparison),
        "![best reward so far](compare.svg)",
        *_write_equal_seconds(comparison),
        COSTS_HEADING,
        _write_costs(comparison),
        "## Checklist",
        "The checklist of Lindauer and Hutter (2020), Best Practices for Scientific Research on Neural Architecture "
        "Search, JMLR 21, item by item, as far as a program can answer.",
        *_answer_checklist(comparison),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _seeds(comparison: Comparison) -> str:
    first = comparison.setting.seed
    return f"{first} to {first + comparison.seeds - 1}"


def _write_ends(comparison: Comparison) -> str:
    """The table of the best rewards at the end."""
    highest, has_report = comparison.highest, comparison.setting.report is not None
    head = ["searcher", "mean", "std", "difference to random", "chance", "verdict"]
    head += [f"difference to {highest}"] if highest != "random" else []
    head += ["report", "report std"] if has_report else []
    lines: list[list[str]] = []
    for name, searcher in comparison.searchers.items():
        cells = [
            f"**{name}**" if name == comparison.recommended else name,
            f"{searcher.reward_mean:.4f}",
            f"{searcher.reward_std:.4f}",
            _format_interval(searcher.difference_to_random),
            f"{searcher.chance_over_random:.2f}",
            "" if name == "random" else searcher.verdict,
            *([_format_interval(searcher.difference_to_best)] if highest != "random" else []),
        ]
        if has_report:
            cells += [f"{searcher.report_mean:.4f}", f"{searcher.report_std:.4f}"]
        lines.append(cells)
    return _write_table(head, lines)


def _caution(seeds: int) -> str:
    """What few seeds mean for a verdict."""
    if seeds < FEWEST:
        return f" Fewer than {FEWEST} seeds show no difference, however large it is."
    return "" if seeds >= MANY else f" With fewer than {MANY} seeds a verdict needs Student's interval, too."


def _recommendation(comparison: Comparison) -> str:
    """Which searcher is recommended, and why."""
    name = comparison.recommended
    if name is None:
        return "Recommended: none, since no searcher is shown to be better than random search."
    if comparison.searchers[name].verdict == "better":
        return f"Recommended: **{name}**, which is better than random search."
    return (
        f"Recommended: **{name}**, because of its results elsewhere: here no searcher is shown to be better than it, "
        "and it is not shown to be better than random search."
    )


def _write_stops(comparison: Comparison) -> str:
    """Rewards by number of trials; where the best is known, the distance to it and the share of searches at it."""
    stops = list(comparison.searchers["random"].reward)
    lines: list[list[str]] = []
    for name, searcher in comparison.searchers.items():
        if searcher.regret is not None and searcher.found_best is not None:
            cells = [f"{searcher.regret[stop]:.3f}, {searcher.found_best[stop]:.0%}" for stop in stops]
        else:
            cells = [f"{searcher.reward[stop]:.4f}" for stop in stops]
        lines.append([name, *cells])
    caption = "Mean of the best reward so far"
    if comparison.best is not None:
        best = f"{comparison.best:.4f}"
        caption = f"Mean distance to the best reward there is ({best}), and the share of searches that found it"
    return f"{caption}:\n\n{_write_table(['searcher', *(f'after {stop}' for stop in stops)], lines)}"


def _write_equal_seconds(comparison: Comparison) -> list[str]:
    """The searchers within equal seconds of training, where candidates are trained."""
    lines: list[list[str]] = []
    seconds = 0.0
    for name, searcher in comparison.searchers.items():
        within = searcher.equal_seconds
        if within is None:
            return []
        seconds = within.seconds
        lines.append(
            [
                name,
                f"{within.trials:.1f}",
                f"{within.reward_mean:.4f}",
                _format_interval(within.difference_to_random),
                "" if name == "random" else within.verdict,
            ]
        )
    return [
        "## With equal seconds",
        "The best reward within the seconds of training and evaluating that the quickest searcher used up, "
        f"seed by seed: {seconds:.1f} s a search on average. Compiling is left out, since searchers share programs. "
        "A failed trial counts the seconds that were measured of it, often none.",
        _write_table(["searcher", "trials within", "mean", "difference to random", "verdict"], lines),
    ]


def _write_costs(comparison: Comparison) -> str:
    """How much of the space each searcher tried, and the ledger of all its searches together."""
    parts = list(comparison.searchers["random"].seconds)
    unit = "core-seconds" if parts == ["searcher"] else "seconds"
    head = ["searcher", "different candidates a seed", "failed trials", *(f"{part}, {unit}" for part in parts)]
    count = comparison.setting.space.candidates
    lines = [
        [
            name,
            f"{searcher.distinct:.1f}" + (f" ({searcher.distinct / count:.2%} of the space)" if count else ""),
            str(searcher.failed),
            *(f"{searcher.seconds[part]:.1f}" for part in parts),
        ]
        for name, searcher in comparison.searchers.items()
    ]
    return _write_table(head, lines)


def _format_interval(interval: Interval) -> str:
    return f"{interval.low:+.4f} to {interval.high:+.4f}"


def _write_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *lines])


def _sum_seconds(comparison: Comparison) -> float:
    """The seconds of all searches; a ledger that has a total says it itself."""
    ledgers = [searcher.seconds for searcher in comparison.searchers.values()]
    return sum(ledger["total"] if "total" in ledger else sum(ledger.values()) for ledger in ledgers)


def _answer_checklist(comparison: Comparison) -> list[str]:
    """A line for each question of the checklist, with its answer."""
    setting, is_tabular = comparison.setting, comparison.best is not None
    environment, has_report = setting.environment, setting.report is not None
    versions = ", ".join(f"{name} {environment[name]}" for name in ("l2l", "jax", "flax", "optuna", "numpy"))
    machine = f"{environment['platform']}, Python {environment['python']}, {versions}"
    settings = "`settings` in compare.json"
    custom = "custom code that it names is yours to release"
    answers = {
        "**Releasing code.** Code of the training pipeline for the final architectures": "none was trained here: the "
        "authors of the tabular benchmark have it." if is_tabular else f"l2l's; {settings}, and {custom}.",
        "Code of the search space": f"the space {setting.space.name}: {settings}, and {custom}.",
        "Hyperparameters of the final evaluation, and its seeds": "none was run: "
        + ("the report is a column of the benchmark." if has_report else "searchers are compared by the reward."),
        "Code of the methods": f"l2l {environment['l2l']}; {custom}.",
        "Hyperparameters of the methods, and their seeds": f"{settings}; seeds {_seeds(comparison)} for every "
        "searcher.",
        "**Comparing methods.** The same benchmark: data, space, training code, hyperparameters": "yes, one objective, "
        "task and space for all searchers.",
        "Confounding factors, such as hardware, versions and runtimes": f"all searchers ran in one call on {machine}"
        + ("." if is_tabular else "; a search that was continued may have run on another machine."),
        "Ablation studies": "not by itself: compare a searcher for each part that is switched off.",
        "The same protocol of evaluation": "yes: the reward chooses"
        + (", and the report is that of the candidate with the best reward." if has_report else "."),
        "Performance over time": "yes, over trials, in the table and the figure above"
        + ("." if is_tabular else ", and within equal seconds."),
        "Comparison with random search": "yes, with the same seeds and budget.",
        "Several runs, with their seeds": f"{comparison.seeds} a searcher, paired, seeds {_seeds(comparison)}.",
        "Tabular or surrogate benchmarks for depth": "yes." if is_tabular else "no: candidates were trained.",
        "**Reporting.** How hyperparameters were tuned, and what that took": "not known to this program; say so where "
        "you quote the table.",
        "The time of the whole method, end to end": f"{_sum_seconds(comparison):.0f} seconds of searches in all; by "
        "part above" + ("." if is_tabular else ", of a search that was continued its last session's."),
        "All details of the setup": f"{settings}, {machine}.",
    }  # fmt: skip
    return [f"- *{question}:* {answer}" for question, answer in answers.items()]


def draw_figure(curves: Mapping[str, Floats], analysis: Analysis) -> str:
    """The mean of the best reward so far of curves [S, T], with its 95 % interval as a band, as SVG."""
    import matplotlib
    from matplotlib.figure import Figure

    columns = 1 if max(map(len, curves)) > 24 else 4
    figure = Figure(figsize=(8, 5 + 0.22 * -(-len(curves) // columns)), layout="constrained")
    axes = figure.add_subplot()
    trials = np.arange(1, analysis.trials + 1)
    points = np.unique(np.geomspace(1, analysis.trials, 60).astype(int)) - 1  # an interval costs time
    for index, (name, curve) in enumerate(curves.items()):
        values = curve if analysis.best is None else analysis.best - curve
        low, high = bootstrap_curves(values[:, points])
        (line,) = axes.plot(
            trials, values.mean(0), DASHES[index // 10 % len(DASHES)],
            label=textwrap.shorten(name, 90, placeholder=" ..."),
            linewidth=2 if name == analysis.recommended else 1.2, marker="o" if len(trials) == 1 else None,
        )  # fmt: skip
        axes.fill_between(trials[points], low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set_xlabel("trials")
    axes.set_ylabel("best reward so far" if analysis.best is None else "distance to the best reward")
    if analysis.best is None:
        _limit_rewards(axes, curves.values())
    else:
        _scale_distances(axes, curves.values(), analysis.best)
    axes.set_title(f"mean over {analysis.seeds} seeds, with 95 % intervals")
    figure.legend(loc="outside lower left", frameon=False, ncols=columns)
    axes.grid(alpha=0.3)
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "l2l", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _limit_rewards(axes: Any, curves: Collection[Floats]) -> None:
    """Leaves out what lies below every mean from the first tenth of the trials on: searchers differ at the end."""
    means = np.stack([curve.mean(0) for curve in curves])
    low, high = means[:, means.shape[1] // 10 :].min(), max(curve.max() for curve in curves)
    if low < high:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def _scale_distances(axes: Any, curves: Collection[Floats], best: float) -> None:
    """Scales distances logarithmically where they span a power of ten or more, and linearly otherwise."""
    means = np.concatenate([best - curve.mean(0) for curve in curves])
    if means.min() < means.max() / 10:
        extent = float(np.ptp(np.concatenate([curve[:, 0] for curve in curves])))
        axes.set_yscale("symlog", linthresh=max(1e-3 * extent, 1e-9))
    else:
        axes.set_ylim(bottom=0)
