"""What the runs of the first-answer benchmark come to, and what its command line refuses; no time is asserted."""

from __future__ import annotations

import json

import first_answer
import numpy as np
import pytest
from answer_table import Run, format_table, make_curve, summarise_runs
from first_answer import JOBS, list_units, parse_arguments

from l2l.tasks import Digits


def test_the_curve_rises_and_begins_with_the_first_trial() -> None:
    ends = [(103.0, 0.5), (101.0, 0.4), (102.0, 0.3), (104.0, 0.5), (105.0, 0.9)]
    assert make_curve(ends, 100.0) == [(1.0, 0.4), (3.0, 0.5), (5.0, 0.9)]
    assert make_curve([], 100.0) == []


def test_ratios_are_of_pairs() -> None:
    def run(seconds: float, first: float, **more: float) -> Run:
        return Run(seconds, 100.0, [(first, 0.5), (seconds, 0.9)], {"complete": 2}, **more)  # pyright: ignore

    runs = {
        "l2l cold": [run(10.0, 2.0, test=0.8), run(20.0, 4.0, test=0.7), run(50.0, 1.0)],
        "optuna + torch": [run(20.0, 1.0), run(10.0, 4.0)],  # the third is still to come
    }
    figures = summarise_runs(runs)
    assert figures["l2l cold"]["ratio"] == {"median": 1.25, "all": [2.0, 0.5]}
    assert figures["l2l cold"]["first_ratio"]["all"] == [0.5, 1.0]
    assert figures["l2l cold"]["test"] == {"median": 0.75, "all": [0.8, 0.7]}
    assert "ratio" not in figures["optuna + torch"]
    lines = format_table(figures).splitlines()
    assert lines[2].startswith("| l2l cold | 3 | 20.0 (10.0 to 50.0) | 2.0 (1.0 to 4.0) | 0.9000")
    assert lines[3].startswith("| optuna + torch | 2 | 15.0 (10.0 to 20.0) |")


def test_rows_that_share_a_cache_stay_together() -> None:
    everything = parse_arguments(["mlp"]).rows
    assert list(list_units(JOBS["mlp"], everything)) == [
        "l2l cold", "l2l rungs=asha", "optuna + torch", "optuna + torch, hyperband",
    ]  # fmt: skip
    assert list_units(JOBS["cnn3"], everything)["l2l cold"] == ["l2l cold", "l2l warm", "l2l other seed"]
    assert "l2l rungs=asha" not in list_units(JOBS["cnn3"], everything)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["mlp", "--repeats", "0"], "--repeats 0: expected at least 1."),
        (["mlp", "--rows", "l2l warm"], "need the cache that l2l cold leaves"),
        (["cnn3", "--rows", "l2l rungs=asha"], "cnn3 has none of l2l rungs=asha."),
    ],
)
def test_bad_arguments_are_refused(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(words)
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("name", JOBS)
def test_the_peer_is_told_the_job(name: str) -> None:
    job = first_answer.describe_job(JOBS[name], "hyperband", 3)
    assert json.loads(json.dumps(job))["epochs"] == JOBS[name].epochs
    assert job["test"] is (name != "mixed")
    assert (job["inputs"], job["outputs"], job["seeds"]) == ((8, 8, 1), 10, 3)


def test_the_peer_has_the_tasks_split() -> None:
    from sklearn.datasets import load_digits

    task, images = Digits(), load_digits().images  # pyright: ignore[reportAttributeAccessIssue]
    split = first_answer.find_split(task)
    assert sorted(np.concatenate(list(split.values()))) == list(range(len(images)))
    assert np.array_equal(images[split["test"]][..., None], task.load("test")[0])
