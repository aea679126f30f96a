"""A found model as a folder of data, and that folder as a Flax module again."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from l2l.builtin import BUILT_IN
from l2l.engine.data import add_preprocessing
from l2l.errors import InputError, suggest_names
from l2l.nn.blocks import Statistic
from l2l.nn.dropout import DropoutState
from l2l.nn.moe import Measure, Penalty
from l2l.space import SearchSpace
from l2l.types import Learner, Spec

VERSION = 1
ARCHITECTURE, WEIGHTS, CARD, SUMS = "architecture.json", "weights.safetensors", "MODEL.md", "SHA256SUMS"

_LINE = re.compile(r"([0-9a-f]{64})  ([^\0\n]{1,255})\n")
_DTYPES = {"BOOL": "bool", "BF16": "bfloat16"} | {
    f"{kind[0].upper()}{bits}": f"{kind}{bits}" for kind in ("float", "int", "uint") for bits in (8, 16, 32, 64)
}
_FIELDS = {
    "version": int, "space": str, "values": dict, "inputs": list, "outputs": int, "examples": int, "epochs": int,
    "tokens": int, "targets": list,
}  # fmt: skip
_LATER: dict[str, Any] = {"tokens": 0, "targets": []}
"""Fields that a file need not have, and what is meant then."""


def save(
    directory: Path, space: SearchSpace[Learner], values: Mapping[str, Any], spec: Spec, module: nnx.Module, card: str
) -> None:
    """Writes `architecture.json`, `weights.safetensors`, `MODEL.md` (`card`) and their SHA-256, all or nothing."""
    architecture = {"version": VERSION, "space": _name(space), "values": dict(values), **spec._asdict()}
    files = {
        ARCHITECTURE: (json.dumps(architecture, indent=2, allow_nan=False) + "\n").encode(),
        WEIGHTS: safetensors.numpy.save({name: np.asarray(v[...], order="C") for name, v in variables(module).items()}),
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
    """The variables that are saved, by dotted path: all but random streams, dropout's state and what training measures.

    An array that a model keeps outside a variable is a constant, which building the model makes again.
    """
    kept = nnx.to_flat_state(nnx.state(module, nnx.Not(nnx.Any(nnx.RngState, DropoutState, Measure, Penalty))))
    return {".".join(map(str, path)): each for path, each in kept if isinstance(each, nnx.Variable)}


def is_built_in(space: SearchSpace[Any]) -> bool:
    """Whether the space comes with l2l, so that its name is enough to find it."""
    if space.name not in BUILT_IN:
        return False
    # The builder itself, for some of the spaces share one.
    return importlib.import_module(BUILT_IN[space.name]).build is space.build


def load(
    path: str | os.PathLike[str],
    *,
    space: SearchSpace[Learner] | None = None,
    weights: bool = True,
    rngs: nnx.Rngs | None = None,
) -> nnx.Module:
    """The found model in evaluation mode; it takes raw inputs `[B, *inputs]` and returns logits `[B, *targets, C]`.

    The folder's files are data: built-in spaces are resolved from a closed list, and a user's own `space` is
    handed in. With `weights=False` the model is untrained, drawn from `rngs`.

    Raises: InputError if a file is missing, altered, of a newer version or does not fit the architecture.
    """
    directory = Path(path)
    contents = verified(directory)
    architecture = _architecture(directory, contents[ARCHITECTURE])
    spec = Spec.read(architecture)
    build, values = _build(directory, architecture, space)
    tensors = _tensors(directory, contents[WEIGHTS])

    def make(streams: nnx.Rngs) -> nnx.Module:
        return add_preprocessing(build(values, spec).model(streams), spec)

    # Shapes alone first: what a file asks for is allocated once its own tensors have that size.
    try:
        expected = variables(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    except Exception as error:
        raise InputError(
            f"{directory / ARCHITECTURE} does not describe a model of the space {architecture['space']!r} "
            f"({type(error).__name__}: {error}); was it written with another version of that space?"
        ) from error
    if isinstance(values, _Read) and (unread := [name for name in values if name not in values.read]):
        raise InputError(
            f"{directory / ARCHITECTURE} has a value for {unread[0]!r}, which the space {architecture['space']!r} does "
            "not know: upgrade l2l to load it."
        )
    _compare(directory, expected, tensors)
    module = make(rngs or nnx.Rngs(0))
    for name, variable in variables(module).items():
        if weights or isinstance(variable, Statistic):
            variable[...] = jnp.asarray(tensors[name])
    module.eval()
    return module


def described(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `architecture.json` of a found model says: its space by name, its values and the fields of its `Spec`.

    Raises: InputError if a file of the folder is missing, altered, of a newer version or no such file.
    """
    return _architecture(Path(path), verified(Path(path))[ARCHITECTURE])


