"""What a search with several objectives found: the trials that no other beats in all of them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from l2l.pareto import find_front, find_knee, hypervolume
from l2l.run.result import describe
from l2l.types import Reward, Status, Trial

FOLDER = "front"
"""Where its members are handed over, in the run folder."""
FIGURE = "front.svg"


def complete(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that can be members."""
    return [trial for trial in trials if trial.reward is not None and trial.status is Status.COMPLETE]


def members(trials: Sequence[Trial]) -> list[Trial]:
    """The trials of the front, the best by the first objective first."""
    found = complete(trials)
    return [found[place] for place in find_front([trial.reward or () for trial in found])] if found else []


def folder(trial: Trial) -> str:
    """Where a member lies in the run folder."""
    return f"{FOLDER}/{trial.number:04d}"


def record(trials: Sequence[Trial], found: Sequence[Trial], tests: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The front as `result.json` names it; with the test scores of its members, if these were handed over.

    `hypervolume` is its share of the box between the worst and the best complete trial in each objective: it ranks
    nothing but earlier and later fronts of one search. `knee` is the member that gives up least.
    """
    points = np.asarray([trial.reward for trial in complete(trials)], np.float64)
    low, span = points.min(0), np.ptp(points, 0)
    scaled = [list((np.asarray(trial.reward) - low) / np.where(span > 0, span, 1.0)) for trial in found]
    listed = [describe(trial) for trial in found]
    for each, trial, test in zip(listed, found, tests, strict=False):
        each |= {"folder": folder(trial), "test": test["trial"], "reproduced": test["reproduced"]}
    return {
        "members": listed,
        "knee": found[find_knee(scaled)].number,
        "hypervolume": hypervolume(scaled, [0.0] * points.shape[1]),
    }


def axes(reward: Reward, count: int) -> list[tuple[str, float]]:
    """What each objective is called, and the sign that turns it into what was measured."""
    metrics: Mapping[str, bool] = getattr(reward, "metrics", {})
    named = [(name, 1.0 if maximise else -1.0) for name, maximise in metrics.items()]
    return named if len(named) == count else [(f"objective {place}", 1.0) for place in range(1, count + 1)]


def figure(trials: Sequence[Trial], found: Sequence[Trial], reward: Reward) -> str:
    """All complete trials, the front as a line and its knee, as SVG: the first objective over each of the others."""
    import matplotlib
    from matplotlib.figure import Figure

    signs = axes(reward, len(found[0].reward or ()))
    points = np.asarray([trial.reward for trial in complete(trials)]) * [sign for _, sign in signs]
    line = np.asarray([trial.reward for trial in found]) * [sign for _, sign in signs]
    special = record(trials, found)["knee"]
    least = line[[trial.number for trial in found].index(special)]
    drawing = Figure(figsize=(6.5 * (len(signs) - 1), 4.8), layout="constrained")
    for place, (name, _) in enumerate(signs[1:], 1):
        drawn = drawing.add_subplot(1, len(signs) - 1, place)
        drawn.scatter(points[:, place], points[:, 0], s=18, color="0.7", label="trials")
        order = np.argsort(line[:, place], kind="stable")
        style = "o-" if len(signs) == 2 else "o"
        drawn.plot(line[order, place], line[order, 0], style, color="tab:blue", label="front", markersize=5)
        drawn.plot(least[place], least[0], "D", color="tab:orange", label=f"knee: trial {special}", markersize=8)
        if points[:, place].min() > 0 and points[:, place].max() > 10 * points[:, place].min():
            drawn.set_xscale("log")
        drawn.set_xlabel(name)
        drawn.set_ylabel(signs[0][0])
        drawn.grid(alpha=0.3)
    handles, labels = drawing.axes[0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", frameon=False, ncols=3)
    kept = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "l2l", "svg.fonttype": "none"}):
        drawing.savefig(kept, format="svg", metadata={"Date": None})
    return kept.getvalue()
