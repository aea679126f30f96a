"""The store: its contract on both storages, what Optuna sees, and what it refuses."""

from __future__ import annotations

import os
import random
import sqlite3
import string
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l.errors import InputError, SearchError
from l2l.space import Candidate, Categorical, Integer, Real, SearchSpace
from l2l.store import optuna_tables
from l2l.store.optuna_store import OptunaStore
from l2l.testing.stores import SPACE, StoreContract, complete_trial, describe_bits, point
from l2l.types import Outcome, Status


class TestSQLite(StoreContract):
    def store(self, folder: Path) -> OptunaStore:
        return OptunaStore()


class TestSQLiteByAddress(StoreContract):
    def store(self, folder: Path) -> OptunaStore:
        return OptunaStore(f"sqlite:///{folder}/shared.db")


class TestMemory(StoreContract):
    survives = False

    def store(self, folder: Path) -> OptunaStore:
        return OptunaStore("memory")

    def test_there_is_no_file(self, tmp_path: Path) -> None:
        with self.attach(tmp_path):
            assert list(tmp_path.iterdir()) == []


def folder_state(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fill(run: Path, settings: dict[str, Any] | None = None) -> None:
    with OptunaStore().attach(run, SPACE, settings or {"seed": 0}) as log:
        for trial in log.open([point(True, i) for i in range(3)]):
            log.close(complete_trial(trial, trial.number / 3))


_scalars = st.one_of(
    st.booleans(),
    st.none(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8"), max_size=5),
)
_ends = st.tuples(*[st.floats(-1e9, 1e9)] * 2).map(sorted)
_positive = st.tuples(*[st.floats(1e-9, 1e9)] * 2).map(sorted)
_choices = st.one_of(
    st.lists(_scalars, min_size=1, max_size=5, unique_by=repr).map(lambda options: Categorical(options=tuple(options))),
    st.builds(lambda low, n, step: Integer(low=low, high=low + n, step=step), *[st.integers(1, 1 << 62)] * 3),
    st.builds(lambda low, n: Integer(low=low, high=low + n, log=True), *[st.integers(1, 1 << 62)] * 2),
    _ends.map(lambda ends: Real(low=ends[0], high=ends[1])),
    _positive.map(lambda ends: Real(low=ends[0], high=ends[1], log=True)),
)
_names = st.text(string.printable + "äß{}%", min_size=1, max_size=8)


@settings(max_examples=15, deadline=None)
@given(choices=st.dictionaries(_names, _choices, min_size=1, max_size=6), metadata=st.dictionaries(_names, _scalars))
def test_any_space_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, choices: dict[str, Any], metadata: dict[str, Any]
) -> None:
    space = SearchSpace(choices, build=lambda values, spec: None)
    candidates = [space.sample(random.Random(seed)) for seed in range(3)]
    folder = tmp_path_factory.mktemp("any")
    with OptunaStore().attach(folder, space, {}) as log:
        opened = log.open([Candidate(candidate.values, metadata) for candidate in candidates])
        for trial, candidate in zip(opened, candidates, strict=True):
            assert repr(trial.candidate.values) == repr(candidate.values)
    with OptunaStore().attach(folder, space, {}) as log:
        assert [describe_bits(trial) for trial in log.list_running()] == [describe_bits(trial) for trial in opened]


def test_optuna_and_its_dashboard_open_the_study(tmp_path: Path) -> None:
    fill(tmp_path)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/study.db")
    assert [trial.value for trial in study.trials] == [0.0, 1 / 3, 2 / 3]
    assert study.best_trial.params["rate"] == 1e-5 * 3 / 0.7
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert study.best_trial.user_attrs["outcome"]["metrics"]["loss"] == "inf"
    study._storage.remove_session()
    study._storage._backend.engine.dispose()  # pyright: ignore


def test_while_it_is_open_others_can_read_it(tmp_path: Path) -> None:
    with OptunaStore().attach(tmp_path, SPACE, {}) as log:
        log.open([point(True)])
        reader = sqlite3.connect(tmp_path / "study.db")
        reader.execute("begin")
        assert reader.execute("select count(*) from trials").fetchone() == (1,)
        log.close(complete_trial(log.list_running()[0], 0.5))  # does not wait for the reader
        reader.close()
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    # Afterwards a run folder holds the one file.
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]


@pytest.mark.parametrize("name", ["a{b}", "100% äß?x=1#y", "with space"])
def test_the_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    fill(tmp_path / name / "run")
    with OptunaStore().attach(tmp_path / name / "run", SPACE, {"seed": 0}) as log:
        assert log.count() == 3


def test_an_argument_that_came_later_and_is_not_given_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "run")
    with OptunaStore().attach(tmp_path / "run", SPACE, {"seed": 0, "later": None}) as log:
        assert log.count() == 3


