"""The command line: what it prints, where it writes, and one sentence and exit code 2 for every bad input."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import Run, refused

import l2l
from l2l.cli import config, entry

TINY = ("executor=inline", "tracker=none", "trials=1", "batch=1", "objective.epochs=1")
SMALL = ("space.depth=[1,1]", "space.widths=[8]", "space.batch_sizes=[128]")
CHILD = """
import sys
from l2l.cli import main
main(["--help"])
print([name for name in ("jax", "hydra", "optuna", "wandb", "numpy", "flax", "rich", "yaml") if name in sys.modules])
"""
WILD = """
import optax
from flax import nnx
from l2l.space import Categorical, Real, SearchSpace
from l2l.types import Learner


class Flat(nnx.Module):
    def __init__(self, spec, rngs):
        self.head = nnx.Linear(64, spec.outputs, rngs=rngs)

    def __call__(self, x):
        return self.head(x.reshape(len(x), -1))


def build(values, spec):
    return Learner(lambda rngs: Flat(spec, rngs), optax.sgd(values["learning_rate"]), batch_size=128)


def space(rate: float = 0.1, batch: int = 128):
    if batch == 13:
        raise ValueError("thirteen is unlucky")
    return SearchSpace({"learning_rate": Real(low=rate, high=rate)}, build, "wild")
