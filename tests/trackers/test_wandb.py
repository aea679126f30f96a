"""Real offline runs, read back from the files that wandb leaves."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from l2l.errors import InputError
from l2l.space import Candidate, Categorical, Real, SearchSpace
from l2l.trackers.background import BackgroundTracker
from l2l.trackers.wandb import Wandb
from l2l.types import Outcome, SearchEnd, SearchInfo, Status, Trial

SPACE = SearchSpace(
    {"width": Categorical(options=(8, 16)), "rate": Real(low=0.0, high=1.0)}, lambda values, spec: None, "tiny"
)
CONFIG = {
    "seed": 3,
    "searcher": {"_target_": "l2l.searchers.Controller", "baseline": 0.9, "layers": [1, 2]},
    "store": {"url": "postgresql://me:hunter2@host/db", "password": "hunter3", "timeout": None},
    "api_key": "hunter4",
    "max_tokens": 7,
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No login, no setting and no folder of the person who runs the tests."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "home"


def run(folder: Path) -> SearchInfo:
    (folder / "best").mkdir(parents=True, exist_ok=True)
    (folder / "best/architecture.json").write_text("{}")
    (folder / "best/weights.safetensors").write_bytes(b"1234")
    return SearchInfo("digits-run", "digits-group", folder, CONFIG, SPACE, 4, "accuracy")


def trial(number: int) -> Trial:
    candidate = Candidate({"width": 8 if number % 2 else "wide", "rate": 0.25 * number})
    where = ((0, 4), (number,))
    if number == 2:
        return Trial(
            number, candidate, *where, Status.FAILED, Outcome({}, {"compile": 2.0}, error="diverged at step 9.")
        )
    if number == 3:
        curve = {"accuracy": [float("nan")]}
        return Trial(number, candidate, *where, Status.PRUNED, Outcome({"accuracy": 0.1}, curve=curve), (0.9,))
    curve = {"accuracy": [0.1, 0.2, 0.3], "train loss": [2.0, 1.0]}
    metrics = {"accuracy": 0.5 + number / 10}
    outcome = Outcome(metrics, {"compile": 1.0, "train": 2.5}, curve)
    return Trial(number, candidate, *where, Status.COMPLETE, outcome, (metrics["accuracy"], -1.0))


END = SearchEnd(
    best={"number": 1, "reward": [0.6], "values": {"width": 8, "rate": 0.25}},
    test={"metric": "accuracy", "mean": 0.58, "std": 0.01},
    seconds={"total": 9.0},
)


def search(tracker: Any, folder: Path, trials: Sequence[int] = range(4), end: Any = END, start: int = 0) -> None:
    tracker.start(run(folder), [trial(number) for number in range(start)])
    for number in trials:
        tracker.tell(trial(number), {"train": 1.0})
    tracker.tell_batch([trial(0), trial(1)], {"entropy": 2.0})
    tracker.tell_batch([trial(2), trial(3)], {"entropy": 1.5})
    tracker.finish(end)


def records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: blocks of 32 KiB, each record in pieces with a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    data, position, whole = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        if kind == 0 or position + 7 + length > len(data):
            break
        piece = data[position + 7 : position + 7 + length]
        whole = piece if kind in (1, 2) else whole + piece
        position += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record


def items(update: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in update}


def read(path: Path) -> dict[str, Any]:
    """One run's file, as what a reader of the run sees."""
    seen: dict[str, Any] = {"history": [], "summary": {}, "artifacts": {}, "config": {}}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            seen |= {"id": record.run.run_id, "name": record.run.display_name, "job_type": record.run.job_type}
            seen |= {"group": record.run.run_group, "project": record.run.project}
            seen["config"] = {key: value for key, value in items(record.run.config.update).items() if key != "_wandb"}
        elif kind == "history":
            point = items(record.history.item)
            seen["history"].append({k: v for k, v in point.items() if k == "_step" or not k.startswith("_")})
        elif kind == "summary":
            seen["summary"] |= items(record.summary.update)
        elif kind == "artifact":
            seen["artifacts"][record.artifact.type] = record.artifact
        elif kind == "exit":
            seen["exit"] = record.exit.exit_code
    return seen


def closed(path: Path) -> dict[str, Any]:
    """A run's file once wandb's own service, a process beside ours, has closed it: some milliseconds later."""
    deadline = time.monotonic() + 30
    while "exit" not in (seen := read(path)):
        assert time.monotonic() < deadline, f"{path} was never closed"
    return seen


