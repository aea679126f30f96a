"""`l2l search`: what it prints and writes, from a single trial to a sweep."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import CUSTOM_SPACE, SMALL, TINY, Run, read_files, refused

from l2l.cli import config


def test_search_help_lists_every_value_of_every_group(run: Run, folder: Path) -> None:
    ended = run("search", "--help")
    assert ended.code == 0
    for group in (path for path in config.find_folder().iterdir() if path.is_dir()):
        assert f"{group.name}: {', '.join(sorted(path.stem for path in group.glob('*.yaml')))}\n" in ended.out
    for name in ("trials: 64", "batch: 8", "_target_: l2l.searchers.Controller"):
        assert name in ended.out
    assert list(folder.iterdir()) == []


def test_the_configuration_is_shown(run: Run, folder: Path) -> None:
    ended = run("search", "--cfg", "job", "searcher=tpe", "trials=3", "space.widths=[8]", "final=null")
    assert ended.code == 0
    shown = yaml.safe_load(ended.out)
    assert (shown["trials"], shown["searcher"]) == (3, {"_target_": "l2l.searchers.Tpe"})
    assert (shown["space"]["widths"], shown["final"]) == ([8], None)
    assert list(folder.iterdir()) == []
    words = ("searcher.update.learning_rate=0.1", "searcher/policy=lstm", "searcher.policy.units=8")
    node = yaml.safe_load(run("search", *words, "--cfg", "job").out)["searcher"]
    assert node["policy"] == {"_target_": "l2l.searchers.controllers.Lstm", "units": 8}
    assert node["update"] == {"_target_": "l2l.searchers.controllers.Reinforce", "learning_rate": 0.1}


def write_images(folder: Path, label: int = 9) -> None:
    """A data set of 40 images of 4x4 pixels in MNIST's four files."""
    folder.mkdir(exist_ok=True)
    for stem, count in (("train", 40), ("t10k", 10)):
        pixels = struct.pack(">4I", 0x803, count, 4, 4) + bytes(range(16)) * count
        labels = struct.pack(">2I", 0x801, count) + bytes(n % 10 for n in range(count - 1)) + bytes([label])
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(pixels)
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(labels)


def damage_file(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "t10k-labels-idx1-ubyte").unlink(), "there is no file t10k-labels-idx1-ubyte"),
        (damage_file("train-images-idx3-ubyte", lambda content: content[:-7]), "train-images-idx3-ubyte: expected"),
        (
            damage_file("train-labels-idx1-ubyte", lambda content: b"\0\0\x08\x03" + content[4:]),
            "train-labels-idx1-ubyte: ",
        ),
        (lambda folder: write_images(folder, label=10), "expected labels from 0 to 9, got 10"),
    ],
)
def test_damaged_data_is_named(run: Run, folder: Path, damage: Callable[[Path], object], words: str) -> None:
    write_images(folder / "data")
    damage(folder / "data")
    before = read_files(folder)
    task = ("task=idx_images", "task.name=tiny", "task.path=data", "task.validation=8")
    assert words in refused(run("search", *TINY, *task, "space.batch_sizes=[8]"))
    assert read_files(folder) == before


def test_a_search_from_start_to_end(run: Run, folder: Path) -> None:
    search = ("search", *TINY, *SMALL, "out=run")
    ended = run(*search, "final.seeds=0")
    assert (ended.code, ended.err) == (0, "")
    names = {name.split("/")[0] for name in read_files(folder / "run")}
    assert names == {"config.yaml", "result.json", "study.db", "trials.csv", "best"}
    record = json.loads((folder / "run/result.json").read_text())
    assert record["trials"] == {"complete": 1, "failed": 0, "pruned": 0}

    # The lines that are printed at the end do what they say.
    report, code = ended.out.split("\n\n")
    assert f"test accuracy {record['test']['trial']:.4f} (trial 0)" in report
    namespace: dict[str, Any] = {"print": lambda scores: namespace.update(scores=scores)}
    exec("\n".join(line.strip() for line in code.splitlines()), namespace)
    assert namespace["scores"]["accuracy"] == record["best"]["metrics"]["accuracy"]

    # Another search is kept off the folder, and nothing in it changes.
    before = read_files(folder)
    sentence = refused(run(*search, "seed=1", "space.widths=[16]", "searcher.update.learning_rate=0.5"))
    for words in (
        "run holds another study: ",
        "searcher.update.learning_rate 0.12 -> 0.5",
        "seed 0 -> 1",
        "[8] -> [16]",
    ):
        assert words in sentence
    assert sentence.endswith("choose another out= or use the old values.")
    assert read_files(folder) == before
    (folder / "file").write_text("x")
    assert "cannot lock file/lock: " in refused(run("search", *TINY, *SMALL, "out=file"))

    # The same one goes on: to more trials, or from the folder alone.
    assert run(*search, "trials=2", "final=null").code == 0
    assert json.loads((folder / "run/result.json").read_text())["trials"]["complete"] == 2
    assert run("resume", "run") == (0, f"results: {folder / 'run'}\n", "")


