"""How peers share candidates and what they say of a training that diverged; no time is asserted."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import candidates
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from processes import time_commands

from l2l.types import Spec
from search_spaces import transformer

sys.path.insert(0, str(Path(candidates.__file__).parent / "peers"))

import claims


def test_each_candidate_is_claimed_once_by_whoever_asks_first(tmp_path: Path) -> None:
    one, other = claims.claim_candidates(tmp_path, 5), claims.claim_candidates(tmp_path, 5)
    assert [next(one), next(other), next(other)] == [0, 1, 2]  # the other is faster
    assert (list(one), list(other)) == ([3, 4], [])


def test_claims_need_the_standard_library_alone(tmp_path: Path) -> None:
    folder = str(Path(claims.__file__).parent)
    script = (
        f"import sys; sys.path.insert(0, {folder!r}); import claims, pathlib; "
        "list(claims.claim_candidates(pathlib.Path(), 2))"
    )
    time_commands([[sys.executable, "-I", "-S", "-c", script]], tmp_path)  # -S: without what is installed
    assert sorted(path.name for path in tmp_path.glob("*.taken")) == ["0.taken", "1.taken"]


def workload(folder: Path, rates: list[float]) -> None:
    """Writes a workload of one small perceptron under these learning rates."""
    values: dict[str, Any] = {
        "family": "mlp", "depth": 2, "width": 8, "activation": "relu", "dropout": 0.0, "batch_size": 16,
        "optimizer": "sgd", "schedule": "constant", "warmup": 0.0, "weight_decay": 0.0, "label_smoothing": 0.0,
    }  # fmt: skip
    (folder / "candidates.json").write_text(json.dumps([{**values, "sgd_learning_rate": rate} for rate in rates]))
    (folder / "about.json").write_text(json.dumps({"outputs": 3, "space": "mixed", "spec": {"inputs": [4, 4, 1]}}))
    draw = np.random.default_rng(0)
    images, labels = draw.normal(size=(96, 4, 4, 1)).astype(np.float32), draw.integers(0, 3, 96)
    np.savez(folder / "data.npz", x=images[:64], y=labels[:64], vx=images[64:], vy=labels[64:])
    np.save(folder / "orders.npy", np.array([[draw.permutation(64) for _ in range(2)] for _ in rates], np.int32))


def test_the_flax_loop_has_transformers_with_what_their_experts_add_to_the_loss() -> None:
    import flax_loop

    space = transformer.space(depth=(2, 2), widths=(8,), forward=("experts",))
    about = {"space": "transformer", "spec": Spec((8, 8, 1), 10, 64, 1)._asdict()}
    model, penalty = flax_loop.network(about, dict(space.sample(random.Random(0)).values), 3)
    model.train()

    @nnx.jit
    def run(model: nnx.Module, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return model(x), penalty(model)  # pyright: ignore[reportCallIssue]

    logits, loss = run(model, jnp.zeros((3, 8, 8, 1)))
    assert logits.shape == (3, 10)
    assert float(loss) > 0


@pytest.mark.parametrize("name", ["flax", "torch", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_training_that_diverged_is_null(name: str, tmp_path: Path) -> None:
    pytest.importorskip({"flax": "jax"}.get(name, name))
    workload(tmp_path, [0.01, 1e30, 0.02])
    bench = candidates.Bench(None, 3, 3, 7, tmp_path, {name: sys.executable})
    result = bench.peer(name)
    assert list(result.accuracies) == [0, 1, 2]
    assert [accuracy is None for accuracy in result.accuracies.values()] == [False, True, False]
    assert bench.peer(name).accuracies == result.accuracies  # nothing is left of the run before


def test_a_candidate_that_nobody_trained_is_no_figure(tmp_path: Path) -> None:
    (tmp_path / "idle.py").write_text(
        "import json, pathlib, sys\npathlib.Path('torch-0.json').write_text('{\"1\": 1}')"
    )
    bench = candidates.Bench(None, 2, 2, 7, tmp_path, {"torch": sys.executable})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(candidates.PEERS, "torch", str(tmp_path / "idle.py"))
        with pytest.raises(RuntimeError, match=r"torch says nothing of the candidates \['0'\]"):
            bench.peer("torch")