class _Read(Mapping[str, Any]):
    """Values that remember which of them were read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values, self.read = values, set[str]()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def _name(space: SearchSpace[Any]) -> str:
    """The space's name in the file; a user's own that bears a built-in name is told apart."""
    return f"{space.name} (own)" if space.name in BUILT_IN and not is_built_in(space) else space.name


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def verified(directory: Path) -> dict[str, bytes]:
    """The bytes of each file, every one equal to its digest."""
    if not (directory / SUMS).is_file():
        raise InputError(f"{directory} holds no found model ({SUMS} is missing); expected the best/ folder of a run.")
    contents: dict[str, bytes] = {}
    for line in filter(None, re.split(r"(?<=\n)", _bytes(directory, SUMS).decode(errors="replace"))):
        found = _LINE.fullmatch(line)
        if found is None:
            raise InputError(f"{directory / SUMS} is damaged at the line {line!r}; copy the whole folder again.")
        contents[found[2]] = _bytes(directory, found[2])
        if _digest(contents[found[2]]) != found[1]:
            raise InputError(f"{directory / found[2]} is damaged: its SHA-256 differs from {SUMS}; copy it again.")
    for name in (ARCHITECTURE, WEIGHTS, CARD):
        if name not in contents:
            raise InputError(f"{directory / SUMS} does not list {name}; copy the whole folder again.")
    return contents


def _bytes(directory: Path, name: str) -> bytes:
    """The content of a file that lies in the folder itself."""
    place = directory / name
    try:
        if os.path.dirname(os.path.realpath(place)) != os.path.realpath(directory):
            raise InputError(f"{directory} names {name!r}, a path that leaves the folder; do not use this model.")
        if not place.is_file():
            raise InputError(f"{place} is missing; copy the whole folder again.")
        return place.read_bytes()
    except OSError as error:
        raise InputError(f"{place} cannot be read ({error.strerror}); copy the whole folder again.") from error


def _architecture(directory: Path, content: bytes) -> dict[str, Any]:
    place = directory / ARCHITECTURE
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is not JSON ({error}); copy the folder again.") from None
    if not isinstance(found, dict) or type(found.get("version")) is not int:
        raise InputError(f"{place} has no version; expected a file that l2l wrote.")
    if found["version"] < 1:
        raise InputError(f"{place} has the version {found['version']}; expected a file that l2l wrote.")
    if found["version"] > VERSION:
        raise InputError(f"{place} is of version {found['version']}, newer than {VERSION}: upgrade l2l to load it.")
    found: dict[str, Any] = {**_LATER, **found}
    for name, kind in _FIELDS.items():
        if type(found.get(name)) is not kind:
            raise InputError(f"{place}: {name!r} must be of type {kind.__name__}, got {_kind(found.get(name))}.")
    sizes = [*found["inputs"], *found["targets"], found["outputs"], found["examples"], found["epochs"]]
    if not found["inputs"] or any(type(size) is not int or size < 1 for size in sizes):
        raise InputError(f"{place}: inputs, targets, outputs, examples and epochs must be whole numbers of at least 1.")
    if found["tokens"] < 0:
        raise InputError(f"{place}: tokens must be a whole number of at least 0, got {found['tokens']}.")
    for name, value in found["values"].items():
        if not (value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and isfinite(value))):
            raise InputError(f"{place}: the value of {name!r} must be one that a choice can have, got {_kind(value)}.")
    return found


def _kind(value: object) -> str:
    """A value's type, and a number itself; whatever else a file holds may be too long or too deep to be shown."""
    return f"{type(value).__name__} {value}" if isinstance(value, bool | int | float) else type(value).__name__


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
            f"l2l.load(path, space=my_space.space()); built in: {suggest_names('', BUILT_IN)}"
        )
    return importlib.import_module(BUILT_IN[name]).build, _Read(values)


def _tensors(directory: Path, content: bytes) -> dict[str, np.ndarray]:
    try:
        return {
            name: np.frombuffer(view["data"], jnp.dtype(_DTYPES[view["dtype"]])).reshape(view["shape"])
            for name, view in safetensors.deserialize(content)
        }
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{directory / WEIGHTS} is not a safetensors file ({error}); copy the folder again.") from None


def _compare(directory: Path, expected: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    place = directory / WEIGHTS
    for name, variable in expected.items():
        wanted = f"{variable.dtype} {list(variable.shape)}"
        if name not in tensors:
            raise InputError(f"{place} lacks the tensor {name!r} ({wanted}); it belongs to another model.")
        if (got := f"{tensors[name].dtype} {list(tensors[name].shape)}") != wanted:
            raise InputError(f"{place}: the tensor {name!r} is {got}, expected {wanted}; it belongs to another model.")
    for name in tensors:
        if name not in expected:
            raise InputError(f"{place} has a tensor {name!r} that the architecture does not know.")