def test_another_search_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    old = {"seed": 0, "searcher.entropy": 0.01, "task": "digits", "layers": [1, 2], "gone": "x"}
    new = {"seed": 0, "searcher.entropy": 0.1, "task": "text", "layers": [1, 2], "new": 1, "later": None}
    fill(tmp_path, old)
    before = folder_state(tmp_path)
    with pytest.raises(InputError) as refused, OptunaStore().attach(tmp_path, SPACE, new):
        pass
    assert str(refused.value) == (
        f"{tmp_path} holds another study: searcher.entropy 0.01 -> 0.1, task digits -> text, gone x -> absent, "
        "new absent -> 1; choose another out= or use the old values."
    )
    for changed, words in (
        ({"every": Integer(low=-4, high=11)}, "choices.every.step 5 -> 1"),
        ({"more": Real(low=0, high=1)}, "choices "),
    ):
        other = replace(SPACE, choices={**SPACE.choices, **changed})
        with pytest.raises(InputError, match=words), OptunaStore().attach(tmp_path, other, old):
            pass
    with pytest.raises(InputError, match="objectives 1 -> 2"), OptunaStore().attach(tmp_path, SPACE, old, objectives=2):
        pass
    assert folder_state(tmp_path) == before


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("""update study_user_attributes set value_json = json_set(value_json, '$.format', 3)""")
    connection.close()
    before = folder_state(tmp_path)
    with pytest.raises(InputError, match=r"newer l2l \(format 3"), OptunaStore().attach(tmp_path, SPACE, {"seed": 0}):
        pass
    assert folder_state(tmp_path) == before


def _garbage(path: Path) -> None:
    path.write_bytes(b"not a database at all, but long enough to have a header of its own" * 9)


def _cut(path: Path) -> None:
    fill(path.parent)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 - 100])


