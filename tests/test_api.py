"""The public names, and the search without Hydra: what the command takes by default, and what it does with failures."""

from __future__ import annotations

import inspect
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import optax
import pytest
import yaml
from flax import nnx

import l2l
from l2l import api
from l2l.cli import config
from l2l.executors.inline import Inline
from l2l.reward import Metric
from l2l.run.result import TestScores, TrialCounts
from l2l.run.setup import SearchSetup
from l2l.searchers.random_search import Random
from l2l.space import Candidate, Categorical, SearchSpace
from l2l.store.fingerprint import find_public_name
from l2l.store.optuna_store import OptunaStore
from l2l.tasks.digits import Digits
from l2l.types import Learner, Outcome, Spec, Status, Trial

TASK = Digits(epochs=1)
OPTIONS: dict[str, Any] = {"executor": Inline(), "tracker": {}, "final": None}


class Flat(nnx.Module):
    """A linear model."""

    def __init__(self, spec: Spec, rngs: nnx.Rngs) -> None:
        self.head = nnx.Linear(64, spec.outputs, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.head(x.reshape(len(x), -1))


def build(values: Mapping[str, Any], spec: Spec) -> Learner:
    return Learner(lambda rngs: Flat(spec, rngs), optax.sgd(values["rate"]), batch_size=128)


SPACE = SearchSpace({"rate": Categorical(options=(0.1, 1e38), traced=True)}, build, "flat")


@dataclass(frozen=True)
class Watched(Random):
    """Random search that keeps what it is told."""

    trials: list[Trial] = field(default_factory=list[Trial], compare=False)

    def ask(self, state: Any, key: Any, count: int) -> Sequence[Candidate]:
        return [SPACE.candidate({"rate": rate}) for rate in (1e38, 0.1, 1e38, 0.1)][:count]

    def tell(self, state: Any, trials: Sequence[Trial]) -> Any:
        self.trials.extend(trials)
        return super().tell(state, trials)


def test_there_are_at_most_twenty_public_names() -> None:
    assert len(l2l.__all__) <= 20
    assert set(dir(l2l)) == {*l2l.__all__, "__version__"}
    for name in l2l.__all__:
        public = getattr(l2l, name)
        assert public.__name__ == name
        assert public.__doc__
    assert not hasattr(l2l, "Study")
    with pytest.raises(AttributeError, match="module 'l2l' has no attribute 'serach'"):
        l2l.serach  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_the_package_imports_nothing_until_it_is_used() -> None:
    program = "import sys; before = set(sys.modules); import l2l; print(sorted(set(sys.modules) - before - {'l2l'}))"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {name.split(".")[0] for name in eval(process.stdout)} <= {"l2l", *sys.stdlib_module_names}
    assert {name for name in eval(process.stdout) if name.startswith("l2l.")} <= {"l2l.lazy"}


def test_the_function_is_the_command_without_hydra(monkeypatch: pytest.MonkeyPatch) -> None:
    setups: list[SearchSetup] = []
    monkeypatch.setattr(api, "run_search", setups.append)
    l2l.search(SPACE)
    arguments = vars(setups[0])
    assert set(arguments) == set(inspect.signature(api.search).parameters)
    schema = config.SearchConfig()
    for name in ("trials", "batch", "seed", "out", "group"):
        assert arguments[name] == getattr(schema, name)
    chosen = {
        group: yaml.safe_load((config.find_folder() / group / f"{name}.yaml").read_text())
        for entry in yaml.safe_load((config.find_folder() / "search.yaml").read_text())["defaults"]
        if isinstance(entry, dict)
        for group, name in entry.items()
        if group in config.GROUPS
    }
    assert set(chosen) == set(config.GROUPS)
    assert chosen["rungs"] == {"rungs": None}
    assert arguments["rungs"] is None
    for group in set(chosen) - {"space", "tracker", "rungs"}:
        part = arguments[group] if inspect.isclass(arguments[group]) else type(arguments[group])
        assert find_public_name(part) == chosen[group]["_target_"]
    assert {name: type(tracker).__name__ for name, tracker in arguments["tracker"].items()} == {
        name: node["_target_"].rsplit(".", 1)[1] for name, node in chosen["tracker"].items()
    }


def test_a_run_that_diverges_fails_and_nobody_learns_from_it(tmp_path: Path) -> None:
    watched = Watched()
    result = l2l.search(SPACE, TASK, watched, trials=4, batch=4, out=tmp_path / "run", **OPTIONS)
    assert [trial.status for trial in result.trials] == [Status.FAILED, Status.COMPLETE] * 2
    trials = watched.trials[-4:]  # after what a search rehearses before it begins
    assert trials == list(result.trials)
    for trial in trials:
        assert trial.outcome is not None
        if trial.status is Status.FAILED:
            assert trial.reward is None
            assert str(trial.outcome.error).startswith("diverged: the loss was not finite at step ")
        else:
            assert trial.reward is not None
            assert all(map(math.isfinite, trial.reward))
    assert result.best is not None
    assert result.best.candidate.values == {"rate": 0.1}
    record = json.loads((tmp_path / "run/result.json").read_text())
    assert record["trials"] == {"complete": 2, "failed": 2, "pruned": 0}
    assert record["test"] is None
    assert len((tmp_path / "run/trials.csv").read_text().splitlines()) == 5


def test_a_search_without_a_success_says_why(tmp_path: Path) -> None:
    space = SearchSpace({"rate": Categorical(options=(1e38,), traced=True)}, build, "flat")
    reason = "^all 2 trials failed, most often because: diverged: the loss was not finite"
    with pytest.raises(l2l.SearchError, match=reason):
        l2l.search(space, TASK, Random(), trials=2, batch=2, out=tmp_path / "run", **OPTIONS)
    assert json.loads((tmp_path / "run/result.json").read_text())["best"] is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trials": 0}, "trials must be an integer of at least 1, got 0."),
        ({"batch": True}, "batch must be an integer of at least 1, got True."),
        ({"seed": 1.0}, "seed must be an integer "),
    ],
)
def test_bad_input_writes_nothing(folder: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(l2l.InputError) as caught:
        l2l.search(SPACE, TASK, Random(), **{**OPTIONS, **options})
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)
    assert list(folder.iterdir()) == []


