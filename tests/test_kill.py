"""Kills at random instants: nothing is lost, doubled or stuck, and every value is the uninterrupted search's."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import kills
import pytest
from kills import CARELESS, FORGETFUL, REAL, RUNGS, TOY, Kill, Report, Search, Whole, plan, torment, whole

IN_A_BATCH = [Kill(after=7, share=0.0, group=True)]
"""While the second of four batches runs: one has been learnt from."""


def toy(folder: Path, *words: str) -> Search:
    return Search(folder, [*TOY, *words], trials=24, batch=6)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The toy search that nothing interrupts."""
    return whole(toy(tmp_path_factory.mktemp("usual")))


def test_a_killed_search_ends_as_if_nothing_had_happened(tmp_path: Path, usual: Whole) -> None:
    report = torment(toy(tmp_path), usual, plan(6, 24, seed=1))
    assert report.wrong == {}
    assert report.kills == 6
    assert report.in_start == 2


def test_without_replay_the_harness_sees_another_search(tmp_path: Path, usual: Whole) -> None:
    report = torment(toy(tmp_path, FORGETFUL), usual, IN_A_BATCH)
    assert report.differing > 0
    assert (report.lost, report.duplicated, report.stuck) == (0, 0, 0)


def test_without_what_was_running_the_harness_sees_stuck_and_further_trials(tmp_path: Path, usual: Whole) -> None:
    report = torment(toy(tmp_path, CARELESS), usual, IN_A_BATCH)
    assert report.stuck > 0
    assert report.duplicated == report.stuck


def test_a_trial_that_changes_or_goes_is_lost(usual: Whole, tmp_path: Path) -> None:
    report, found = Report(), kills.rows(usual.run)
    kept = {row[0]: row for row in found}
    kills.note(report, kept, [(*found[0][:2], [2.0], *found[0][3:]), *found[2:]])
    assert report.lost == 2
    report = kills.compare(Report(), tmp_path, usual.run)
    assert report.lost == 24


def test_real_trainings_are_killed_too(tmp_path: Path) -> None:
    search = Search(tmp_path, [*REAL, "space.depth=[1,1]", "objective.lanes=2"], trials=8, batch=4)
    usual = whole(search)
    report = torment(search, usual, [Kill(6, 0.2, group=False), Kill(8, 0.5, group=True)])
    assert report.wrong == {}
    assert report.kills == 2
    assert (usual.run / "best" / "weights.safetensors").stat().st_size > 0


def test_a_search_with_rungs_is_killed_too(tmp_path: Path) -> None:
    search = Search(tmp_path, RUNGS, trials=18, batch=6)
    usual = whole(search)
    assert {row[1] for row in kills.rows(usual.run)} == {"COMPLETE", "PRUNED", "FAIL"}
    report = torment(search, usual, [Kill(3, 0.5, group=True), Kill(10, 0.3, group=False)])
    assert report.wrong == {}
    assert report.kills == 2


def test_real_trainings_with_rungs_are_killed_too(tmp_path: Path) -> None:
    words = ["space.depth=[1,1]", "objective.epochs=4", "rungs=halving", "rungs.eta=2", "executor.workers=2"]
    search = Search(tmp_path, [*REAL, *words], trials=4, batch=4)
    usual = whole(search)
    assert sorted(row[1] for row in kills.rows(usual.run)) == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED"]
    report = torment(search, usual, [Kill(1, 0.0, group=True)])  # at the first rung's border
    assert report.wrong == {}
    assert report.kills == 1
    assert not (search.folder / "killed" / "rungs").exists()


def test_workers_are_killed_and_the_driver_goes_on(tmp_path: Path, usual: Whole) -> None:
    report = kills.torment_workers(toy(tmp_path), usual, 3, seed=0)
    assert report.wrong == {}
    assert report.kills == 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_workers_of_real_trainings_are_killed(tmp_path: Path) -> None:
    search = Search(tmp_path, REAL, trials=64, batch=8)
    report = kills.torment_workers(search, whole(search), 20, seed=0)
    print(report.table())
    assert report.wrong == {}
    assert report.kills == 20


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_kills_of_real_trainings(tmp_path: Path) -> None:
    search = Search(tmp_path, REAL, trials=32, batch=8)
    report = torment(search, whole(search), plan(20, 32, seed=0))
    print(report.table())
    assert report.wrong == {}
    assert (report.kills, report.in_start) == (20, 5)


@pytest.mark.parametrize(("number", "code", "group"), [(signal.SIGINT, 130, True), (signal.SIGTERM, 143, False)])
def test_an_interrupt_ends_it_in_good_order_and_it_goes_on(
    tmp_path: Path, usual: Whole, number: int, code: int, group: bool
) -> None:
    search = toy(tmp_path)
    life = search.start("run")
    assert life.until(lambda: life.ended() >= 9)
    (os.killpg if group else os.kill)(life.process.pid, number)  # a terminal sends Ctrl-C to the whole group
    assert life.finish() == code
    assert kills.members(life.process.pid) == []
    # One sentence, the lock is gone, and the database is whole in one file.
    name = signal.Signals(number).name
    text = f"l2l: interrupted by {name}; nothing is lost: `l2l resume run` continues.\n"
    assert (tmp_path / "run.txt").read_text() == text
    assert {path.name for path in life.run.iterdir()} <= {"study.db", "config.yaml", "log.txt"}
    assert 9 <= sum(row[1] == "COMPLETE" for row in kills.rows(life.run)) < 24
    assert search.start("run").finish() == 0
    assert kills.compare(Report(), life.run, usual.run).wrong == {}


def test_a_second_driver_is_refused_and_the_first_one_does_not_notice(tmp_path: Path, usual: Whole) -> None:
    search = toy(tmp_path)
    first = search.start("run")
    assert first.until(first.inside)
    os.kill(first.process.pid, signal.SIGSTOP)  # or it might have ended before the second one asks
    try:
        assert search.start("run").finish() == 2
    finally:
        os.kill(first.process.pid, signal.SIGCONT)
    assert f"in use by another search (process {first.process.pid})" in (tmp_path / "run.txt").read_text()
    assert first.finish() == 0
    assert kills.compare(Report(), first.run, usual.run).wrong == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "searcher",
    [
        "gp_critic",
        "reinforce",
        "reinforce_lstm",
        "zoph2017",
        "ppo",
        "ppo_transformer",
        "predictor",
        "local",
        "evolution",
    ],
)
def test_every_controller_goes_on_as_if_nothing_had_happened(tmp_path: Path, searcher: str) -> None:
    search = toy(tmp_path, f"searcher={searcher}")
    report = torment(search, whole(search), plan(2, 24, seed=3))
    assert report.wrong == {}
    assert report.kills == 2