def logged(folder: Path) -> dict[str, dict[str, Any]]:
    """All runs of a folder by job or trial name; none may be there twice."""
    runs = [closed(path) for path in (folder / "wandb").glob("offline-run-*/run-*.wandb")]
    by_name = {run["name"]: run for run in runs}
    assert len(by_name) == len(runs)
    return by_name


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one whole search."""
    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder / "home"))
        patch.setenv("NETRC", str(folder / "netrc"))
        search(Wandb(), folder / "run")
    logged(folder / "run")
    return folder / "run"


def test_every_trial_is_a_run_of_its_own(whole: Path) -> None:
    runs = logged(whole)
    assert sorted(runs) == ["digits-run", "trial-0000", "trial-0001", "trial-0002", "trial-0003"]
    for name, run in runs.items():
        assert (run["group"], run["project"]) == ("digits-group", "l2l")
        assert run["job_type"] == ("search" if name == "digits-run" else "trial")
    assert [runs[f"trial-000{number}"]["exit"] for number in range(4)] == [0, 0, 1, 0]


def test_a_trial_has_its_values_its_curve_and_its_end(whole: Path) -> None:
    run = logged(whole)["trial-0001"]
    config = run["config"]
    assert (config["trial"], config["width"], config["rate"]) == (1, 8, 0.25)
    assert (config["search.name"], config["search.space"], config["search.trials"]) == ("digits-run", "tiny", 4)
    assert config["config.seed"] == 3
    assert config["config.searcher._target_"] == "l2l.searchers.Controller"
    assert run["history"] == [
        {"_step": 1, "accuracy": 0.1, "train loss": 2.0},
        {"_step": 2, "accuracy": 0.2, "train loss": 1.0},
        {"_step": 3, "accuracy": 0.3},
    ]
    summary = run["summary"]
    # The final metric, not the last point of the curve.
    assert (summary["accuracy"], summary["reward"], summary["reward.1"]) == (0.6, 0.6, -1.0)
    assert (summary["status"], summary["seconds.train"]) == ("complete", 2.5)
    assert "error" not in summary


def test_failed_and_pruned_trials_are_there_as_well(whole: Path) -> None:
    runs = logged(whole)
    failed = runs["trial-0002"]["summary"]
    assert (failed["status"], failed["error"], failed["seconds.compile"]) == ("failed", "diverged at step 9.", 2.0)
    assert "reward" not in failed
    assert runs["trial-0003"]["summary"]["status"] == "pruned"


def test_secrets_stay_at_home(whole: Path) -> None:
    for run in logged(whole).values():
        assert "hunter" not in json.dumps(run["config"])
        assert run["config"]["config.max_tokens"] == 7
    assert not any(b"hunter" in path.read_bytes() for path in (whole / "wandb").rglob("*") if path.is_file())


def test_the_search_has_its_curves(whole: Path) -> None:
    points = [point for point in logged(whole)["digits-run"]["history"] if "entropy" in point]
    assert points == [
        {"_step": 2, "entropy": 2.0, "best reward": 0.6},
        {"_step": 4, "entropy": 1.5, "best reward": 0.6},
    ]


def test_the_search_has_a_table_of_all_trials(whole: Path) -> None:
    (path,) = (whole / "wandb").glob("offline-run-*-search/files/media/table/*.table.json")
    table = json.loads(path.read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["trial"] for row in rows] == [0, 1, 2, 3]
    assert [row["status"] for row in rows] == ["complete", "complete", "failed", "pruned"]
    assert [row["reward"] for row in rows] == [0.5, 0.6, None, 0.9]
    # One type a column: a choice of numbers and words is words.
    assert [row["width"] for row in rows] == ["wide", "8", "wide", "8"]
    assert [row["rate"] for row in rows] == [0.0, 0.25, 0.5, 0.75]


def test_the_winner_is_an_artifact_with_its_files_beside_the_runs(whole: Path) -> None:
    run = logged(whole)["digits-run"]
    model = run["artifacts"]["model"]
    assert sorted(entry.path for entry in model.manifest.contents) == ["architecture.json", "weights.safetensors"]
    for entry in model.manifest.contents:
        # Where `wandb sync` will look for it.
        assert Path(entry.local_path).is_relative_to(whole / "wandb")
        assert Path(entry.local_path).is_file()
    assert json.loads(model.metadata)["number"] == 1
    assert run["summary"]["best.values.width"] == 8
    assert run["summary"]["test.mean"] == 0.58
    assert run["exit"] == 0


def test_nothing_of_the_machine_is_collected(whole: Path) -> None:
    names = {path.name for path in (whole / "wandb").rglob("*") if path.is_file()}
    assert not names & {"wandb-metadata.json", "requirements.txt", "output.log"}
    assert not [path for path in (whole.parent / "home").rglob("*") if path.is_file()]


def test_wandb_s_own_reader_agrees(whole: Path) -> None:
    (folder,) = (whole / "wandb").glob("offline-run-*-trial-0001")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--summary", "--json", str(folder)]
    environment = {**os.environ, "WANDB_ERROR_REPORTING": "false"}
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stderr
    seen = json.loads(process.stdout)
    assert seen["summary"]["accuracy"] == 0.6
    assert seen["config"]["rate"] == 0.25


def identities(folder: Path) -> dict[str, str]:
    return {name: run["id"] for name, run in logged(folder).items()}


def test_a_resumed_search_logs_what_is_missing_and_nothing_twice(tmp_path: Path) -> None:
    search(Wandb(), tmp_path, trials=range(2), end=None)
    before = {path.name for path in (tmp_path / "wandb").glob("offline-run-*-trial-*")}
    assert logged(tmp_path)["digits-run"]["exit"] == 1
    first = identities(tmp_path)
    # Trial 2 finished while nobody watched, trial 3 comes now.
    search(Wandb(), tmp_path, trials=[3], start=3)
    assert {path.name for path in (tmp_path / "wandb").glob("offline-run-*-trial-*")} > before
    second = identities(tmp_path)
    assert sorted(second) == ["digits-run", "trial-0000", "trial-0001", "trial-0002", "trial-0003"]
    assert first.items() <= second.items()
    assert len(logged(tmp_path)["digits-run"]["history"]) == 3


def test_two_searches_of_one_name_are_not_mixed_up(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        search(Wandb(), tmp_path / folder, trials=[0])
    assert not set(identities(tmp_path / "one").values()) & set(identities(tmp_path / "two").values())


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_wandb import *

class Fatal(list):
    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)

tracker = Wandb()
tracker.start(run(Path(sys.argv[2])), [])
tracker.tell(trial(0), {})
tracker.tell(Trial(1, Candidate({}), (0, 4), (1,), Status.COMPLETE, Outcome(curve={"accuracy": Fatal([1.0])})), {})
"""


