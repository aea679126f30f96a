"""Fronts of searches with several objectives: what is a member, what is written, drawn and handed over."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jax
import numpy as np
import pytest
from flax import nnx

import l2l
from l2l.api import search
from l2l.engine.cost import count_operations
from l2l.errors import InputError
from l2l.executors.inline import Inline
from l2l.objectives.final import Final
from l2l.objectives.trained import Trained
from l2l.reward import COSTS, Several
from l2l.run import front
from l2l.run.result import Result
from l2l.searchers.random_search import Random
from l2l.space import Candidate
from l2l.store.optuna_store import OptunaStore
from l2l.tasks.digits import Digits
from l2l.types import Outcome, Status, Trial
from search_spaces import mlp, transformer

REWARD = Several({"accuracy": True, "flops": False})


def trial(number: int, *reward: float, status: Status = Status.COMPLETE) -> Trial:
    outcome = Outcome({"accuracy": reward[0], "flops": -reward[1]} if reward else {})
    return Trial(number, Candidate({"x": number}), (0, 9), (number,), status, outcome, reward or None)


def make_trials() -> list[Trial]:
    rewards = [(0.5, -9.0), (0.9, -100.0), (0.9, -120.0), (0.8, -20.0), (0.1, -8.0), (0.9, -100.0)]
    ended = [trial(number, *reward) for number, reward in enumerate(rewards)]
    return [*ended, trial(6, status=Status.FAILED), trial(7, 0.99, -1.0, status=Status.PRUNED)]


def test_members_are_complete_trials_that_none_beats_best_first() -> None:
    assert [member.number for member in front.select_members(make_trials())] == [1, 3, 0, 4]
    assert front.select_members([trial(0, status=Status.FAILED)]) == []


def test_the_record_has_values_knee_and_volume() -> None:
    record = front.describe_front(make_trials(), front.select_members(make_trials())).to_json()
    assert [member["number"] for member in record["members"]] == [1, 3, 0, 4]
    assert record["members"][1] == {
        "number": 3, "reward": [0.8, -20.0], "values": {"x": 3}, "metrics": {"accuracy": 0.8, "flops": 20.0},
    }  # fmt: skip
    assert record["knee"] == 3
    # In units of the box from (0.1, -120) to (0.9, -8): by hand, slice by slice.
    boxes = [(1.0, 20 / 112), (7 / 8, 100 / 112), (0.5, 111 / 112)]
    by_hand = sum((wide - before) * high for (wide, before), (_, high) in zip(
        [(1.0, 7 / 8), (7 / 8, 0.5), (0.5, 0.0)], boxes, strict=True
    ))  # fmt: skip
    assert record["hypervolume"] == pytest.approx(by_hand)
    assert json.loads(json.dumps(record)) == record


def test_a_single_trial_is_its_own_front() -> None:
    record = front.describe_front([trial(0, 1.0, -1.0)], front.select_members([trial(0, 1.0, -1.0)]))
    assert (record.knee, record.hypervolume) == (0, 0.0)
    ElementTree.fromstring(front.draw_front([trial(0, 1.0, -1.0)], [trial(0, 1.0, -1.0)], REWARD))


def test_the_figure_names_what_was_measured_and_is_the_same_each_time() -> None:
    figure = front.draw_front(make_trials(), front.select_members(make_trials()), REWARD)
    texts = [element.text for element in ElementTree.fromstring(figure).iter("{http://www.w3.org/2000/svg}text")]
    assert {"accuracy", "flops", "front", "knee: trial 3"} <= set(texts)
    assert figure == front.draw_front(make_trials(), front.select_members(make_trials()), REWARD)


def test_objectives_without_names_are_counted() -> None:
    assert front.objective_axes(lambda _: (1.0, 2.0), 2) == [("objective 1", 1.0), ("objective 2", 1.0)]  # pyright: ignore
    assert front.objective_axes(REWARD, 2) == [("accuracy", 1.0), ("flops", -1.0)]


SPACE = mlp.space(
    depth=(1, 2), widths=(8, 32), activations=("relu",), normalisations=("none",), optimizers=("adamw",),
    batch_sizes=(64,),
)  # fmt: skip


def searched(out: Path, trials: int = 6, seeds: int = 1) -> Result:
    return search(
        space=SPACE, task=Digits(), searcher=Random(),
        objective=functools.partial(Trained, epochs=2, costs=("flops", "active_parameters")), reward=REWARD,
        executor=Inline(), store=OptunaStore(), tracker={}, final=functools.partial(Final, seeds=seeds), trials=trials,
        batch=3, out=out,
    )  # fmt: skip


def counted(model: Any, x: np.ndarray) -> float:
    """The operations of a module for one example."""
    graph, state = nnx.split(model)
    return count_operations(jax.make_jaxpr(lambda x: nnx.merge(graph, state)(x))(x[:1]).jaxpr)


def test_every_member_loads_and_costs_what_is_said(tmp_path: Path) -> None:
    result = searched(tmp_path / "run")
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    members = record["front"]["members"]
    assert len(members) > 1
    assert result.best.number == members[0]["number"] == record["best"]["number"]
    assert record["test"]["reproduced"]
    assert record["front"]["knee"] in [member["number"] for member in members]
    x = Digits().load("validation")[0]
    for member in members:
        assert member["reproduced"]
        model: Any = l2l.load(tmp_path / "run" / member["folder"])
        assert l2l.evaluate(model, Digits(), "validation")["accuracy"] == member["metrics"]["accuracy"]
        parameters = sum(np.size(leaf) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
        assert parameters == member["metrics"]["parameters"]
        flops = counted(model, x)
        assert flops == member["metrics"]["flops"]
        measured = jax.jit(lambda x, m=model: m(x)).lower(x[:1]).compile().cost_analysis()["flops"]
        assert flops <= measured <= 1.5 * flops + 2000  # what is elementwise is not in our formula
    again = searched(tmp_path / "run")
    assert again.record.to_json() == record  # nothing is done twice


def test_a_longer_search_leaves_nothing_of_an_earlier_front(tmp_path: Path) -> None:
    searched(tmp_path / "run", 3, 0)
    for stale in ("0099", ".0098.new"):  # as a member that a later trial beats, and one that was half written
        (tmp_path / "run/front" / stale).mkdir()
    (tmp_path / "run/front/mine").mkdir()
    (tmp_path / "run/front/0097").symlink_to(tmp_path)
    searched(tmp_path / "run", 6, 0)
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    names = sorted(path.name for path in (tmp_path / "run/front").iterdir())
    assert names == sorted(["0097", "mine", *(Path(member["folder"]).name for member in record["front"]["members"])])


def test_the_front_of_transformers_loads_and_costs_what_is_said(tmp_path: Path) -> None:
    space = transformer.space(
        depth=(1, 2), widths=(8,), heads=(2,), head_sizes=(4,), attentions=("global",), positions=("learned", "rotary"),
        mlp_ratios=(1,), experts=(4,), expert_ratios=(1,), routers=("softmax",), activations=("relu",),
        optimizers=("adamw",), batch_sizes=(32,),
    )  # fmt: skip
    objective = functools.partial(Trained, epochs=1, costs=COSTS, latency_batch=4)
    reward = Several({"loss": False, "flops": False})
    result = search(
        space, Digits(), Random(), objective=objective, reward=reward, executor=Inline(), tracker={},
        final=functools.partial(Final, seeds=0), trials=3, batch=3, out=tmp_path / "run",
    )  # fmt: skip
    x = Digits().load("validation")[0]
    for member in result.record.to_json()["front"]["members"]:
        assert member["reproduced"]
        model: Any = l2l.load(tmp_path / "run" / member["folder"])
        metrics = member["metrics"]
        assert l2l.evaluate(model, Digits(), "validation")["loss"] == pytest.approx(metrics["loss"], rel=1e-6)
        assert counted(model, x) == metrics["flops"] == metrics["train_flops"] / (3 * len(Digits().load("train")[0]))
        assert 0 < metrics["active_parameters"] <= metrics["parameters"]
        assert 0 < metrics["latency"] < 60
        assert metrics["bytes"] > 4 * metrics["parameters"]


def test_objectives_in_another_order_are_another_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched(tmp_path / "run", 3, 0)
    monkeypatch.setitem(globals(), "REWARD", Several({"flops": False, "accuracy": True}))
    with pytest.raises(InputError, match=r"reward\.objectives \[.accuracy., .flops.\] -> \[.flops., .accuracy.\]"):
        searched(tmp_path / "run", 3, 0)


def test_a_member_that_was_lost_is_handed_over_again(tmp_path: Path) -> None:
    import shutil

    searched(tmp_path / "run", 4, 0)
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    folder = tmp_path / "run" / record["front"]["members"][-1]["folder"]
    before = (folder / "weights.safetensors").read_bytes()
    shutil.rmtree(folder)
    searched(tmp_path / "run", 4, 0)
    assert (folder / "weights.safetensors").read_bytes() == before
    (folder / "weights.safetensors").write_bytes(before[:-1])
    searched(tmp_path / "run", 4, 0)
    assert (folder / "weights.safetensors").read_bytes() == before
