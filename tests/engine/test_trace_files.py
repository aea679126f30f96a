"""Programs and traces in files: read by later processes, never stale, never broken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from l2l.engine import trace_files
from l2l.engine.population import Population
from l2l.engine.trace_files import FOLDER, NO_FILES, TraceFiles
from l2l.objectives.trained import Trained
from l2l.space import Real, SearchSpace
from l2l.store import code_digest
from l2l.store.fingerprint import describe_built_in
from l2l.tasks.digits import Digits
from l2l.tasks.idx_images import FashionMnist
from l2l.types import Learner
from search_spaces import mlp

SPACE = mlp.space(depth=(1, 1), widths=(8,), activations=("relu",), normalisations=("none",), optimizers=("sgd",))
TASK = Digits(epochs=1)
CANDIDATE = SPACE.candidate({name: choice.value_at(0.5) for name, choice in SPACE.choices.items()})


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    """The folder of the files, empty."""
    before = jax.config.jax_compilation_cache_dir  # pyright: ignore
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path / FOLDER
    jax.config.update("jax_compilation_cache_dir", before)


def train(**options: Any) -> tuple[bytes, bool]:
    """The weights of a training in a new population, and whether its program was traced."""
    population = Population(SPACE, TASK, None, identity=describe_built_in(SPACE, TASK), **options)
    (fit,), seconds = population.train([(CANDIDATE, jax.random.key(0))], population.bucket(CANDIDATE), 1)
    return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(fit.params)), seconds["trace"] > 0


def list_programs(files: Path) -> list[Path]:
    """The files of programs: they are larger than any other."""
    return [path for path in files.iterdir() if path.stat().st_size > 10_000]


@pytest.fixture
def program(files: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, bytes]:
    """The file of a program that was compiled, not read from JAX's cache, and the weights that it trained."""
    monkeypatch.setattr(code_digest, "digest_packages", lambda *names: str(files))
    weights, is_traced = train()
    assert is_traced
    (path,) = list_programs(files)
    return path, weights


def test_a_program_that_was_read_gives_the_same_weights(program: tuple[Path, bytes]) -> None:
    assert train() == (program[1], False)


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:-1], lambda data: data[:50] + b"x" + data[51:]]
)
def test_a_damaged_file_is_deleted_and_the_program_compiled(program: tuple[Path, bytes], damage: Any) -> None:
    path, weights = program
    path.write_bytes(damage(path.read_bytes()))
    assert train() == (weights, True)
    assert not path.exists()  # JAX has read the program from its own cache: it cannot be taken apart again


def test_a_program_that_cannot_be_loaded_is_compiled(program: tuple[Path, bytes]) -> None:
    path, weights = program
    TraceFiles(path.parent)._write(path.name, (b"no program", None, None, (1, None)))
    assert train() == (weights, True)


def test_what_is_unreadable_is_compiled(program: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: bytes) -> None:
        raise ModuleNotFoundError("no module of that name")

    monkeypatch.setattr(trace_files.cloudpickle, "loads", fail)
    assert train() == (program[1], True)


@pytest.mark.parametrize("change", ["XLA_FLAGS", "option", "library"])
def test_a_change_of_what_a_program_depends_on_is_another_file(
    program: tuple[Path, bytes], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = TraceFiles.of({}).name("program")
    assert TraceFiles.of({}).name("program") == before
    assert TraceFiles.of({"space": "another"}).name("program") != before
    if change == "XLA_FLAGS":
        monkeypatch.setenv("XLA_FLAGS", "--another")
    elif change == "library":
        monkeypatch.setattr(trace_files.importlib.metadata, "version", lambda name: "0")
    else:
        with jax.default_matmul_precision("highest"):
            assert TraceFiles.of({}).name("program") != before
        return
    assert TraceFiles.of({}).name("program") != before


def test_nothing_is_kept_of_a_users_own_space_or_task(files: Path) -> None:
    class OwnTask(Digits):
        pass

    OwnTask.__module__ = "own"
    users_space = SearchSpace({"rate": Real(low=0.1, high=1)}, lambda values, spec: build(values, spec), "own")
    assert describe_built_in(users_space, TASK) is None
    assert describe_built_in(SPACE, OwnTask()) is None
    assert describe_built_in(SPACE, FashionMnist()) is not None
    assert describe_built_in(SPACE, TASK) == describe_built_in(SPACE, Digits(epochs=1))
    assert describe_built_in(SPACE, TASK) != describe_built_in(mlp.space(), TASK)
    assert describe_built_in(SPACE, TASK) != describe_built_in(SPACE, Digits(epochs=2))
    Trained(users_space, TASK).name_bucket(users_space.candidate({"rate": 0.5}))
    assert not files.exists()


def build(values: Any, spec: Any) -> Learner:
    """A learner of a user's own."""
    return Learner(lambda rngs: nnx.Linear(1, 1, rngs=rngs), optax.sgd(values["rate"]))


def test_a_folder_that_cannot_be_written_is_no_error(files: Path) -> None:
    files.write_text("a file where the folder should be")
    assert train()[1]
    assert files.read_text() == "a file where the folder should be"


def test_numbers_of_numpy_have_a_name_too(files: Path) -> None:
    assert TraceFiles.of({}).name(np.int64(3)) != TraceFiles.of({}).name(np.int64(4))
    assert TraceFiles.of(None).name(np.int64(3))


def test_a_value_is_computed_once(files: Path) -> None:
    trace_cache = TraceFiles.of({})
    calls: list[int] = []

    def compute() -> dict[str, tuple[int, ...]]:
        calls.append(1)
        return {"width": (1, 2)}

    assert [trace_cache.remember(compute, "levels", 1) for _ in range(2)] == [{"width": (1, 2)}] * 2
    assert len(calls) == 1
    trace_cache.remember(compute, "levels", 2)
    assert len(calls) == 2
    assert NO_FILES.remember(compute, "levels", 1) == {"width": (1, 2)}
    assert len(calls) == 3


def test_the_files_that_were_not_used_for_longest_make_room(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_files, "MAX_BYTES", 3000)
    trace_cache = TraceFiles.of({})
    draw = np.random.default_rng(0)
    for number in range(3):
        trace_cache.remember(lambda: draw.bytes(900), number)
    first, second, _ = (files / trace_cache.name(number) for number in range(3))
    for age, path in enumerate((second, first)):
        path.touch()
        trace_files.os.utime(path, (age + 1, age + 1))
    trace_cache.remember(lambda: None, 0)  # reading is using
    trace_cache.remember(lambda: draw.bytes(900), 3)
    assert first.exists()
    assert not second.exists()
