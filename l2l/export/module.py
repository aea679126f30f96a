"""A found model as a folder of data, and that folder as a Flax module again."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from l2l.errors import InputError, nearest
from l2l.nn.blocks import Standardised, Statistic
from l2l.nn.dropout import DropoutState
from l2l.space import SearchSpace
from l2l.types import Learner, Spec

VERSION = 1
ARCHITECTURE, WEIGHTS, CARD, SUMS = "architecture.json", "weights.safetensors", "MODEL.md", "SHA256SUMS"
BUILT_IN = {"cnn": "search_spaces.cnn", "mlp": "search_spaces.mlp"}
"""The closed list of spaces that a file may name; any other space is handed in by the caller."""

_FIELDS = {"version": int, "space": str, "values": dict, "inputs": list, "outputs": int, "examples": int, "epochs": int}


def save(
    directory: Path, space: SearchSpace[Learner], values: Mapping[str, Any], spec: Spec, module: nnx.Module, card: str
) -> None:
    """Writes `architecture.json`, `weights.safetensors`, `MODEL.md` (`card`) and their SHA-256, all or nothing."""
    architecture = {"version": VERSION, "space": space.name, "values": dict(values), **spec._asdict()}
    files = {
        ARCHITECTURE: (json.dumps(architecture, indent=2, allow_nan=False) + "\n").encode(),
        WEIGHTS: safetensors.numpy.save({name: np.asarray(v[...]) for name, v in variables(module).items()}),
        CARD: card.encode(),
    }
    files[SUMS] = "".join(f"{_digest(content)}  {name}\n" for name, content in files.items()).encode()
    fresh, old = directory.with_name(f".{directory.name}.new"), directory.with_name(f".{directory.name}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    for name, content in files.items():
        with (fresh / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    if directory.exists():
        directory.rename(old)
    fresh.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def variables(module: nnx.Module) -> dict[str, Any]:
    """The variables that are saved, by dotted path: all but random streams and dropout's state."""
    kept = nnx.state(module, nnx.Not(nnx.Any(nnx.RngState, DropoutState)))
    return {".".join(str(part) for part in path): variable for path, variable in nnx.to_flat_state(kept)}


def load(
    path: str | os.PathLike[str],
    *,
    space: SearchSpace[Learner] | None = None,
    weights: bool = True,
    rngs: nnx.Rngs | None = None,
) -> nnx.Module:
    """The found model in evaluation mode; it takes raw inputs `[B, *inputs]` and returns logits `[B, C]`.

    The folder's files are data: built-in spaces are resolved from a closed list, and a user's own `space` is
    handed in. With `weights=False` the model is untrained, drawn from `rngs`.

    Raises: InputError if a file is missing, altered, of a newer version or does not fit the architecture.
    """
    directory = Path(path)
    contents = _verified(directory)
    architecture = _architecture(directory, contents[ARCHITECTURE])
    spec = Spec(tuple(architecture["inputs"]), *(architecture[name] for name in ("outputs", "examples", "epochs")))
    build, values = _build(directory, architecture, space)
    tensors = _tensors(directory, contents[WEIGHTS])

    def make(streams: nnx.Rngs) -> nnx.Module:
        channels = spec.inputs[-1:]
        return Standardised(build(values, spec).model(streams), np.zeros(channels), np.ones(channels))

    try:
        shapes = {
            name: variable.shape for name, variable in variables(nnx.eval_shape(lambda: make(nnx.Rngs(0)))).items()
        }
    except Exception as error:
        raise InputError(
            f"{directory / ARCHITECTURE} does not describe a model of the space {architecture['space']!r} "
            f"({type(error).__name__}: {error}); was it written with another version of that space?"
        ) from error
    _compare(directory, shapes, tensors)
    module = make(rngs or nnx.Rngs(0))
    for name, variable in variables(module).items():
        if weights or isinstance(variable, Statistic):
            variable[...] = tensors[name]
    module.eval()
    return module


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _verified(directory: Path) -> dict[str, bytes]:
    """The bytes of each file, every one equal to its digest."""
    if not (directory / SUMS).is_file():
        raise InputError(f"{directory} holds no found model ({SUMS} is missing); expected the best/ folder of a run.")
    contents: dict[str, bytes] = {}
    for line in (directory / SUMS).read_bytes().decode(errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        place = directory / name
        if Path(name).name != name or place.resolve().parent != directory.resolve():
            raise InputError(
                f"{directory / SUMS} names {name!r}, a path that leaves the folder; do not use this model."
            )
        if not place.is_file():
            raise InputError(f"{place} is missing; copy the whole folder again.")
        content = place.read_bytes()
        if _digest(content) != digest:
            raise InputError(f"{place} is damaged: its SHA-256 differs from {SUMS}; copy the folder again.")
        contents[name] = content
    for name in (ARCHITECTURE, WEIGHTS, CARD):
        if name not in contents:
            raise InputError(f"{directory / SUMS} does not list {name}; copy the whole folder again.")
    return contents


def _architecture(directory: Path, content: bytes) -> dict[str, Any]:
    place = directory / ARCHITECTURE
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is not JSON ({error}); copy the folder again.") from None
    if not isinstance(found, dict) or type(found.get("version")) is not int:
        raise InputError(f"{place} has no version; expected a file that l2l wrote.")
    if found["version"] > VERSION:
        raise InputError(f"{place} is of version {found['version']}, newer than {VERSION}: upgrade l2l to load it.")
    for name, kind in _FIELDS.items():
        if type(found.get(name)) is not kind:
            raise InputError(f"{place}: {name!r} must be of type {kind.__name__}, got {found.get(name)!r}.")
    sizes = [*found["inputs"], found["outputs"], found["examples"], found["epochs"]]
    if not found["inputs"] or any(type(size) is not int or size < 1 for size in sizes):
        raise InputError(f"{place}: inputs, outputs, examples and epochs must be whole numbers of at least 1.")
    return found


def _build(directory: Path, architecture: dict[str, Any], space: SearchSpace[Learner] | None) -> tuple[Any, Any]:
    name, values = architecture["space"], architecture["values"]
    if space is not None:
        try:
            return space.build, space.candidate(values).values
        except InputError as error:
            raise InputError(f"{directory / ARCHITECTURE} does not fit the given space: {error}") from None
    if name not in BUILT_IN:
        raise InputError(
            f"{directory} was found in the space {name!r}, which is not built in; hand yours in: "
            f"l2l.load(path, space=my_space.space()); built in: {nearest('', BUILT_IN)}"
        )
    return importlib.import_module(BUILT_IN[name]).build, values


def _tensors(directory: Path, content: bytes) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{directory / WEIGHTS} is not a safetensors file ({error}); copy the folder again.") from None


def _compare(directory: Path, shapes: dict[str, tuple[int, ...]], tensors: dict[str, np.ndarray]) -> None:
    place = directory / WEIGHTS
    for name, shape in shapes.items():
        if name not in tensors:
            raise InputError(f"{place} lacks the tensor {name!r} of shape {list(shape)}; it belongs to another model.")
        if tensors[name].shape != tuple(shape):
            raise InputError(f"{place}: {name!r} has shape {list(tensors[name].shape)}, expected {list(shape)}.")
    for name in tensors:
        if name not in shapes:
            raise InputError(f"{place} has a tensor {name!r} that the architecture does not know.")
