"""`l2l compare` from the command line: searchers with arguments, its output, and one sentence for bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commands import Run, refused

from l2l.testing import make_landscape, write_landscape

TABLE = ("objective=tabular", "objective.path=table.npz", "objective.codes=codes", "objective.reward=reward")
QUICK = (*TABLE, "trials=12", "seeds=3", "workers=0")
CHILD = "import sys\nfrom l2l.cli import main\nmain(sys.argv[1:])"


@pytest.fixture(autouse=True)
def _table(folder: Path) -> None:
    write_landscape(folder / "table.npz", make_landscape(4, 3))


def test_searchers_have_arguments_and_random_search_is_one(run: Run) -> None:
    ended = run(
        "compare", *QUICK, "searcher=['evolution population=4 tournament=2','ppo searcher/policy=lstm']", "out=o"
    )
    assert ended.code == 0, ended
    assert "| evolution population=4 tournament=2 |" in ended.out
    record: dict[str, Any] = json.loads(Path("o/compare.json").read_text())
    assert list(record["rows"]) == ["random", "evolution population=4 tournament=2", "ppo searcher/policy=lstm"]
    assert "population" in json.dumps(record["settings"])
    assert record["command"].startswith("l2l compare objective=tabular ")
    for row in record["rows"].values():
        low, high = row["difference_to_random"]
        assert low <= high
        assert 0 < row["distinct"] <= 12
        assert row["seconds"]["searcher"] > 0
    report = Path("o/compare.md").read_text()
    assert report.count("\n- *") == 16  # every item of the checklist
    assert "core-seconds" in report
    assert "of the space)" in report
    figure = Path("o/compare.svg").read_text()
    assert figure.count("fill-opacity: 0.2") >= 3  # a band for each searcher
    assert "recommended: " in ended.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("seedz=3",), "the key 'seedz' is unknown: did you mean 'seed' or 'seeds'?"),
        (("searcher=[reinforc]",), "searcher has no value 'reinforc': did you mean 'reinforce'"),
        (("searcher=['']",), "searcher has no value '': expected one of "),
        (
            ("searcher.population=10",),
            "searcher.population=10 does not say which searcher it applies to: give a searcher its arguments",
        ),
        (("searcher=['evolution trials=3']",), "the searcher 'evolution trials=3' may have only arguments of its own"),
        (
            ("store=memory",),
            "compare takes no store: it has trials, batch, seeds, seed, workers, out, ",
        ),
        (("seeds=2,3",), "seeds=2,3 gives several values: write a list as KEY=[A,B]."),
        (("seeds=2,3", "-m"), "compare takes no -m: give the searchers as searcher=[NAME,NAME], in one comparison."),
        (
            ("searcher=['evolution pop=3']",),
            "the searcher 'evolution pop=3': searcher.pop is unknown: l2l.",
        ),
        (("searcher=[evolution population=4]",), "special characters in quotes, and those in others for the shell: "),
        (("experiment=nasbench201",), "compare takes no experiment: it has trials, "),
        (("final=null",), "there is no final to leave out here; `l2l compare --help` lists all groups."),
        (("seeds=1",), "seeds must be an integer of at least 2, got 1; one seed says nothing about chance."),
        (("workers=-1",), "workers must be an integer of at least 0 or null, got -1."),
        (("reward.maximise=false",), "a tabular benchmark has its own reward, the column of objective.reward"),
        (("objective.reward=nothing",), "table.npz has no column 'nothing'"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(run: Run, words: tuple[str, ...], sentence: str) -> None:
    refusal = refused(run("compare", *QUICK, "out=o", *words))
    assert sentence in refusal
    assert not Path("o").exists()


def test_a_comparison_that_is_ended_leaves_no_process_behind(folder: Path) -> None:
    words = [*TABLE, "searcher=[tpe]", "trials=2000", "seeds=40", "workers=2", "out=o"]
    with subprocess.Popen([sys.executable, "-c", CHILD, "compare", *words], stderr=subprocess.PIPE, text=True) as child:
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
        until = time.monotonic() + 120
        busy: list[int] = []
        while time.monotonic() < until and len(busy) < 3:  # two workers, and what tracks their resources
            busy = [int(process) for process in children.read_text().split()]
        assert len(busy) >= 3
        child.send_signal(signal.SIGTERM)
        _, message = child.communicate(timeout=60)
    assert child.returncode == 143
    assert "those on a tabular benchmark start again" in message or "no trial was running" in message
    until = time.monotonic() + 20
    while time.monotonic() < until and any(_is_alive(process) for process in busy):
        os.sched_yield()
    assert not any(_is_alive(process) for process in busy)


def _is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
