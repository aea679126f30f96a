"""A found model loads to the last digit anywhere, as a plain Flax module that runs, trains and is saved like any."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import l2l
from l2l.api import search
from l2l.executors.inline import Inline
from l2l.export.module import collect_variables, load, save
from l2l.nn.blocks import Standardised, Statistic
from l2l.objectives.final import Final
from l2l.objectives.trained import Trained
from l2l.run.result import Result
from l2l.searchers.random_search import Random
from l2l.space import Categorical, SearchSpace
from l2l.tasks.digits import Digits
from l2l.types import Learner, Spec
from search_spaces import mlp

TASK = Digits(epochs=1)
SPACE = mlp.space(depth=(1, 1), widths=(8,), activations=("relu",), normalisations=("batch",), batch_sizes=(128,))
FILES = ("architecture.json", "weights.safetensors", "MODEL.md", "SHA256SUMS")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A search of two trials, whose best/ the tests load."""
    out = tmp_path_factory.mktemp("found") / "run"
    final = partial(Final, seeds=0)
    options: dict[str, Any] = {"executor": Inline(), "tracker": {}, "trials": 2, "batch": 2}
    return search(SPACE, TASK, Random(), objective=Trained, final=final, out=out, **options)


@pytest.fixture
def best(result: Result, tmp_path: Path) -> Path:
    """A copy of best/ that a test may damage."""
    return Path(shutil.copytree(result.directory / "best", tmp_path / "best"))


def rename(best: Path, space: str) -> None:
    """Names another space in the architecture and makes the digest fit."""
    path, sums = best / "architecture.json", best / "SHA256SUMS"
    before = path.read_bytes()
    path.write_text(json.dumps({**json.loads(before), "space": space}))
    digests = [hashlib.sha256(content).hexdigest() for content in (before, path.read_bytes())]
    sums.write_text(sums.read_text().replace(*digests))


CHILD = """
import json, sys
seen, armed = [], []
sys.addaudithook(lambda event, args: armed and seen.append((event, str(args[0]) if args else "")))
import l2l
from l2l.tasks.digits import Digits
model = l2l.load(sys.argv[1])
score = l2l.evaluate(model, Digits())["accuracy"]
armed.append(True)
try:
    l2l.load(sys.argv[2])
except l2l.InputError as error:
    refused = str(error)
armed.clear()
events = [event for event, _ in seen]
opened = [what for event, what in seen if event == "open"]
heavy = [name for name in ("hydra", "optuna", "wandb", "sqlalchemy") if name in sys.modules]
print(json.dumps({"score": score, "heavy": heavy, "refused": refused, "events": events, "opened": opened}))
"""


@pytest.mark.exact
def test_a_new_process_elsewhere_scores_to_the_last_digit_and_imports_nothing_that_a_file_names(
    result: Result, best: Path, tmp_path: Path
) -> None:
    (tmp_path / "my_space.py").write_text("raise SystemExit('imported')")
    rename(best, "my_space")
    command = [sys.executable, "-c", CHILD, str(result.directory / "best"), str(best)]
    process = subprocess.run(command, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, check=True)
    record = json.loads(process.stdout)
    assert result.best is not None
    assert result.best.outcome is not None
    assert record["score"] == result.best.outcome.metrics["accuracy"]
    assert record["heavy"] == []
    assert "'my_space', which is not built in" in record["refused"]
    assert {Path(name).name for name in record["opened"]} == set(FILES)
    assert not {"import", "exec", "compile", "os.system", "subprocess.Popen", "pickle.find_class"} & set(
        record["events"]
    )


@pytest.mark.exact
def test_raw_inputs_of_any_dtype(best: Path) -> None:
    model: Any = load(best)
    x, y = TASK.load("validation")
    logits = model(x)
    assert logits.shape == (len(x), 10)
    np.testing.assert_array_equal(model(x.astype(np.uint8)), logits)
    np.testing.assert_array_equal(model(jnp.asarray(x, jnp.int32)), logits)
    assert float((logits.argmax(-1) == y).mean()) == pytest.approx(l2l.evaluate(model, TASK)["accuracy"], abs=1e-7)
    np.testing.assert_allclose(model(x[:1]), logits[:1], atol=1e-5)