"""


def contents(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}


def test_help_and_version_need_nothing(run: Run) -> None:
    for words in ((), ("--help",), ("-h",), ("help",)):
        ended = run(*words)
        assert (ended.code, ended.out, ended.err) == (0, entry.HELP, "")
    assert run("--version") == (0, f"l2l {l2l.__version__}\n", "")
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_search_help_lists_every_value_of_every_group(run: Run, folder: Path) -> None:
    ended = run("search", "--help")
    assert ended.code == 0
    for place in (path for path in config.find_folder().iterdir() if path.is_dir()):
        assert f"{place.name}: {', '.join(sorted(path.stem for path in place.glob('*.yaml')))}\n" in ended.out
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


BAD = {
    "serch": "there is no command 'serch': did you mean 'search'?",
    "search trails=3": "the key 'trails' is unknown: did you mean 'trials' or 'task'?",
    "search +trails=3": "the key 'trails' is unknown: did you mean 'trials' or 'task'?",
    "search searcher=reinforc": "searcher has no value 'reinforc': did you mean 'reinforce' or 'reinforce_lstm' or "
    "'reinforce_nb201'?",
    "search searcher.learningrate=3": "searcher.learningrate is unknown: l2l.searchers.Controller does not "
    "take it; did you mean 'update.learning_rate'?",
    "search searcher/policy=lst": "searcher/policy has no value 'lst': did you mean 'lstm'?",
    "search searcher=random searcher/policy=lstm": "this searcher has no group 'policy' to choose from; `l2l search "
    "--help` lists all groups.",
    "search searcher.policy.units=3": "searcher.policy.units is unknown: l2l.searchers.controllers.Factorised does not "
    "take it; expected one of 'temperature'.",
    "search trials=many": "trials=many does not fit: Value 'many' of type 'str' could not be converted to Integer.",
    "search trials=0": "trials must be a whole number of at least 1, got 0.",
    "search trials=1,2": "trials=1,2 gives several values: add -m to sweep over them, or write a list as KEY=[A,B].",
    "search trials": "an override could not be read (Error parsing override 'trials', missing EQUAL at '<EOF>'): "
    "expected GROUP=NAME or KEY=VALUE, special characters in quotes.",
    "search final=3": "final takes no such value: give final=NAME or final.ARGUMENT=VALUE.",
    "search space={a:1}": "space takes no such value: give space=NAME or space.ARGUMENT=VALUE.",
    "search space=null": "space names no _target_; choose one of the group's values: space=NAME.",
    "search final=null final.seeds=3": "final.seeds=3 has nothing to change: final=null leaves that part out.",
    "search rungs.eta=3": "rungs.eta=3 has nothing to change: there is no rungs here; choose one with rungs=NAME.",
    "search ~final final.seeds=3": "final.seeds=3 has nothing to change: there is no final here; choose one with "
    "final=NAME.",
    "search space._target_=nowhere.space": "space._target_ names 'nowhere.space', which cannot be imported (No module "
    "named 'nowhere'); expected the dotted path of a class or function that Python finds from this folder.",
    "search space.depth=[3,1]": "depth must be [low, high] with 1 <= low <= high, got [3, 1].",
    "search space.widths=8": "space.widths must be a list, each entry an integer, got 8.",
    "search space.activations=[rulu]": "activation 'rulu' is unknown: did you mean 'relu' or 'elu' or 'silu'?",
    "search executor=local executor.workers=0": "executor.workers must be an integer of at least 1 or null, got 0.",
    "search space.batch_sizes=[5000]": "a batch_size of 5000 cannot be taken from the 1077 examples of the training "
    "split of 'digits'; leave it out of the space.",
    "search space._target_=wild.space space.batch=13": "wild.space could not be called: ValueError: thirteen "
    "is unlucky.",
    "resume": "resume takes one run folder: l2l resume RUN.",
    "resume nowhere trials=9": "resume takes one run folder: l2l resume RUN. For more trials give the search's own "
    "command again, with trials=N and out=RUN.",
    "resume nowhere": "nowhere/config.yaml is missing: expected the folder of a search that `l2l search` began; a "
    "search that was begun in Python continues with the same call of l2l.search(..., out=RUN).",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_sentence(run: Run, folder: Path, words: str) -> None:
    (folder / "wild.py").write_text(WILD)
    before = contents(folder)
    command, *overrides = words.split()
    assert refused(run(command, *(("executor=inline",) if command == "search" else ()), *overrides)) == BAD[words]
    assert {name: each for name, each in contents(folder).items() if "__pycache__" not in name} == before
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is not YAML"),
        ("- a", "is not the configuration of a search"),
        ("_target_: os.system", "is not the configuration of a search"),
        ("_target_: l2l.search", "objective names no _target_"),
        ("_target_: l2l.search\nfoo: 3", "the key 'foo' is unknown: "),
    ],
)
def test_a_folder_that_cannot_be_resumed(run: Run, folder: Path, text: str, words: str) -> None:
    (folder / "config.yaml").write_text(text)
    assert words in refused(run("resume", "."))
    assert contents(folder) == {"config.yaml": text.encode()}


def images(place: Path, label: int = 9) -> None:
    """A data set of 40 images of 4x4 pixels in MNIST's four files."""
    place.mkdir(exist_ok=True)
    for stem, count in (("train", 40), ("t10k", 10)):
        pixels = struct.pack(">4I", 0x803, count, 4, 4) + bytes(range(16)) * count
        labels = struct.pack(">2I", 0x801, count) + bytes(n % 10 for n in range(count - 1)) + bytes([label])
        (place / f"{stem}-images-idx3-ubyte").write_bytes(pixels)
        (place / f"{stem}-labels-idx1-ubyte").write_bytes(labels)


def spoil(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda place: (place / name).write_bytes(change((place / name).read_bytes()))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda place: (place / "t10k-labels-idx1-ubyte").unlink(), "there is no file t10k-labels-idx1-ubyte"),
        (spoil("train-images-idx3-ubyte", lambda content: content[:-7]), "train-images-idx3-ubyte: expected"),
        (spoil("train-labels-idx1-ubyte", lambda content: b"\0\0\x08\x03" + content[4:]), "train-labels-idx1-ubyte: "),
        (lambda place: images(place, label=10), "expected labels from 0 to 9, got 10"),
    ],
)
def test_damaged_data_is_named(run: Run, folder: Path, damage: Callable[[Path], object], words: str) -> None:
    images(folder / "data")
    damage(folder / "data")
    before = contents(folder)
    task = ("task=idx_images", "task.name=tiny", "task.path=data", "task.validation=8")
    assert words in refused(run("search", *TINY, *task, "space.batch_sizes=[8]"))
    assert contents(folder) == before