def _other(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("create table recipes (name text)")
    connection.close()


def _folder(path: Path) -> None:
    path.mkdir()


def _by_hand(path: Path) -> None:
    fill(path.parent)
    with sqlite3.connect(path) as connection:
        connection.execute("update trials set number = 7 where number = 1")
    connection.close()


def _by_optuna(path: Path) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    optuna.create_study(storage=storage).optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    storage.remove_session()
    storage.engine.dispose()


@pytest.mark.parametrize("make", [_garbage, _cut, _other, _folder, _by_hand, _by_optuna])
def test_what_is_no_study_of_ours_is_refused_and_kept(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "study.db")
    before = folder_state(tmp_path)
    with pytest.raises(InputError) as refused, OptunaStore().attach(tmp_path, SPACE, {"seed": 0}):
        pass
    assert "\n" not in str(refused.value)
    assert "study.db" in str(refused.value) or str(tmp_path) in str(refused.value)
    assert folder_state(tmp_path) == before


def test_an_empty_file_is_a_new_study(tmp_path: Path) -> None:
    (tmp_path / "study.db").touch()
    fill(tmp_path)
    with OptunaStore().attach(tmp_path, SPACE, {"seed": 0}) as log:
        assert [trial.status for trial in log.trials()] == [Status.COMPLETE] * 3


@pytest.mark.parametrize(
    "url",
    ["journal.log", "journal:///x.log", "redis://localhost", "study.db", "", 7, "sqlite://", "sqlite:///:memory:"],
)
def test_an_address_that_is_none_is_refused(url: Any) -> None:
    with pytest.raises(InputError, match=r"store\.url"):
        OptunaStore(url)


def test_a_server_out_of_reach_is_refused_without_a_trace(tmp_path: Path) -> None:
    store = OptunaStore("postgresql+psycopg://user:secret@127.0.0.1:1/none?connect_timeout=1")
    with pytest.raises(InputError) as refused, store.attach(tmp_path / "a" / "b", SPACE, {}):
        pass
    assert "secret" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_studies_of_one_database_are_told_apart_by_name(tmp_path: Path) -> None:
    store = OptunaStore(f"sqlite:///{tmp_path}/all.db")
    for name in ("one", "two"):
        with store.attach(tmp_path / name, SPACE, {"name": name}, name=name) as log:
            log.open([point(True)])
    with store.attach(tmp_path / "one", SPACE, {"name": "one"}, name="one") as log:
        assert len(log.list_running()) == 1
        with (
            pytest.raises(InputError, match="in use"),
            store.attach(tmp_path / "two", SPACE, {"name": "two"}, name="two"),
        ):
            pass


def test_a_failing_disk_ends_the_search_with_a_sentence(tmp_path: Path) -> None:
    fill(tmp_path)
    with OptunaStore().attach(tmp_path, SPACE, {"seed": 0}) as log:
        (trial,) = log.open([point(True)])
        with sqlite3.connect(tmp_path / "study.db") as vandal:
            vandal.execute("drop table trial_values")
        vandal.close()
        with pytest.raises(SearchError, match="same command continues"):
            log.close(complete_trial(trial, 0.5))
        assert log.list_running() == [trial]


def test_a_half_opened_batch_is_finished_by_the_same_question(tmp_path: Path) -> None:
    candidates, cohorts = [point(True, i) for i in range(3)], [(1, 2, 3)] * 3
    with OptunaStore().attach(tmp_path, SPACE, {}) as log:
        log.close(complete_trial(log.open([point(False)])[0], 1.0))
        with sqlite3.connect(tmp_path / "study.db") as connection:
            connection.execute(
                "create trigger full before insert on trials when (select count(*) from trials) = 3 "
                "begin select raise(abort, 'no space'); end"
            )
        with pytest.raises(SearchError, match="no space"):
            log.open(candidates, cohorts)
        assert len(log.trials()) == 1
        with connection:
            connection.execute("drop trigger full")
    with OptunaStore().attach(tmp_path, SPACE, {}) as log:
        # All or nothing; a batch of which some are there was cut by other hands.
        assert len(log.trials()) == 1
        log.open(candidates, cohorts)
        with connection:
            for table in ("trial_params", "trial_user_attributes", "trials"):
                connection.execute(f"delete from {table} where trial_id = 4")
        connection.close()
    with OptunaStore().attach(tmp_path, SPACE, {}) as log:
        assert len(log.trials()) == 3
        # There is nothing to run before the batch is whole, whatever size is wished for now.
        assert (log.list_running(), log.next_batch(9)) == ([], (1, 3))
        with pytest.raises(InputError, match="proposed for trial 1"):
            log.open([point(False, i) for i in range(3)])
        with pytest.raises(ValueError, match="3 candidates"):
            log.open(candidates[:2])
        assert len(log.trials()) == 3
        opened = log.open(candidates, cohorts)
        assert [trial.number for trial in opened] == [1, 2, 3]
        assert log.list_running() == opened
    with OptunaStore().attach(tmp_path, SPACE, {}) as log:
        assert [describe_bits(trial) for trial in log.list_running()] == [describe_bits(trial) for trial in opened]


def test_an_outcome_without_an_end_is_not_read(tmp_path: Path) -> None:
    with OptunaStore().attach(tmp_path, SPACE, {}) as log:
        (trial,) = log.open([point(True)])
        log._storage.set_trial_user_attr(log._ids[0], "outcome", {"torn": 1})  # pyright: ignore
    with OptunaStore().attach(tmp_path, SPACE, {}) as log:
        assert log.list_running()[0].outcome is None
        failed = log.close(replace(trial, status=Status.FAILED, outcome=Outcome(error="again")))
    with OptunaStore().attach(tmp_path, SPACE, {}) as log:
        assert log.trials() == [failed]


def test_what_begins_a_study_is_called_once_by_the_one_that_holds_the_lock(tmp_path: Path) -> None:
    called: list[set[str]] = []

    def begin() -> None:
        called.append({path.name for path in (tmp_path / "run").iterdir()})
        (tmp_path / "run" / "config.yaml").write_text("first")

    def late() -> None:
        raise AssertionError("not the one that made it")

    with OptunaStore().attach(tmp_path / "run", SPACE, {"seed": 0}, begin=begin):
        with pytest.raises(InputError, match="in use"), OptunaStore().attach(tmp_path / "run", SPACE, {}, begin=late):
            pass
        assert (tmp_path / "run" / "config.yaml").read_text() == "first"
    assert called == [{"lock"}]
    with OptunaStore().attach(tmp_path / "run", SPACE, {"seed": 0}, begin=late):
        pass


def test_what_refuses_to_begin_leaves_nothing(tmp_path: Path) -> None:
    def refuse() -> None:
        raise InputError("no.")

    for url in (None, f"sqlite:///{tmp_path}/shared.db"):
        with pytest.raises(InputError, match="no"), OptunaStore(url).attach(tmp_path / "run", SPACE, {}, begin=refuse):
            pass
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "UTC"])
def test_the_tables_hold_what_optunas_own_calls_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        written: list[list[optuna.trial.FrozenTrial]] = []
        for name, schemas in (("tables", optuna_tables.SCHEMAS), ("calls", ())):
            monkeypatch.setattr(optuna_tables, "SCHEMAS", schemas)
            before = datetime.now()
            with OptunaStore().attach(tmp_path / name, SPACE, {"seed": 0}) as log:
                going, complete, failed = log.open([point(True, 0), point(None, 1), point(False, 2)])
                log.reach(replace(going, outcome=Outcome({"accuracy": 0.5}), scores={1: (0.5,), 3: (0.25,)}))
                log.close(complete_trial(complete, 0.5))
                log.close(replace(failed, status=Status.FAILED, outcome=Outcome(error="gone")))
            study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / name}/study.db")
            written.append(study.trials)
            for trial in study.trials:
                assert trial.datetime_start is not None
                assert before <= trial.datetime_start <= (trial.datetime_complete or datetime.now()) <= datetime.now()
    finally:
        monkeypatch.undo()
        time.tzset()
    for trial, optuna_trial in zip(*written, strict=True):
        trial.datetime_start, trial.datetime_complete = optuna_trial.datetime_start, optuna_trial.datetime_complete
        assert trial == optuna_trial
