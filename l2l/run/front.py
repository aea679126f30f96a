"""The front of a search with several objectives: the trials that no other trial beats in all of them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from l2l import pareto
from l2l.abilities import NamesObjectives
from l2l.run.result import BestTrial, FrontRecord, TestScores
from l2l.types import Reward, Status, Trial

FOLDER = "front"
"""The folder of the exported members, in the run folder."""
FIGURE = "front.svg"


def select_complete(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that can be members."""
    return [trial for trial in trials if trial.reward is not None and trial.status is Status.COMPLETE]


def select_members(trials: Sequence[Trial]) -> list[Trial]:
    """The trials of the front, the best by the first objective first."""
    complete = select_complete(trials)
    return (
        [complete[index] for index in pareto.find_front([trial.reward or () for trial in complete])] if complete else []
    )


def member_folder(trial: Trial) -> str:
    """Path of an exported member in the run folder."""
    return f"{FOLDER}/{trial.number:04d}"


def describe_front(trials: Sequence[Trial], members: Sequence[Trial], tests: Sequence[TestScores] = ()) -> FrontRecord:
    """The front as `result.json` describes it; `tests` are the test scores of its members if they were exported."""
    points = np.asarray([trial.reward for trial in select_complete(trials)], np.float64)
    low, span = points.min(0), np.ptp(points, 0)
    scaled = [list((np.asarray(trial.reward) - low) / np.where(span > 0, span, 1.0)) for trial in members]
    described = [BestTrial.from_trial(trial) for trial in members]
    if tests:
        described = [
            replace(best, folder=member_folder(trial), test=test.trial, reproduced=test.reproduced)
            for best, trial, test in zip(described, members, tests, strict=True)
        ]
    volume = pareto.hypervolume(scaled, [0.0] * points.shape[1])
    return FrontRecord(described, members[pareto.find_knee(scaled)].number, volume)


def objective_axes(reward: Reward, count: int) -> list[tuple[str, float]]:
    """The name of each objective, and the sign that turns its reward into the measured value."""
    metrics: Mapping[str, bool] = reward.metrics if isinstance(reward, NamesObjectives) else {}
    if len(metrics) == count:
        return [(name, 1.0 if maximise else -1.0) for name, maximise in metrics.items()]
    return [(f"objective {number}", 1.0) for number in range(1, count + 1)]


def draw_front(trials: Sequence[Trial], members: Sequence[Trial], reward: Reward) -> str:
    """All complete trials, the front as a line and its knee, as SVG: the first objective over each of the others."""
    import matplotlib
    from matplotlib.figure import Figure

    axes = objective_axes(reward, len(members[0].reward or ()))
    points = np.asarray([trial.reward for trial in select_complete(trials)]) * [sign for _, sign in axes]
    line = np.asarray([trial.reward for trial in members]) * [sign for _, sign in axes]
    knee = describe_front(trials, members).knee
    knee_point = line[[trial.number for trial in members].index(knee)]
    figure = Figure(figsize=(6.5 * (len(axes) - 1), 4.8), layout="constrained")
    for column, (name, _) in enumerate(axes[1:], 1):
        plot = figure.add_subplot(1, len(axes) - 1, column)
        plot.scatter(points[:, column], points[:, 0], s=18, color="0.7", label="trials")
        order = np.argsort(line[:, column], kind="stable")
        style = "o-" if len(axes) == 2 else "o"
        plot.plot(line[order, column], line[order, 0], style, color="tab:blue", label="front", markersize=5)
        plot.plot(knee_point[column], knee_point[0], "D", color="tab:orange", label=f"knee: trial {knee}", markersize=8)
        if points[:, column].min() > 0 and points[:, column].max() > 10 * points[:, column].min():
            plot.set_xscale("log")
        plot.set_xlabel(name)
        plot.set_ylabel(axes[0][0])
        plot.grid(alpha=0.3)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", frameon=False, ncols=3)
    svg = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "l2l", "svg.fonttype": "none"}):
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()
