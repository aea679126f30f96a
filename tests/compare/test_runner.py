"""Comparisons: against searches made by hand, what the report says, and what is refused."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import Failing, Hashed

from l2l.compare.analysis import Row, curves, judged
from l2l.compare.on_benchmark import Job, alone
from l2l.compare.on_benchmark import run as run_job
from l2l.compare.report import figure
from l2l.compare.runner import compare
from l2l.errors import InputError, SearchError
from l2l.executors.inline import Inline
from l2l.objectives.tabular import Tabular
from l2l.objectives.tabular import benchmark_space as space
from l2l.reward import Metric
from l2l.run.loop import search
from l2l.searchers.evolution import Evolution
from l2l.searchers.gp.gp_critic import GpCritic
from l2l.searchers.local_search import LocalSearch
from l2l.searchers.optuna_samplers import Tpe
from l2l.searchers.random import Random
from l2l.space import SearchSpace
from l2l.store.log import Store
from l2l.tasks.digits import Digits
from l2l.tasks.tabular import Lookup
from l2l.testing import landscape, write
from search_spaces import mlp


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A landscape of 4 decisions and 3 options, with another column to report."""
    place = tmp_path_factory.mktemp("table") / "small.npz"
    made = landscape(4, 3)
    write(place, made)
    np.savez(place, codes=made.codes, reward=made.rewards, other=made.rewards[::-1])
    return place


def compared(table: Path, out: Path, **changed: Any) -> dict[str, Any]:
    """A small comparison in this process."""
    objective = functools.partial(Tabular, path=table, codes="codes", reward="reward", report="other")
    settings: dict[str, Any] = {
        "searcher": {"random": Random(), "local": LocalSearch(first=3)}, "trials": 20, "seeds": 4, "workers": 0,
        **changed,
    }  # fmt: skip
    settings.setdefault("space", space(table, "codes"))
    return compare(objective=objective, task=Lookup(table, "reward"), out=out, **settings)


def test_rows_are_what_searches_of_their_own_find(table: Path, tmp_path: Path) -> None:
    rows = {"random": Random(), "evolution": Evolution(population=4, tournament=2), "tpe": Tpe()}
    record = compared(table, tmp_path / "comparison", searcher=rows, seeds=2, trials=12, batch=5)
    for name, searcher in rows.items():
        best: list[float] = []
        for seed in range(2):
            found = search(
                space(table, "codes"), Lookup(table, "reward"), searcher,
                functools.partial(Tabular, path=table, codes="codes", reward="reward"), Metric(), Inline(),
                Store(None), {}, trials=12, batch=5, seed=seed, out=tmp_path / f"{name}-{seed}",
            )  # fmt: skip
            assert found.best.reward is not None
            best.append(found.best.reward[0])
        assert record["rows"][name]["reward_mean"] == pytest.approx(np.mean(best), abs=1e-12)


def test_what_is_written(table: Path, tmp_path: Path) -> None:
    record = compared(table, tmp_path / "comparison")
    assert json.loads((tmp_path / "comparison/compare.json").read_text()) == json.loads(json.dumps(record))
    assert {"recommended", "trials", "seeds", "rows"} <= set(record)
    row = record["rows"]["local"]
    assert set(row["regret"]) == set(row["found_best"]) == {"20"}
    assert row["difference_to_random"][0] <= row["difference_to_random"][1]
    text = (tmp_path / "comparison/compare.md").read_text()
    assert "| random |" in text
    assert "Lindauer and Hutter" in text
    assert (tmp_path / "comparison/compare.svg").read_text().startswith("<?xml")


def test_processes_find_the_same(table: Path, tmp_path: Path) -> None:
    here, there = (compared(table, tmp_path / str(workers), workers=workers) for workers in (0, 2))
    for name, row in here["rows"].items():
        assert {**row, "seconds": 0} == {**there["rows"][name], "seconds": 0}


def test_random_search_is_always_a_row(table: Path, tmp_path: Path) -> None:
    record = compared(table, tmp_path / "comparison", searcher={"local": LocalSearch()})
    assert list(record["rows"]) == ["random", "local"]
    assert record["rows"]["random"]["difference_to_random"] == [0, 0]


class Pair(Metric):
    """A reward of two numbers."""

    length = 2


def row(rewards: list[list[float]]) -> Row:
    found = np.array(rewards)
    return Row(found, None, np.ones(len(found)), {"searcher": 0.0})