def test_a_folder_of_another_search_is_left_alone(tmp_path: Path) -> None:
    first = l2l.search(SPACE, TASK, Watched(), trials=2, batch=2, out=tmp_path / "run", **OPTIONS)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(l2l.InputError, match=r"run holds another study: .*task\.epochs 1 -> 2"):
        l2l.search(SPACE, Digits(epochs=2), Watched(), trials=2, batch=2, out=tmp_path / "run", **OPTIONS)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    again = l2l.search(SPACE, TASK, Watched(), trials=2, batch=2, out=tmp_path / "run", **OPTIONS)
    # What has ended is left as it is, and says so once more.
    assert again.record == first.record
    assert (tmp_path / "run" / "result.json").read_bytes() == before["result.json"]


def test_results_without_their_trials_are_not_written_over(tmp_path: Path) -> None:
    options = {**OPTIONS, "store": OptunaStore("memory")}
    l2l.search(SPACE, TASK, Watched(), trials=2, batch=2, out=tmp_path / "run", **options)
    before = (tmp_path / "run" / "result.json").read_bytes()
    for store in (OptunaStore("memory"), OptunaStore()):
        with pytest.raises(l2l.InputError, match=r"run holds the results of a search whose trials are gone"):
            l2l.search(SPACE, TASK, Watched(), trials=2, batch=2, out=tmp_path / "run", **{**options, "store": store})
    assert (tmp_path / "run" / "result.json").read_bytes() == before
    assert not (tmp_path / "run" / "study.db").exists()


@dataclass
class Handed:
    """A final run of the user's own, which counts how often it is asked."""

    objective: Any
    directory: Path
    calls: ClassVar[list[int]] = []

    def check(self) -> None:
        pass

    def __call__(self, trials: Sequence[Trial]) -> Iterator[Trial]:
        for trial in trials:
            self.calls.append(trial.number)
            yield replace(trial, outcome=Outcome(metrics={"validation": 1.0, "test": 0.5, "loaded": 1.0}))


def test_a_users_own_final_run_is_not_run_twice(tmp_path: Path) -> None:
    Handed.calls.clear()
    options = {**OPTIONS, "final": Handed, "trials": 2, "batch": 2, "out": tmp_path / "run"}
    first = l2l.search(SPACE, TASK, Watched(), **options)
    assert l2l.search(SPACE, TASK, Watched(), **options).record == first.record
    assert len(Handed.calls) == 1


def test_what_was_handed_over_and_is_damaged_is_made_again(tmp_path: Path) -> None:
    options = {**OPTIONS, "final": partial(l2l.api.Final, seeds=0), "trials": 2, "batch": 2, "out": tmp_path / "run"}
    first = l2l.search(SPACE, TASK, Watched(), **options)
    weights = tmp_path / "run" / "best" / "weights.safetensors"
    before = weights.read_bytes()
    weights.unlink()
    again = l2l.search(SPACE, TASK, Watched(), **options)
    assert weights.read_bytes() == before
    assert again.record.test == first.record.test
    more = l2l.search(SPACE, TASK, Watched(), **{**options, "final": partial(l2l.api.Final, seeds=1)})
    assert isinstance(more.record.test, TestScores)
    assert more.record.test.seeds == 1


@dataclass(frozen=True)
class Above:
    """A reward of the user's own, which reads what only a real run has."""

    length = 1

    def __call__(self, outcome: Outcome) -> tuple[float, ...]:
        if outcome.metrics["accuracy"] < 0.05:
            raise l2l.InputError("worse than chance.")
        return (math.log(outcome.metrics["accuracy"]) - outcome.seconds["train"] * 0 + outcome.curve["accuracy"][0],)


def test_a_users_own_reward_sees_real_runs_alone(tmp_path: Path) -> None:
    result = l2l.search(SPACE, TASK, Watched(), reward=Above(), trials=2, batch=2, out=tmp_path / "run", **OPTIONS)
    assert result.record.trials == TrialCounts(complete=1, failed=1)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"space": None}, "space must be a SearchSpace, got None."),
        ({"task": "digits"}, "task must be a Task, such as"),
        ({"searcher": "tpe"}, "searcher must be a Searcher, such as"),
        ({"searcher": Watched}, "searcher must be a Searcher, such as"),
        ({"reward": Metric("accurcy")}, "accurcy"),
    ],
)
def test_a_part_that_is_none_is_refused_before_anything_is_written(
    tmp_path: Path, wrong: dict[str, Any], words: str
) -> None:
    arguments = {"space": SPACE, "task": TASK, "searcher": Watched(), **OPTIONS, **wrong}
    with pytest.raises(l2l.InputError, match=words):
        l2l.search(**arguments, trials=2, batch=2, out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_result_is_shown_in_a_line(tmp_path: Path) -> None:
    result = l2l.search(SPACE, TASK, Watched(), trials=2, batch=2, out=tmp_path / "run", **OPTIONS)
    assert len(repr(result)) < 2000