def test_a_search_in_which_every_trial_fails(run: Run, folder: Path) -> None:
    (folder / "wild.py").write_text(CUSTOM_SPACE)
    ended = run("search", *TINY, "trials=2", "out=run", "space._target_=wild.space", "space.rate=1e38")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("l2l: all 2 trials failed, most often because: diverged: the loss was not finite")
    record = json.loads((folder / "run/result.json").read_text())
    assert (record["best"], record["test"], record["trials"]["failed"]) == (None, None, 2)
    assert not (folder / "run/best").exists()


def test_what_a_crashed_trial_logs_is_seen(run: Run, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "wild.py").write_text(CUSTOM_SPACE.replace("x.reshape(len(x), -1)", "x"))
    ended = run("search", *TINY, "out=run", "space._target_=wild.space")
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert "the only trial failed: crashed: TypeError: " in ended.err
    assert "trials [0] crashed\nTraceback (most recent call last):\n" in caplog.text


def test_limits_from_the_command_line(run: Run, folder: Path) -> None:
    ended = run("search", *TINY, *SMALL, "out=run", "objective.limits.parameters=1e2")
    assert ended.code == 1
    reason = r"l2l: the only trial failed: refused: \d+ parameters, objective.limits.parameters is 100\n"
    assert re.fullmatch(reason, ended.err)
    for words, sentence in {
        "objective.limits.paramters=1": "objective.limits.paramters is unknown: did you mean 'parameters' or "
        "'active_parameters'?",
        "objective.limits.bytes=-1": "objective.limits.bytes must be a number above 0 or null, got -1.",
        "objective.limits.flops=few": "objective.limits.flops must be a number above 0 or null, got 'few'.",
    }.items():
        assert refused(run("search", *TINY, *SMALL, "out=other", words)) == sentence
    assert not (folder / "other").exists()


def test_a_users_own_space_with_arguments(run: Run, folder: Path) -> None:
    (folder / "wild.py").write_text(CUSTOM_SPACE)
    ended = run("search", *TINY, "out=run", "space._target_=wild.space", "space.rate=0.01", "final.seeds=0")
    assert ended.code == 0
    assert "import l2l, l2l.tasks, wild\n" in ended.out
    assert f"l2l.load({str(folder / 'run/best')!r}, space=wild.space(rate=0.01))" in ended.out


def test_a_sweep_shares_a_group_and_survives_a_bad_job(run: Run, folder: Path) -> None:
    ended = run("search", *TINY, "-m", *SMALL, "final=null", "seed=0,1")
    assert (ended.code, ended.err) == (0, "")
    (sweep,) = (folder / "runs").iterdir()
    assert {path.name[1:] for path in sweep.iterdir() if path.is_dir()} == {"-mlp-digits-reinforce"}
    configs = [yaml.safe_load(path.read_text()) for path in sorted(sweep.glob("*/config.yaml"))]
    assert [(plain["seed"], plain["group"]) for plain in configs] == [(0, sweep.name), (1, sweep.name)]
    ended = run("search", "-m", *TINY, *SMALL, "final=null", "hydra.sweep.dir=second", "trials=0,1")
    assert ended.code == 2
    assert ended.err == "l2l: trials must be an integer of at least 1, got 0.\n"
    assert {path.parent.name for path in Path("second").glob("*/result.json")} == {"1-mlp-digits-reinforce"}