def test_a_search_from_start_to_end(run: Run, folder: Path) -> None:
    search = ("search", *TINY, *SMALL, "out=run")
    ended = run(*search, "final.seeds=0")
    assert (ended.code, ended.err) == (0, "")
    found = {name.split("/")[0] for name in contents(folder / "run")}
    assert found == {"config.yaml", "result.json", "study.db", "trials.csv", "best"}
    record = json.loads((folder / "run/result.json").read_text())
    assert record["trials"] == {"complete": 1, "failed": 0, "pruned": 0}

    # The lines that are printed at the end do what they say.
    shown, told = ended.out.split("\n\n")
    assert f"test accuracy {record['test']['trial']:.4f} (trial 0)" in shown
    namespace: dict[str, Any] = {"print": lambda scores: namespace.update(scores=scores)}
    exec("\n".join(line.strip() for line in told.splitlines()), namespace)
    assert namespace["scores"]["accuracy"] == record["best"]["metrics"]["accuracy"]

    # Another search is kept off the folder, and nothing in it changes.
    before = contents(folder)
    sentence = refused(run(*search, "seed=1", "space.widths=[16]", "searcher.update.learning_rate=0.5"))
    for words in (
        "run holds another study: ",
        "searcher.update.learning_rate 0.12 -> 0.5",
        "seed 0 -> 1",
        "[8] -> [16]",
    ):
        assert words in sentence
    assert sentence.endswith("choose another out= or give the old values.")
    assert contents(folder) == before
    (folder / "file").write_text("x")
    assert "cannot lock file/lock: " in refused(run("search", *TINY, *SMALL, "out=file"))

    # The same one goes on: to more trials, or from the folder alone.
    assert run(*search, "trials=2", "final=null").code == 0
    assert json.loads((folder / "run/result.json").read_text())["trials"]["complete"] == 2
    assert run("resume", "run") == (0, f"results: {folder / 'run'}\n", "")


def test_a_search_in_which_every_trial_fails(run: Run, folder: Path) -> None:
    (folder / "wild.py").write_text(WILD)
    ended = run("search", *TINY, "trials=2", "out=run", "space._target_=wild.space", "space.rate=1e38")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("l2l: all 2 trials failed, most often because: diverged: the loss was not finite")
    record = json.loads((folder / "run/result.json").read_text())
    assert (record["best"], record["test"], record["trials"]["failed"]) == (None, None, 2)
    assert not (folder / "run/best").exists()


def test_what_a_crashed_trial_logs_is_seen(run: Run, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "wild.py").write_text(WILD.replace("x.reshape(len(x), -1)", "x"))
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
    (folder / "wild.py").write_text(WILD)
    ended = run("search", *TINY, "out=run", "space._target_=wild.space", "space.rate=0.01", "final.seeds=0")
    assert ended.code == 0
    assert "import l2l, l2l.tasks, wild\n" in ended.out
    assert f"l2l.load({str(folder / 'run/best')!r}, space=wild.space(rate=0.01))" in ended.out


def test_a_sweep_shares_a_group_and_survives_a_bad_job(run: Run, folder: Path) -> None:
    ended = run("search", *TINY, "-m", *SMALL, "final=null", "seed=0,1")
    assert (ended.code, ended.err) == (0, "")
    (sweep,) = (folder / "runs").iterdir()
    assert {path.name[1:] for path in sweep.iterdir() if path.is_dir()} == {"-mlp-digits-reinforce"}
    found = [yaml.safe_load(path.read_text()) for path in sorted(sweep.glob("*/config.yaml"))]
    assert [(each["seed"], each["group"]) for each in found] == [(0, sweep.name), (1, sweep.name)]
    ended = run("search", "-m", *TINY, *SMALL, "final=null", "hydra.sweep.dir=second", "trials=0,1")
    assert ended.code == 2
    assert ended.err == "l2l: trials must be a whole number of at least 1, got 0.\n"
    assert {path.parent.name for path in Path("second").glob("*/result.json")} == {"1-mlp-digits-reinforce"}


def test_the_installed_command(folder: Path) -> None:
    script = Path(sys.executable).with_name("l2l")
    done = subprocess.run([script, "serch"], capture_output=True, text=True, env=dict(os.environ))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "l2l: there is no command 'serch': did you mean 'search'?\n"