def test_a_difference_that_is_none_is_called_so() -> None:
    same = row([[1.0, 2.0], [2.0, 1.0], [1.0, 3.0]] * 2)
    record = judged({"random": same, "twin": same, "better": row([[1.0, 4.0], [4.0, 1.0], [1.0, 5.0]] * 2)}, None)
    assert record["rows"]["twin"]["verdict"] == "no evidence of a difference"
    assert record["rows"]["better"]["verdict"] == "better"
    assert record["rows"]["better"]["chance_over_random"] > 0.9
    assert record["highest"] == "better"


def test_a_reward_is_reported_by_the_best_so_far() -> None:
    found = Row(np.array([[0.1, 0.3, 0.2], [0.5, 0.4, 0.5]]), np.array([[1.0, 3, 2], [5, 4, 9]]), np.ones(2), {})
    record = judged({"random": found}, 0.5)["rows"]["random"]
    assert record["report_mean"] == 4  # of the first of equals
    assert record["regret"]["3"] == pytest.approx(0.1)
    assert record["found_best"]["3"] == 0.5


def test_equal_seconds_are_those_of_the_quickest() -> None:
    slow = Row(np.array([[0.7, 0.9], [0.6, 0.8]]), None, np.ones(2), {}, np.array([[5.0, 10.0], [3.0, 6.0]]))
    quick = Row(np.array([[0.3, 0.2], [0.1, 0.4]]), None, np.ones(2), {}, np.array([[1.0, 2.0], [1.0, 4.0]]))
    rows = judged({"random": quick, "slow": slow}, None)["rows"]
    assert rows["random"]["equal_seconds"]["seconds"] == 3
    assert (rows["random"]["equal_seconds"]["trials"], rows["slow"]["equal_seconds"]["trials"]) == (2.0, 0.5)
    assert rows["random"]["equal_seconds"]["reward_mean"] == pytest.approx(0.35)
    # Nothing was done yet with the first seed, which is no better than the lowest reward of all.
    assert rows["slow"]["equal_seconds"]["reward_mean"] == pytest.approx((0.1 + 0.6) / 2)


def test_searches_that_train_keep_their_runs(tmp_path: Path) -> None:
    rows, objective = {"local": LocalSearch(first=2)}, functools.partial(Hashed, rounds=1)

    def run() -> dict[str, Any]:
        parts: Any = rows, objective, mlp.space(), Digits()
        return compare(*parts, executor=Inline(), trials=4, seeds=2, batch=2, out=tmp_path)

    record, again = run(), run()
    assert record["rows"] == again["rows"]
    with pytest.raises(InputError, match=r"holds a comparison with trials 4 and not 3"):
        compare(rows, objective, mlp.space(), Digits(), executor=Inline(), trials=3, seeds=2, batch=2, out=tmp_path)
    (tmp_path / "compare.json").unlink()
    with pytest.raises(InputError, match=r"random-0 has 4 trials and not 2: rows of unequal budgets are not compared"):
        compare(rows, objective, mlp.space(), Digits(), executor=Inline(), trials=2, seeds=2, batch=2, out=tmp_path)
    assert {each.name for each in (tmp_path / "runs").iterdir()} == {"local-0", "local-1", "random-0", "random-1"}
    assert record["rows"]["local"]["equal_seconds"]["seconds"] > 0
    assert "## With equal seconds" in (tmp_path / "compare.md").read_text()


def test_on_a_table_too_earlier_searches_are_known(table: Path, tmp_path: Path) -> None:
    search(
        space(table, "codes"), Lookup(table, "reward"), Random(),
        functools.partial(Tabular, path=table, codes="codes", reward="reward"), Metric(), Inline(), Store(), {},
        trials=40, batch=40, final=None, out=tmp_path / "run",
    )  # fmt: skip
    rows = {name: GpCritic(first=4, prior=prior) for name, prior in (("cold", ()), ("warm", str(tmp_path / "run")))}
    known = Tabular(
        space=space(table, "codes"), task=Lookup(table, "reward"), path=table, codes="codes", reward="reward"
    )
    for name, searcher in rows.items():
        job = Job(name, searcher, (0, 1))
        found = run_job(job, known.table, 6, 1).rows
        assert found.tolist() == [alone(searcher, known.table, seed, 6, 1).tolist() for seed in job.seeds]
    assert known.table.rewards[found[:, 0]].min() > np.quantile(known.table.rewards, 0.9)  # the warm one's first


def test_a_search_that_fails_is_named(tmp_path: Path) -> None:
    parts: Any = {"random": Random()}, functools.partial(Failing, rounds=1), mlp.space(), Digits()
    with pytest.raises(SearchError, match=r"^random, seed 0: all 2 trials failed"):
        compare(*parts, executor=Inline(), trials=2, seeds=2, batch=2, out=tmp_path)


