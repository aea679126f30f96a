"""A search with rungs: who is stopped, what is stored, and that any interruption leaves the same search."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from test_loop import Chained, Recorder, run, table
from toys import Curved, Hashed

from l2l.abilities import get_title
from l2l.errors import InputError
from l2l.executors.local import Local
from l2l.reward import Metric
from l2l.run.result import Result
from l2l.rungs import Asha, Halving, Hyperband, Median
from l2l.searchers.controllers.controller import Controller
from l2l.searchers.controllers.ppo import Ppo
from l2l.searchers.controllers.transformer import Transformer
from l2l.searchers.evolution import Evolution
from l2l.searchers.gp.gp_critic import GpCritic
from l2l.searchers.local_search import LocalSearch
from l2l.searchers.optuna_samplers import CmaEs, Nsga2, Qmc, Tpe
from l2l.searchers.predictor import Predictor
from l2l.searchers.random_search import Random
from l2l.store.log import StudyLog
from l2l.store.optuna_store import OptunaStore
from l2l.testing.stores import describe_bits
from l2l.types import Outcome, Status, Trial

RULES = {"halving": Halving(), "asha": Asha(eta=2), "hyperband": Hyperband(), "median": Median(startup=2)}
CURVED = functools.partial(Curved, rounds=1)


def climb(out: Path, **changed: Any) -> Result:
    """A search of 20 toy trials with rungs, but for what is changed."""
    parts = {"searcher": Chained(), "objective": CURVED, "rungs": Asha(eta=2), "trials": 20, "batch": 8}
    return run(out, **{**parts, **changed})


def timeless(trials: Any) -> list[str]:
    """All of the trials but their seconds."""
    return [describe_bits(replace(trial, outcome=replace(trial.outcome or Outcome(), seconds={}))) for trial in trials]


def test_who_is_stopped_keeps_the_reward_of_its_rung(tmp_path: Path) -> None:
    recorder = Recorder()
    result = climb(tmp_path / "run", tracker={"r": recorder}, rungs=Halving())
    counts = result.record.trials
    assert counts.pruned > counts.complete > 0
    assert counts.failed > 0
    assert result.best.status is Status.COMPLETE
    assert result.best.reward == max(trial.reward for trial in result.trials if trial.status is Status.COMPLETE)
    rows = table(tmp_path / "run")
    for trial, row in zip(result.trials, rows, strict=True):
        assert trial.outcome is not None
        epochs = len(trial.outcome.curve["accuracy"])
        assert int(row["epochs"]) == epochs
        if trial.status is Status.COMPLETE:
            assert (epochs, sorted(trial.scores)) == (5, [1, 2, 3, 4, 5])
        if trial.status is Status.PRUNED:
            assert epochs in (1, 3)
            assert trial.reward == trial.scores[epochs] == (trial.outcome.metrics["accuracy"],)
        if trial.status is Status.FAILED:
            assert (trial.reward, list(trial.scores)) == (None, list(range(1, max(trial.scores) + 1)))
    # Of the eight of the first batch two are left after an epoch, however many of the others would have failed.
    assert sum(len(trial.scores) > 1 or trial.status is Status.FAILED for trial in result.trials[:8]) == 2
    tell_events = [event for event in recorder.events if event[0] == "tell"]
    assert sorted(event[1] for event in tell_events) == list(range(20))


def test_optuna_sees_the_curves(tmp_path: Path) -> None:
    result = climb(tmp_path / "run")
    climb(tmp_path / "whole", rungs=None)
    for name in ("run", "whole"):
        study = optuna.load_study(study_name=name, storage=f"sqlite:///{tmp_path / name}/study.db")
        assert all(trial.intermediate_values for trial in study.trials if trial.state.name == "COMPLETE")
        if name == "run":
            for trial, row in zip(result.trials, study.trials, strict=True):
                assert row.intermediate_values == {epoch: score[0] for epoch, score in trial.scores.items()}
                assert (row.values, row.state.name[:4]) == (
                    None if trial.reward is None else [*trial.reward], trial.status.name[:4]
                )  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_any_interruption_leaves_the_same_search(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, stop = itertools.count(1), 0

    def breaking(call: Callable[..., Trial], late: bool) -> Callable[..., Trial]:
        def broken(log: StudyLog, trial: Trial) -> Trial:
            turn = next(calls)
            if turn == stop and not late:
                raise KeyboardInterrupt
            stored = call(log, trial)
            if turn == stop:
                raise KeyboardInterrupt
            return stored

        return broken

    for method in ("reach", "close"):
        monkeypatch.setattr(StudyLog, method, breaking(getattr(StudyLog, method), late=method == "reach"))
    few = {"rungs": RULES[name], "trials": 12, "batch": 6}
    whole = climb(tmp_path / "whole", **few)
    total = next(calls)
    assert total > 15
    for turn in range(3 + list(RULES).index(name), total, 6):
        stop, calls = turn, itertools.count(1)
        with pytest.raises(KeyboardInterrupt):
            climb(tmp_path / str(turn), **few)
        stop = 0
        again = climb(tmp_path / str(turn), **few)
        assert timeless(again.trials) == timeless(whole.trials)
        assert table(tmp_path / str(turn)) == table(tmp_path / "whole")


@pytest.mark.parametrize(
    "searcher",
    [
        Random(),
        Controller(),
        Evolution(population=4, tournament=2),
        LocalSearch(first=4),
        # These take longest to compile, and their contracts replay tells and pruned trials, too.
        pytest.param(Predictor(first=4), marks=pytest.mark.slow),
        pytest.param(GpCritic(first=4), marks=pytest.mark.slow),
        pytest.param(Controller(policy=Transformer(), update=Ppo()), marks=pytest.mark.slow),
        Tpe(startup=4),
        Nsga2(population=4),
        Qmc(),
        CmaEs(),
    ],
    ids=get_title,
)
def test_every_searcher_climbs_and_is_replayed(tmp_path: Path, searcher: Any) -> None:
    whole = climb(tmp_path / "whole", searcher=searcher, store=OptunaStore("memory"), rungs=Asha())
    assert {Status.PRUNED, Status.COMPLETE} <= {trial.status for trial in whole.trials}
    climb(tmp_path / "run", searcher=searcher, rungs=Asha(), trials=16)
    assert timeless(climb(tmp_path / "run", searcher=searcher, rungs=Asha()).trials) == timeless(whole.trials)


class Two:
    """Two objectives, against each other."""

    length = 2

    def __call__(self, outcome: Outcome) -> tuple[float, ...]:
        value = outcome.metrics["accuracy"]
        return (value, -(value**2) + value % 0.1)


def test_several_objectives_climb_and_come_back(tmp_path: Path) -> None:
    whole = climb(tmp_path / "run", reward=Two(), searcher=Nsga2(population=4))
    assert any(trial.status is Status.PRUNED for trial in whole.trials)
    assert all(len(score) == 2 for trial in whole.trials for score in trial.scores.values())
    assert timeless(climb(tmp_path / "run", reward=Two(), searcher=Nsga2(population=4)).trials) == timeless(
        whole.trials
    )


@dataclass
class Doomed(Curved):
    """Nobody of the second batch gets to the second rung."""

    def outcome(self, trial: Trial) -> Outcome:
        is_gone = (trial.stop_epoch or 5) > 1 and 8 <= trial.number < 16
        return Outcome(error="gone") if is_gone else super().outcome(trial)


def test_a_rung_that_nobody_reaches_decides_nothing(tmp_path: Path) -> None:
    result = climb(tmp_path / "run", objective=functools.partial(Doomed, rounds=1), rungs=Halving())
    assert {trial.status for trial in result.trials[8:16]} == {Status.FAILED, Status.PRUNED}
    assert result.trials[16:]


def test_worker_processes_decide_alike(tmp_path: Path) -> None:
    climb(tmp_path / "inline")
    climb(tmp_path / "local", executor=Local(workers=2, threads=1))
    assert table(tmp_path / "local") == table(tmp_path / "inline")


def test_what_does_not_suit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for changed, words in (
        ({"objective": functools.partial(Hashed, rounds=1)}, "Hashed cannot; choose rungs=none"),
        ({"rungs": "asha"}, "rungs must be Rungs, such as .*, or none, got 'asha'"),
        ({"rungs": Asha}, "rungs must be Rungs"),
        ({"rungs": Asha(first=5)}, "rungs.first must be below the 5 epochs"),
        ({"rungs": Median(), "reward": Two(), "searcher": Nsga2()}, "median compares one number"),
    ):
        with pytest.raises(InputError, match=words):
            climb(tmp_path / "run", **changed)
    assert list(tmp_path.iterdir()) == []
    climb(tmp_path / "run")
    with pytest.raises(InputError, match=r"rungs\.eta 2 -> 3"):
        climb(tmp_path / "run", rungs=Asha())
    with pytest.raises(InputError, match=r"rungs l2l\.rungs\.Asha -> absent"):
        climb(tmp_path / "run", rungs=None)


def test_scores_are_the_reward_of_each_epoch(tmp_path: Path) -> None:
    lower = climb(tmp_path / "run", reward=Metric(maximise=False), rungs=None)
    for trial in lower.trials:
        if trial.status is Status.COMPLETE:
            assert trial.outcome is not None
            expected = {epoch: (-value,) for epoch, value in enumerate(trial.outcome.curve["accuracy"], 1)}
            assert trial.scores == expected
