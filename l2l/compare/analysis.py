"""What may be said of searchers that were run with equal budgets and paired seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from l2l.compare.bootstrap import best_so_far, chance, interval, verdict
from l2l.errors import InputError

Floats = npt.NDArray[np.float64]

OURS = "gp_critic"
"""The searcher that is recommended where it is among the rows and none of them shows it to be behind."""
STOPS = (20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
"""Trials after which the rows are compared, as far as the budget reaches, and at its end."""


@dataclass(frozen=True)
class Row:
    """What one searcher did with each seed."""

    rewards: Floats
    """[S, T], nan where a trial failed."""
    report: Floats | None
    """[S, T]: the other metric, of every trial."""
    distinct: Floats
    """[S]: how many different candidates it tried."""
    seconds: Mapping[str, float]
    """What its searches took: core-seconds of the searcher where candidates are looked up, else their ledgers' sum."""
    spent: Floats | None = None
    """[S, T]: seconds of training and evaluating up to each trial's end; None where candidates are looked up."""


def judged(rows: Mapping[str, Row], best: float | None) -> dict[str, Any]:
    """What may be said of the rows; `best` is the highest reward there is, where that is known.

    Raises: InputError if the rows' budgets differ, or there is no random search among them.
    """
    shapes = {name: each.rewards.shape for name, each in rows.items()}
    if len(set(shapes.values())) != 1:
        listed = ", ".join(f"{name} {s} seeds of {t} trials" for name, (s, t) in shapes.items())
        raise InputError(f"a comparison needs equal budgets, got {listed}; run every row with the same.")
    if "random" not in rows:
        raise InputError("a comparison needs a row of random search, called random.")
    seeds, trials = next(iter(shapes.values()))
    stops = sorted({*(stop for stop in STOPS if stop < trials), trials})
    curve = curves(rows)
    means = {name: float(each[:, -1].mean()) for name, each in curve.items()}
    top = max(means, key=lambda name: means[name])
    said: dict[str, Any] = {}
    for name, row in rows.items():
        last = curve[name][:, -1]
        apart = last - curve["random"][:, -1]
        said[name] = {
            "reward_mean": means[name], "reward_std": float(last.std(ddof=1)),
            **_reported(row, stops),
            "reward": {str(stop): float(curve[name][:, stop - 1].mean()) for stop in stops},
            **(_known(curve[name], best, stops) if best is not None else {}),
            "difference_to_random": list(interval(apart)),
            "difference_to_best": list(interval(last - curve[top][:, -1])),
            "verdict": verdict(apart),
            "chance_over_random": chance(last, curve["random"][:, -1]),
            "equal_seconds": None if row.spent is None else _timed(row, rows),
            "distinct": float(row.distinct.mean()),
            "failed": int(np.isnan(row.rewards).sum()),
            "seconds": dict(row.seconds),
        }  # fmt: skip
    chosen = _recommended(curve, top)
    for name in said:
        said[name]["difference_to_recommended"] = {
            str(stop): list(interval(curve[name][:, stop - 1] - curve[chosen][:, stop - 1])) for stop in stops
        } if chosen else None  # fmt: skip
    return {
        "recommended": chosen, "trials": trials, "seeds": seeds, "best": best, "highest": top,
        "rows": said,
    }  # fmt: skip


def _recommended(curve: Mapping[str, Floats], top: str) -> str | None:
    """Ours, unless there is evidence against it; else the row with the highest mean, if it is better than random."""

    def said(one: str, other: str) -> str:
        return verdict(curve[one][:, -1] - curve[other][:, -1])

    if OURS in curve and not any(said(name, OURS) == "better" for name in curve):
        return OURS
    return top if said(top, "random") == "better" else None


def curves(rows: Mapping[str, Row]) -> dict[str, Floats]:
    """The best reward so far [S, T] of each row; the lowest reward of all rows where no trial has succeeded yet.

    Raises: InputError if none of a search ever did.
    """
    found = {name: best_so_far(each.rewards) for name, each in rows.items()}
    if any(np.isnan(curve[:, -1]).any() for curve in found.values()):
        raise InputError("a search had no trial that succeeded, so there is nothing to compare.")
    return {name: np.where(np.isnan(curve), _lowest(rows), curve) for name, curve in found.items()}


def _lowest(rows: Mapping[str, Row]) -> float:
    return float(min(np.nanmin(each.rewards) for each in rows.values()))


def _reported(row: Row, stops: list[int]) -> dict[str, Any]:
    """The other metric of the candidate with the best reward so far, the first of equals."""
    if row.report is None:
        return {"report_mean": None, "report_std": None, "report": {}}
    scores = np.where(np.isnan(row.rewards), -np.inf, row.rewards)
    found = {stop: row.report[np.arange(len(scores)), scores[:, :stop].argmax(1)] for stop in stops}
    last = found[stops[-1]]
    means = {str(stop): float(values.mean()) for stop, values in found.items()}
    return {"report_mean": float(last.mean()), "report_std": float(last.std(ddof=1)), "report": means}


def _timed(row: Row, rows: Mapping[str, Row]) -> dict[str, Any]:
    """The best reward within the seconds that every row has used up, seed by seed, and its distance to random's."""
    limits = np.min([each.spent[:, -1:] for each in rows.values() if each.spent is not None], axis=0)

    def inside(each: Row) -> npt.NDArray[np.bool_]:
        assert each.spent is not None
        return each.spent <= limits

    def within(each: Row) -> Floats:
        found = best_so_far(np.where(inside(each), each.rewards, np.nan))[:, -1]
        return np.where(np.isnan(found), _lowest(rows), found)

    apart = within(row) - within(rows["random"])
    return {
        "seconds": float(limits.mean()), "trials": float(inside(row).sum(1).mean()),
        "reward_mean": float(within(row).mean()), "difference_to_random": list(interval(apart)),
        "verdict": verdict(apart),
    }  # fmt: skip


def _known(curve: Floats, best: float, stops: list[int]) -> dict[str, Any]:
    """Distance to the best there is, and how many searches have found it."""
    return {
        "regret": {str(stop): float(best - curve[:, stop - 1].mean()) for stop in stops},
        "found_best": {str(stop): float((curve[:, stop - 1] >= best).mean()) for stop in stops},
    }
