"""Kills at random instants: nothing is lost, doubled or stuck, and every value is the uninterrupted search's."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import kills
import pytest
from forks import Server
from kills import REAL, RUNGS, TOY, Kill, Report, Search, Whole, kill_and_resume, plan_kills, run_whole

IN_A_BATCH = [Kill(after=7, share=0.0, group=True)]
"""While the second of four batches runs: one has been learnt from."""


def toy(folder: Path, server: Server | None, *words: str) -> Search:
    return Search(folder, [*TOY, *words], 24, 6, server)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """What forks the lives that are killed."""
    with closing(Server(kills.environment())) as server:
        yield server


@pytest.fixture(scope="module")
def calm() -> Iterator[Server]:
    """What forks the lives that nothing interrupts: strings have other hashes here than in those that are killed."""
    with closing(Server(kills.environment())) as server:
        yield server


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory, calm: Server) -> Whole:
    """The toy search that nothing interrupts. A fork, which is as fast as those that are killed, and a new process."""
    forked = run_whole(toy(tmp_path_factory.mktemp("forked"), calm))
    new = run_whole(toy(tmp_path_factory.mktemp("new"), None))
    assert kills.compare(Report(), forked.run, new.run).wrong == {}
    return forked


def test_a_killed_search_ends_as_if_nothing_had_happened(tmp_path: Path, server: Server, usual: Whole) -> None:
    report = kill_and_resume(toy(tmp_path, server), usual, plan_kills(6, 24, seed=1))
    assert report.wrong == {}
    assert report.kills == 6
    assert report.in_start == 2


def test_without_replay_the_harness_sees_another_search(tmp_path: Path, server: Server, usual: Whole) -> None:
    report = kill_and_resume(toy(tmp_path, server, kills.FORGETFUL), usual, IN_A_BATCH)
    assert report.differing > 0
    assert (report.lost, report.duplicated, report.stuck) == (0, 0, 0)


def test_without_what_was_running_the_harness_sees_stuck_and_further_trials(
    tmp_path: Path, server: Server, usual: Whole
) -> None:
    report = kill_and_resume(toy(tmp_path, server, kills.CARELESS), usual, IN_A_BATCH)
    assert report.stuck > 0
    assert report.duplicated == report.stuck


def test_a_trial_that_changes_or_goes_is_lost(usual: Whole, tmp_path: Path) -> None:
    report, trials = Report(), kills.read_trials(usual.run)
    ended = {trial[0]: trial for trial in trials}
    kills.count_lost(report, ended, [(*trials[0][:2], [2.0], *trials[0][3:]), *trials[2:]])
    assert report.lost == 2
    report = kills.compare(Report(), tmp_path, usual.run)
    assert report.lost == 24


@pytest.mark.slow
def test_real_trainings_are_killed_too(tmp_path: Path, server: Server, calm: Server) -> None:
    search = Search(tmp_path, [*REAL, "space.depth=[1,1]", "objective.lanes=2"], 8, 4, server)
    usual = run_whole(search._replace(server=calm))
    report = kill_and_resume(search, usual, [Kill(6, 0.2, group=False), Kill(8, 0.5, group=True)])
    assert report.wrong == {}
    assert report.kills == 2
    assert (usual.run / "best" / "weights.safetensors").stat().st_size > 0


def test_a_search_with_rungs_is_killed_too(tmp_path: Path, server: Server, calm: Server) -> None:
    search = Search(tmp_path, RUNGS, 18, 6, server)
    usual = run_whole(search._replace(server=calm))
    assert {trial[1] for trial in kills.read_trials(usual.run)} == {"COMPLETE", "PRUNED", "FAIL"}
    report = kill_and_resume(search, usual, [Kill(3, 0.5, group=True), Kill(10, 0.3, group=False)])
    assert report.wrong == {}
    assert report.kills == 2


@pytest.mark.exact
def test_real_trainings_with_rungs_are_killed_too(tmp_path: Path, server: Server, calm: Server) -> None:
    words = ["space.depth=[1,1]", "objective.epochs=4", "rungs=halving", "rungs.eta=2", "executor.workers=2"]
    search = Search(tmp_path, [*REAL, *words], 4, 4, server)
    usual = run_whole(search._replace(server=calm))
    assert sorted(trial[1] for trial in kills.read_trials(usual.run)) == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED"]
    report = kill_and_resume(search, usual, [Kill(1, 0.0, group=True)])  # at the first rung's border
    assert report.wrong == {}
    assert report.kills == 1
    assert not (search.folder / "killed" / "rungs").exists()


def test_workers_are_killed_and_the_driver_goes_on(tmp_path: Path, server: Server, usual: Whole) -> None:
    report = kills.kill_workers(toy(tmp_path, server), usual, 3, seed=0)
    assert report.wrong == {}
    assert report.kills == 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_workers_of_real_trainings_are_killed(tmp_path: Path) -> None:
    search = Search(tmp_path, REAL, trials=64, batch=8)
    report = kills.kill_workers(search, run_whole(search), 20, seed=0)
    print(report.table())
    assert report.wrong == {}
    assert report.kills == 20


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_kills_of_real_trainings(tmp_path: Path) -> None:
    search = Search(tmp_path, REAL, trials=32, batch=8)
    report = kill_and_resume(search, run_whole(search), plan_kills(20, 32, seed=0))
    print(report.table())
    assert report.wrong == {}
    assert (report.kills, report.in_start) == (20, 5)


@pytest.mark.parametrize(("number", "code", "group"), [(signal.SIGINT, 130, True), (signal.SIGTERM, 143, False)])
def test_an_interrupt_ends_it_in_good_order_and_it_goes_on(
    tmp_path: Path, server: Server, usual: Whole, number: int, code: int, group: bool
) -> None:
    search = toy(tmp_path, server)
    life = search.start("run")
    assert life.wait_until(lambda: life.count_ended() >= 9)
    (os.killpg if group else os.kill)(life.process.pid, number)  # a terminal sends Ctrl-C to the whole group
    assert life.finish() == code
    assert kills.list_members(life.process.pid) == []
    # One sentence, the lock is gone, and the database is whole in one file.
    name = signal.Signals(number).name
    text = f"l2l: interrupted by {name}; nothing is lost: `l2l resume run` continues.\n"
    assert (tmp_path / "run.txt").read_text() == text
    assert {path.name for path in life.run.iterdir()} <= {"study.db", "config.yaml", "log.txt"}
    assert 9 <= sum(trial[1] == "COMPLETE" for trial in kills.read_trials(life.run)) < 24
    assert search.start("run").finish() == 0
    assert kills.compare(Report(), life.run, usual.run).wrong == {}


def test_a_second_driver_is_refused_and_the_first_one_does_not_notice(
    tmp_path: Path, server: Server, usual: Whole
) -> None:
    search = toy(tmp_path, server)
    first = search.start("run")
    assert first.wait_until(first.has_lock)
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
    search = toy(tmp_path, None, f"searcher={searcher}")
    report = kill_and_resume(search, run_whole(search), plan_kills(2, 24, seed=3))
    assert report.wrong == {}
    assert report.kills == 2