def test_what_a_kill_left_half_written_is_written_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path)]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "wandb").glob("offline-run-*-trial-0001"))) == 1
    # The kill came in the middle of a line of the marker, too.
    with (tmp_path / "wandb/logged.txt").open("a") as file:
        file.write("trial-00")
    search(Wandb(), tmp_path, trials=[2], start=2)
    runs = logged(tmp_path)
    assert sorted(runs) == ["digits-run", "trial-0000", "trial-0001", "trial-0002"]
    assert runs["trial-0001"]["summary"]["accuracy"] == 0.6
    assert (tmp_path / "wandb/logged.txt").read_text().split()[1:] == ["trial-0000", "trial-0001", "trial-0002"]


def test_a_folder_that_cannot_be_made_switches_the_tracker_off(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the folder should be")
    lines: list[str] = []
    background = BackgroundTracker(Wandb(), lines.append)
    broken = SearchInfo("run", "group", tmp_path / "run", {}, SPACE, 4, "accuracy")
    background.start(broken, [])
    background.tell(trial(0), {})
    background.finish(END)
    assert len(lines) == 1
    assert "tracker Wandb is switched off: " in lines[0]
    assert not background.is_hanging


def test_it_works_in_a_thread_of_its_own(tmp_path: Path) -> None:
    lines: list[str] = []
    background = BackgroundTracker(Wandb(), lines.append, patience=120.0)
    search(background, tmp_path)
    assert lines == []
    assert len(logged(tmp_path)) == 5


def test_one_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    gate = threading.Event()

    class Stuck(Wandb):
        def start(self, info: SearchInfo, finished: Any) -> None:
            gate.wait()

    background = BackgroundTracker(Stuck(), lambda line: None, capacity=3, patience=0.05)
    search(background, tmp_path)
    assert background.is_hanging
    # Lets it go on and end: `l2l` ends the whole process at once while the thread of a tracker is alive.
    gate.set()
    background._events.put(None)  # pyright: ignore[reportPrivateUsage]
    background._thread.join()  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    ("environment", "argument", "expected"),
    [
        ({}, None, "offline"),
        ({"WANDB_API_KEY": "x"}, None, "online"),
        ({"WANDB_API_KEY": "x", "WANDB_MODE": "offline"}, None, "offline"),
        ({"WANDB_MODE": "offline"}, "disabled", "disabled"),
        ({"WANDB_API_KEY": "x"}, "offline", "offline"),
    ],
)
def test_it_is_online_only_with_a_key_and_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str], argument: str | None, expected: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Wandb(mode=argument)._mode == expected


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (None, "online"),
        ("https://wandb.example.org", "offline"),
        ("https://api.wandb.ai", "online"),
        ("", "online"),
    ],
)
def test_a_login_in_the_netrc_file_is_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str | None, expected: str
) -> None:
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password x\n")
    (tmp_path / "netrc").chmod(0o600)
    if server is not None:
        monkeypatch.setenv("WANDB_BASE_URL", server)
    assert Wandb()._mode == expected


def test_offline_means_that_wandb_reports_nothing_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "")
    monkeypatch.delenv("WANDB_ERROR_REPORTING")
    Wandb()
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"


def test_disabled_leaves_nothing_behind(tmp_path: Path) -> None:
    search(Wandb(mode="disabled"), tmp_path)
    assert not (tmp_path / "wandb").exists()


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'offline'"):
        Wandb(mode="ofline")
