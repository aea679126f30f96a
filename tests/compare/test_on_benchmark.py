"""Searches of a tabular benchmark: jobs of several seeds give what single searches give."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from l2l.api import search
from l2l.compare.on_benchmark import Budget, Job, run_job, search_alone
from l2l.executors.inline import Inline
from l2l.objectives.tabular import Tabular, benchmark_space
from l2l.searchers.gp.gp_critic import GpCritic
from l2l.searchers.random_search import Random
from l2l.tasks.tabular import Lookup


@pytest.mark.slow
def test_on_a_benchmark_too_earlier_searches_are_known(table: Path, tmp_path: Path) -> None:
    space, task = benchmark_space(table, "codes"), Lookup(table, "reward")
    objective = functools.partial(Tabular, path=table, codes="codes", reward="reward")
    search(
        space, task, Random(), objective=objective, executor=Inline(), tracker={}, trials=40, batch=40, final=None,
        out=tmp_path / "run",
    )  # fmt: skip
    searcher, job_seeds = GpCritic(first=4, prior=str(tmp_path / "run")), (0, 1)
    benchmark = objective(space=space, task=task).benchmark
    rows = run_job(Job("warm", searcher, job_seeds), Budget(benchmark, 6, 1)).rows
    # Without earlier searches, tests/searchers/core/test_compiled_search.py shows the same.
    assert rows.tolist() == [search_alone(searcher, benchmark, seed, 6, 1).tolist() for seed in job_seeds]
    assert benchmark.rewards[rows[:, 0]].min() > np.quantile(benchmark.rewards, 0.9)