def test_failures_before_the_first_success_count_as_the_lowest_of_all_rows() -> None:
    record = judged({"random": row([[0.0, 1.0], [2.0, 3.0]]), "late": row([[np.nan, 5.0], [np.nan, 6.0]])}, None)
    assert record["rows"]["late"]["failed"] == 2
    late = curves({"random": row([[0.0, 1.0]]), "late": row([[np.nan, 5.0]])})["late"]
    assert late.tolist() == [[0, 5]]


def test_what_is_no_better_than_random_is_not_recommended() -> None:
    same = row([[1.0, 2.0], [2.0, 1.0], [1.0, 3.0]] * 2)
    up = row([[1.0, 9.0], [2.0, 9.0], [1.0, 9.0]] * 2)
    record = judged({"random": same, "twin": same}, None)
    assert record["recommended"] is None
    assert record["rows"]["twin"]["difference_to_recommended"] is None
    assert judged({"random": same, "gp_critic": same}, None)["recommended"] == "gp_critic"
    assert judged({"random": same, "up": up}, None)["recommended"] == "up"
    assert judged({"random": same, "up": up, "gp_critic": same}, None)["recommended"] == "up"
    assert judged({"random": up, "gp_critic": same}, None)["recommended"] is None
    few = {name: row(each.rewards[:5].tolist()) for name, each in {"random": same, "up": up, "gp_critic": same}.items()}
    record = judged(few, None)
    assert record["rows"]["up"]["verdict"] == "no evidence of a difference"  # that is what five seeds can show
    assert record["recommended"] == "gp_critic"


def test_bad_input_is_one_sentence(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    with pytest.raises(InputError, match=r"^seeds must be a whole number of at least 2, got 1; one seed says nothing"):
        compared(table, out, seeds=1)
    with pytest.raises(InputError, match=r"^there is nothing to compare: "):
        compared(table, out, searcher={})
    with pytest.raises(InputError, match=r"^a comparison needs equal budgets, got random 1 seeds of 2 trials, odd 1 "):
        judged({"random": row([[1.0, 2.0]]), "odd": row([[1.0]])}, None)
    with pytest.raises(InputError, match=r"^a search had no trial that succeeded"):
        judged({"random": row([[np.nan, np.nan]])}, None)
    with pytest.raises(InputError, match=r"^the row called random must be a random search, got LocalSearch"):
        compared(table, out, searcher={"random": LocalSearch()})
    with pytest.raises(InputError, match=r"^a table has its own reward, the column of objective\.reward"):
        compared(table, out, reward=Metric(maximise=False))
    parts: Any = {"random": Random()}, functools.partial(Hashed, rounds=1), mlp.space(), Digits()
    with pytest.raises(InputError, match=r"^rows are compared by one number, and this reward has 2; choose one"):
        compare(*parts, reward=Pair(), executor=Inline(), trials=2, seeds=2, out=out)
    with pytest.raises(InputError, match=r"^workers must be a whole number of at least 0, got -1\.$"):
        compared(table, out, workers=-1)
    with pytest.raises(InputError, match=r"^seed \+ seeds must be at most 4294967296"):
        compared(table, out, seed=2**32 - 1, seeds=2)
    with pytest.raises(InputError, match=r"cannot be written to \("):
        compared(table, Path("/proc/nowhere"))
    assert not out.exists()
    compared(table, out)
    with pytest.raises(InputError, match=r"holds a comparison with space"):
        compared(table, out, space=SearchSpace(space(table, "codes").choices, str, "other"))
    with pytest.raises(InputError, match=r"holds a comparison with other rows, or other arguments of one \("):
        compared(table, out, searcher={"evolution": Evolution()})
    with pytest.raises(InputError, match=r"holds a comparison with trials 20 and not 21: rows of unequal budgets"):
        compared(table, out, trials=21)


def test_a_searcher_that_cannot_take_the_space_is_named(table: Path, tmp_path: Path) -> None:
    class Narrow(Random):
        def init(self, space: Any, key: Any) -> Any:
            raise InputError("only numbers, please.")

    with pytest.raises(InputError, match=r"^the row narrow: only numbers, please\.$"):
        compared(table, tmp_path / "comparison", searcher={"narrow": Narrow()})


def test_the_figure_shows_where_rows_end_and_not_where_they_began() -> None:
    starts = np.linspace(0.1, 0.2, 3)[:, None]
    curves = {
        name: np.concatenate([starts, np.full((3, 39), end)], 1) for name, end in (("ours", 0.99), ("random", 0.98))
    }
    drawn = figure(curves, {"best": None, "trials": 40, "seeds": 3, "recommended": "ours"})
    ticks = [float(each) for each in re.findall(r">(0\.\d+)</text>", drawn)]
    assert len(ticks) > 2
    assert min(ticks) > 0.97
