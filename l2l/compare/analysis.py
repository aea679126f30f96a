"""Compares searchers that were run with equal budgets and paired seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from l2l.compare.bootstrap import (
    accumulate_best,
    bootstrap_mean,
    estimate_chance,
    judge_differences,
)
from l2l.compare.comparison import Analysis, ComparedSearcher, EqualSeconds
from l2l.errors import InputError

Floats = npt.NDArray[np.float64]

DEFAULT = "gp_critic"
"""The searcher that is recommended where it takes part and no other is shown to be better."""
STOPS = (20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
"""Numbers of trials after which searchers are compared, as far as the budget reaches, and at its end."""


@dataclass(frozen=True)
class Searches:
    """The searches of one searcher, one with each seed."""

    rewards: Floats
    """[S, T], nan where a trial failed."""
    report: Floats | None
    """[S, T]: the reported metric of every trial."""
    distinct: Floats
    """[S]: the number of different candidates of each search."""
    seconds: Mapping[str, float]
    """Seconds by part: core-seconds of the searcher where candidates are looked up, else the sum of the ledgers."""
    spent: Floats | None = None
    """[S, T]: seconds of training and evaluating up to the end of each trial; None where candidates are looked up."""


def analyse(searches: Mapping[str, Searches], best: float | None) -> Analysis:
    """Compares searchers by their searches; `best` is the highest reward of the space, where that is known.

    Raises: InputError if the budgets differ, or no searcher is named random.
    """
    shapes = {name: runs.rewards.shape for name, runs in searches.items()}
    if len(set(shapes.values())) != 1:
        budgets = ", ".join(f"{name} {seeds} seeds of {trials} trials" for name, (seeds, trials) in shapes.items())
        raise InputError(f"a comparison needs equal budgets, got {budgets}; run every searcher with the same budget.")
    if "random" not in searches:
        raise InputError("a comparison needs random search as one of its searchers, named random.")
    seeds, trials = next(iter(shapes.values()))
    stops = sorted({*(stop for stop in STOPS if stop < trials), trials})
    curves = compute_curves(searches)
    means = {name: float(curve[:, -1].mean()) for name, curve in curves.items()}
    highest = max(means, key=lambda name: means[name])
    recommended = _recommend(curves, highest)
    searchers: dict[str, ComparedSearcher] = {}
    for name in searches:
        searcher = _analyse_searcher(name, searches, curves, highest, best, stops)
        if recommended is not None:
            differences = {stop: curves[name][:, stop - 1] - curves[recommended][:, stop - 1] for stop in stops}
            intervals = {stop: bootstrap_mean(difference) for stop, difference in differences.items()}
            searcher = replace(searcher, difference_to_recommended=intervals)
        searchers[name] = searcher
    return Analysis(recommended, trials, seeds, best, highest, searchers)


def _analyse_searcher(
    name: str,
    searches: Mapping[str, Searches],
    curves: Mapping[str, Floats],
    highest: str,
    best: float | None,
    stops: Sequence[int],
) -> ComparedSearcher:
    """Compares one searcher with random search, with the highest, and with the best reward of the space."""
    runs, curve = searches[name], curves[name]
    rewards, random_rewards = curve[:, -1], curves["random"][:, -1]
    reports = {} if runs.report is None else _select_reports(runs.rewards, runs.report, stops)
    last_report = reports.get(stops[-1])
    return ComparedSearcher(
        reward_mean=float(rewards.mean()),
        reward_std=float(rewards.std(ddof=1)),
        report_mean=None if last_report is None else float(last_report.mean()),
        report_std=None if last_report is None else float(last_report.std(ddof=1)),
        report={stop: float(report.mean()) for stop, report in reports.items()},
        reward={stop: float(curve[:, stop - 1].mean()) for stop in stops},
        regret=None if best is None else {stop: float(best - curve[:, stop - 1].mean()) for stop in stops},
        found_best=None if best is None else {stop: float((curve[:, stop - 1] >= best).mean()) for stop in stops},
        difference_to_random=bootstrap_mean(rewards - random_rewards),
        difference_to_best=bootstrap_mean(rewards - curves[highest][:, -1]),
        verdict=judge_differences(rewards - random_rewards),
        chance_over_random=estimate_chance(rewards, random_rewards),
        equal_seconds=_limit_seconds(name, searches) if runs.spent is not None else None,
        distinct=float(runs.distinct.mean()),
        failed=int(np.isnan(runs.rewards).sum()),
        seconds=dict(runs.seconds),
        difference_to_recommended=None,
    )


def _recommend(curves: Mapping[str, Floats], highest: str) -> str | None:
    """The default searcher, unless one is better; then the highest, if that is better than random search."""

    def is_better(name: str, other: str) -> bool:
        return judge_differences(curves[name][:, -1] - curves[other][:, -1]) == "better"

    if DEFAULT in curves and not any(is_better(name, DEFAULT) for name in curves):
        return DEFAULT
    return highest if is_better(highest, "random") else None


def compute_curves(searches: Mapping[str, Searches]) -> dict[str, Floats]:
    """The best reward so far [S, T] by searcher; before a search's first success, the lowest reward of all searches.

    Raises: InputError if a search has no trial that succeeded.
    """
    curves = {name: accumulate_best(runs.rewards) for name, runs in searches.items()}
    if any(np.isnan(curve[:, -1]).any() for curve in curves.values()):
        raise InputError("a search had no trial that succeeded, so there is nothing to compare.")
    return {name: np.where(np.isnan(curve), _lowest(searches), curve) for name, curve in curves.items()}


def _lowest(searches: Mapping[str, Searches]) -> float:
    return float(min(np.nanmin(runs.rewards) for runs in searches.values()))


def _select_reports(rewards: Floats, report: Floats, stops: Sequence[int]) -> dict[int, Floats]:
    """The reported metric [S] of the candidate with the best reward so far, the first of equals, by stop."""
    scores = np.where(np.isnan(rewards), -np.inf, rewards)
    return {stop: report[np.arange(len(scores)), scores[:, :stop].argmax(1)] for stop in stops}


def _limit_seconds(name: str, searches: Mapping[str, Searches]) -> EqualSeconds:
    """Compares a searcher with random search within the seconds that every searcher used up, seed by seed."""
    limits = np.min([runs.spent[:, -1:] for runs in searches.values() if runs.spent is not None], axis=0)

    def find_trials_within(runs: Searches) -> npt.NDArray[np.bool_]:
        assert runs.spent is not None
        return runs.spent <= limits

    def find_best_within(runs: Searches) -> Floats:
        best = accumulate_best(np.where(find_trials_within(runs), runs.rewards, np.nan))[:, -1]
        return np.where(np.isnan(best), _lowest(searches), best)

    rewards = find_best_within(searches[name])
    differences = rewards - find_best_within(searches["random"])
    return EqualSeconds(
        seconds=float(limits.mean()),
        trials=float(find_trials_within(searches[name]).sum(1).mean()),
        reward_mean=float(rewards.mean()),
        difference_to_random=bootstrap_mean(differences),
        verdict=judge_differences(differences),
    )