def test_untrained_but_normalised(best: Path) -> None:
    trained, fresh, again, other = (
        collect_variables(load(best, **options))
        for options in (
            {},
            {"weights": False, "rngs": nnx.Rngs(0)},
            {"weights": False, "rngs": nnx.Rngs(0)},
            {"weights": False, "rngs": nnx.Rngs(1)},
        )
    )
    assert {name for name, variable in trained.items() if isinstance(variable, Statistic)} == {"mean", "scale"}
    for name in ("mean", "scale"):
        np.testing.assert_array_equal(fresh[name][...], trained[name][...])
        assert fresh[name][...] != pytest.approx(0)
    kernel = "model.head.kernel"
    np.testing.assert_array_equal(fresh[kernel][...], again[kernel][...])
    assert not np.array_equal(fresh[kernel][...], trained[kernel][...])
    assert not np.array_equal(fresh[kernel][...], other[kernel][...])


def test_made_of_stock_layers_in_evaluation_mode(best: Path) -> None:
    modules = [node for _, node in nnx.iter_graph(load(best)) if isinstance(node, nnx.Module)]
    holders = [type(m) for m in modules if any(isinstance(value, nnx.Param) for value in vars(m).values())]
    assert set(holders) == {nnx.Linear, nnx.BatchNorm}
    assert nnx.Dropout in map(type, modules)
    assert all(m.deterministic for m in modules if isinstance(m, nnx.Dropout))
    assert all(m.use_running_average for m in modules if isinstance(m, nnx.BatchNorm))


def test_trains_further_and_is_saved_by_orbax(best: Path, tmp_path: Path) -> None:
    model: Any = load(best)
    x, y = TASK.load("train")
    before = l2l.evaluate(model, TASK)["loss"]
    statistics = [np.asarray(variable[...]) for variable in (model.mean, model.scale)]
    model.train()
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any) -> None:
        gradient = nnx.grad(lambda model: TASK.loss(model(x), y, 0.0).mean())(model)
        optimizer.update(model, gradient)

    for _ in range(10):
        step(model, optimizer)
    model.eval()
    assert l2l.evaluate(model, TASK)["loss"] < before
    for variable, value in zip((model.mean, model.scale), statistics, strict=True):
        np.testing.assert_array_equal(variable[...], value)

    graph, state = nnx.split(model)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "saved", nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState))))
    with ocp.StandardCheckpointer() as checkpointer:
        saved = checkpointer.restore(tmp_path / "saved", nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState))))
    nnx.replace_by_pure_dict(state, saved)
    np.testing.assert_array_equal(nnx.merge(graph, state)(x[:8]), model(x[:8]))


def test_saving_is_all_or_nothing(best: Path) -> None:
    before = {path.name: path.read_bytes() for path in best.iterdir()}
    model, spec = load(best), Spec((8, 8, 1), 10, 1077, 1)
    with pytest.raises(ValueError, match="JSON"):
        save(best, SPACE, {"dropout": float("nan")}, spec, model, "card")
    assert {path.name: path.read_bytes() for path in best.iterdir()} == before
    (best.parent / ".best.new").mkdir()
    save(best, SPACE, json.loads(before["architecture.json"])["values"], spec, model, "card")
    assert [path.name for path in best.parent.iterdir()] == ["best"]
    assert {name: (best / name).read_bytes() for name in FILES[:2]} == {name: before[name] for name in FILES[:2]}


def test_half_precision_and_a_namesake_of_a_built_in_space(best: Path) -> None:
    def build(values: Any, spec: Spec) -> Learner:
        return Learner(lambda rngs: nnx.Linear(1, 10, param_dtype=jnp.bfloat16, rngs=rngs), optax.sgd(0.1))

    space = SearchSpace({"only": Categorical(options=(1,))}, build, "mlp")
    model = Standardised(build({}, Spec((1,), 10, 1, 1)).model(nnx.Rngs(0)), [0.0], [1.0])
    save(best, space, {"only": 1}, Spec((1,), 10, 1, 1), model, "card")
    again: Any = load(best, space=space)
    assert again.model.kernel.dtype == jnp.bfloat16
    np.testing.assert_array_equal(again.model.kernel[...], model.model.kernel[...])
    with pytest.raises(l2l.InputError, match=r"was found in the space 'mlp \(own\)', which is not built in"):
        load(best)
