"""Comparisons: against searches by themselves, what is written, and what is refused."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import Failing, Hashed

from l2l.api import search
from l2l.compare.bootstrap import Interval
from l2l.compare.comparison import Comparison
from l2l.compare.runner import compare
from l2l.errors import InputError, SearchError
from l2l.executors.inline import Inline
from l2l.objectives.tabular import Tabular, benchmark_space
from l2l.reward import Metric
from l2l.searchers.evolution import Evolution
from l2l.searchers.local_search import LocalSearch
from l2l.searchers.optuna_samplers import Tpe
from l2l.searchers.random_search import Random
from l2l.space import SearchSpace
from l2l.tasks.digits import Digits
from l2l.tasks.tabular import Lookup
from search_spaces import mlp


def compare_on(table: Path, out: Path, **changes: Any) -> Comparison:
    """A small comparison in this process."""
    objective = functools.partial(Tabular, path=table, codes="codes", reward="reward", report="other")
    arguments: dict[str, Any] = {
        "searcher": {"random": Random(), "local": LocalSearch(first=3)}, "trials": 20, "seeds": 4, "workers": 0,
        **changes,
    }  # fmt: skip
    arguments.setdefault("space", benchmark_space(table, "codes"))
    return compare(objective=objective, task=Lookup(table, "reward"), out=out, **arguments)


@pytest.fixture(scope="module")
def ended(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    """A comparison that has ended, and its folder; no test writes to it."""
    folder = tmp_path_factory.mktemp("ended") / "comparison"
    return compare_on(table, folder), folder


def test_a_comparison_finds_what_single_searches_find(table: Path, tmp_path: Path) -> None:
    searchers = {"random": Random(), "evolution": Evolution(population=4, tournament=2), "tpe": Tpe()}
    comparison = compare_on(table, tmp_path / "comparison", searcher=searchers, seeds=2, trials=12, batch=5)
    for name, searcher in searchers.items():
        rewards: list[float] = []
        for seed in range(2):
            result = search(
                benchmark_space(table, "codes"), Lookup(table, "reward"), searcher,
                objective=functools.partial(Tabular, path=table, codes="codes", reward="reward"), executor=Inline(),
                tracker={}, final=None, trials=12, batch=5, seed=seed, out=tmp_path / f"{name}-{seed}",
            )  # fmt: skip
            assert result.best.reward is not None
            rewards.append(result.best.reward[0])
        assert comparison.searchers[name].reward_mean == pytest.approx(np.mean(rewards), abs=1e-12)


def test_what_is_written(ended: tuple[Comparison, Path]) -> None:
    comparison, folder = ended
    record = json.loads((folder / "compare.json").read_text())
    assert record == comparison.to_json()
    assert {"recommended", "trials", "seeds", "rows"} <= set(record)
    entry = record["rows"]["local"]
    assert set(entry["regret"]) == set(entry["found_best"]) == {"20"}
    assert entry["difference_to_random"][0] <= entry["difference_to_random"][1]
    text = (folder / "compare.md").read_text()
    assert "| random |" in text
    assert "Lindauer and Hutter" in text
    assert (folder / "compare.svg").read_text().startswith("<?xml")


def test_processes_find_the_same(table: Path, ended: tuple[Comparison, Path], tmp_path: Path) -> None:
    here, there = ended[0].to_json(), compare_on(table, tmp_path, workers=2).to_json()
    for name, entry in here["rows"].items():
        assert {**entry, "seconds": 0} == {**there["rows"][name], "seconds": 0}


def test_random_search_always_takes_part(table: Path, tmp_path: Path) -> None:
    comparison = compare_on(table, tmp_path / "comparison", searcher={"local": LocalSearch()})
    assert list(comparison.searchers) == ["random", "local"]
    assert comparison.searchers["random"].difference_to_random == Interval(0, 0)


class Pair(Metric):
    """A reward of two numbers."""

    length = 2


def test_searches_that_train_keep_their_runs(tmp_path: Path) -> None:
    searchers, objective = {"local": LocalSearch(first=2)}, functools.partial(Hashed, rounds=1)

    def run(**budget: int) -> Comparison:
        parts: Any = searchers, objective, mlp.space(), Digits()
        return compare(*parts, executor=Inline(), **{"trials": 4, "seeds": 2, "batch": 2, **budget}, out=tmp_path)

    comparison, again = run(), run()
    assert comparison.searchers == again.searchers
    with pytest.raises(InputError, match=r"holds a comparison with trials 4 and not 3"):
        run(trials=3)
    (tmp_path / "compare.json").unlink()
    with pytest.raises(InputError, match=r"random-0 has 4 trials and not 2: only equal budgets are compared"):
        run(trials=2)
    assert {run.name for run in (tmp_path / "runs").iterdir()} == {"local-0", "local-1", "random-0", "random-1"}
    within = comparison.searchers["local"].equal_seconds
    assert within is not None
    assert within.seconds > 0
    assert "## With equal seconds" in (tmp_path / "compare.md").read_text()


def test_a_search_that_fails_is_named(tmp_path: Path) -> None:
    parts: Any = {"random": Random()}, functools.partial(Failing, rounds=1), mlp.space(), Digits()
    with pytest.raises(SearchError, match=r"^random, seed 0: all 2 trials failed"):
        compare(*parts, executor=Inline(), trials=2, seeds=2, batch=2, out=tmp_path)


def test_bad_input_is_one_sentence(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    with pytest.raises(InputError, match=r"^seeds must be an integer of at least 2, got 1; one seed says nothing"):
        compare_on(table, out, seeds=1)
    with pytest.raises(InputError, match=r"^there is nothing to compare: "):
        compare_on(table, out, searcher={})
    with pytest.raises(InputError, match=r"^the searcher named random must be random search, got LocalSearch"):
        compare_on(table, out, searcher={"random": LocalSearch()})
    with pytest.raises(InputError, match=r"^a tabular benchmark has its own reward, the column of objective\.reward"):
        compare_on(table, out, reward=Metric(maximise=False))
    parts: Any = {"random": Random()}, functools.partial(Hashed, rounds=1), mlp.space(), Digits()
    with pytest.raises(InputError, match=r"^searchers are compared by one number, and this reward has 2; choose one"):
        compare(*parts, reward=Pair(), executor=Inline(), trials=2, seeds=2, out=out)
    with pytest.raises(InputError, match=r"^workers must be an integer of at least 0 or null, got -1\.$"):
        compare_on(table, out, workers=-1)
    with pytest.raises(InputError, match=r"^seed \+ seeds must be at most 4294967296"):
        compare_on(table, out, seed=2**32 - 1, seeds=2)
    with pytest.raises(InputError, match=r"cannot be written to \("):
        compare_on(table, Path("/proc/nowhere"))
    assert not out.exists()


def test_another_comparison_in_the_folder_is_refused(table: Path, ended: tuple[Comparison, Path]) -> None:
    folder = ended[1]
    before = (folder / "compare.json").read_bytes()
    with pytest.raises(InputError, match=r"holds a comparison with space"):
        compare_on(table, folder, space=SearchSpace(benchmark_space(table, "codes").choices, str, "other"))
    with pytest.raises(InputError, match=r"holds a comparison with other searchers, or other arguments of one \("):
        compare_on(table, folder, searcher={"evolution": Evolution()})
    with pytest.raises(InputError, match=r"holds a comparison with trials 20 and not 21: only equal budgets"):
        compare_on(table, folder, trials=21)
    assert (folder / "compare.json").read_bytes() == before


def test_a_searcher_that_does_not_support_the_space_is_named(table: Path, tmp_path: Path) -> None:
    class Narrow(Random):
        def init(self, space: Any, key: Any) -> Any:
            raise InputError("only numbers, please.")

    with pytest.raises(InputError, match=r"^the searcher narrow: only numbers, please\.$"):
        compare_on(table, tmp_path / "comparison", searcher={"narrow": Narrow()})
