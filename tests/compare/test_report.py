"""`compare.json`, `compare.md` and `compare.svg` of comparisons made by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from l2l.compare.analysis import Searches, analyse
from l2l.compare.comparison import Analysis, ComparedSpace, Comparison, Setting
from l2l.compare.report import draw_figure, write_markdown

ENVIRONMENT = {
    "l2l": "0.1.0", "jax": "0.10.0", "flax": "0.12.0", "optuna": "5.0.0", "numpy": "2.4.0", "platform": "Linux",
    "python": "3.11.0",
}  # fmt: skip


def make_comparison(kind: str) -> Comparison:
    """Three searchers with eight seeds, on a tabular benchmark with a report or on a trained objective."""
    rng, searches = np.random.default_rng(3), dict[str, Searches]()
    is_tabular = kind == "tabular"
    for index, name in enumerate(("random", "evolution", "gp_critic")):
        rewards, distinct = np.round(rng.normal(0.5 + 0.2 * index, 0.2, (8, 24)), 3), np.arange(8.0) + index
        rewards[0, 0] = rewards[3, 7 + index] = np.nan
        if is_tabular:
            report = np.round(rewards * 50 + 3, 2)
            searches[name] = Searches(rewards, report, distinct, {"searcher": 1.5 * (index + 1)})
        else:
            seconds = {"total": 30.0 + index, "train": 20.0, "idle": 0.25 * index}
            spent = np.cumsum(np.round(rng.uniform(0.5, 1.5, (8, 24)), 2), 1)
            searches[name] = Searches(rewards, None, distinct, seconds, spent)
    setting = Setting(
        batch=4, seed=2, settings={"trials": 24, "searcher.random": "Random"},
        command="l2l compare out=o" if is_tabular else None,
        space=ComparedSpace("mlp", 4, 81 if is_tabular else None), objective=kind,
        report="other" if is_tabular else None, seconds=12.5, environment=ENVIRONMENT,
    )  # fmt: skip
    return Comparison(**vars(analyse(searches, 1.3 if is_tabular else None)), setting=setting)


def read_rounded(text: str) -> str:
    """JSON with its keys in their order, and numbers to twelve digits: the last ones depend on the processor."""
    return json.dumps(json.loads(text, parse_float=lambda number: float(f"{float(number):.12g}")), indent=2)


@pytest.mark.parametrize("kind", ["tabular", "trained"])
def test_the_json_is_the_golden_one(kind: str) -> None:
    golden = (Path(__file__).parent / "golden" / f"{kind}.json").read_text()
    text = json.dumps(make_comparison(kind).to_json(), allow_nan=False)
    assert read_rounded(text) == read_rounded(golden)


def test_the_report_says_what_the_comparison_holds() -> None:
    tabular, trained = (write_markdown(make_comparison(kind)) for kind in ("tabular", "trained"))
    for text in (tabular, trained):
        assert "3 searchers, 8 seeds, 24 trials each" in text
        assert "seeds 2 to 9, the same for every searcher" in text
        assert "Lindauer and Hutter" in text
        assert text.count("\n- *") == 16  # every item of the checklist
    assert "Made by: `l2l compare out=o`" in tabular
    assert "3.5 (4.32% of the space)" in tabular
    assert "searcher, core-seconds" in tabular
    assert "With equal seconds" not in tabular
    assert "## With equal seconds" in trained
    assert "93 seconds of searches in all" in trained


def test_the_figure_shows_where_searches_end_and_not_where_they_began() -> None:
    starts = np.linspace(0.1, 0.2, 3)[:, None]
    curves = {
        name: np.concatenate([starts, np.full((3, 39), end)], 1) for name, end in (("ours", 0.99), ("random", 0.98))
    }
    figure = draw_figure(curves, Analysis("ours", trials=40, seeds=3, best=None, highest="ours", searchers={}))
    ticks = [float(tick) for tick in re.findall(r">(0\.\d+)</text>", figure)]
    assert len(ticks) > 2
    assert min(ticks) > 0.97
