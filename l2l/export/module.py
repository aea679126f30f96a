"""A found model as a folder of data, and that folder as a Flax module again."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from l2l.engine.bucket import TrackedValues
from l2l.engine.data import add_preprocessing
from l2l.errors import InputError, suggest_names
from l2l.nn.blocks import Statistic
from l2l.nn.dropout import DropoutState
from l2l.nn.moe import Measure, Penalty
from l2l.space import SearchSpace
from l2l.store.builtin_spaces import BUILT_IN, is_built_in
from l2l.types import Learner, Spec

MODULE_VERSION = 1
"""Of the files of a module, in `architecture.json`."""
ARCHITECTURE_FILE, WEIGHTS_FILE, CARD_FILE, SUMS_FILE = (
    "architecture.json",
    "weights.safetensors",
    "MODEL.md",
    "SHA256SUMS",
)
"""The files of a module: its candidate and spec, its variables, what people read, and the digests of the others."""
_SUM_LINE = re.compile(r"([0-9a-f]{64})  ([^\0\n]{1,255})\n")
"""A line of the digests: SHA-256 in hexadecimal, two blanks, the file name."""
_DTYPES = {"BOOL": "bool", "BF16": "bfloat16"} | {
    f"{kind[0].upper()}{bits}": f"{kind}{bits}" for kind in ("float", "int", "uint") for bits in (8, 16, 32, 64)
}
_FIELDS = {
    "version": int, "space": str, "values": dict, "inputs": list, "outputs": int, "examples": int, "epochs": int,
    "tokens": int, "targets": list,
}  # fmt: skip
_LATER: dict[str, Any] = {"tokens": 0, "targets": []}
"""Optional fields of the file, and their defaults."""


class Architecture(NamedTuple):
    """The content of `architecture.json`."""

    space: str
    """Name of the search space."""
    values: Mapping[str, Any]
    spec: Spec


def save(
    directory: Path, space: SearchSpace[Learner], values: Mapping[str, Any], spec: Spec, module: nnx.Module, card: str
) -> None:
    """Writes `architecture.json`, `weights.safetensors`, `MODEL.md` (`card`) and their SHA-256, all or nothing."""
    architecture = {"version": MODULE_VERSION, "space": _name_space(space), "values": dict(values), **spec._asdict()}
    arrays = {name: np.asarray(variable[...], order="C") for name, variable in collect_variables(module).items()}
    files = {
        ARCHITECTURE_FILE: (json.dumps(architecture, indent=2, allow_nan=False) + "\n").encode(),
        WEIGHTS_FILE: safetensors.numpy.save(arrays),
        CARD_FILE: card.encode(),
    }
    files[SUMS_FILE] = "".join(f"{_compute_digest(content)}  {name}\n" for name, content in files.items()).encode()
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


def collect_variables(module: nnx.Module) -> dict[str, Any]:
    """The saved variables by dotted path: all but random streams, dropout's state and measures of training.

    An array that a model has outside a variable is a constant: building the model creates it again.
    """
    state = nnx.to_flat_state(nnx.state(module, nnx.Not(nnx.Any(nnx.RngState, DropoutState, Measure, Penalty))))
    return {".".join(map(str, path)): variable for path, variable in state if isinstance(variable, nnx.Variable)}


def load(
    path: str | os.PathLike[str],
    *,
    space: SearchSpace[Learner] | None = None,
    weights: bool = True,
    rngs: nnx.Rngs | None = None,
) -> nnx.Module:
    """The found model in evaluation mode; it takes raw inputs `[B, *inputs]` and returns logits `[B, *targets, C]`.

    The folder's files are data: built-in spaces are resolved from a closed list, and a custom `space` is passed
    in. With `weights=False` the model is untrained, initialised from `rngs`.

    Raises: InputError if a file is missing, altered, of a newer version or does not fit the architecture.
    """
    directory = Path(path)
    contents = read_verified(directory)
    architecture = _parse_architecture(directory, contents[ARCHITECTURE_FILE])
    build, values = _find_build(directory, architecture, space)
    tensors = _read_tensors(directory, contents[WEIGHTS_FILE])

    def build_module(streams: nnx.Rngs) -> nnx.Module:
        return add_preprocessing(build(values, architecture.spec).model(streams), architecture.spec)

    # Shapes alone first: memory is allocated only if the file's tensors have the sizes that its architecture needs.
    try:
        expected = collect_variables(nnx.eval_shape(lambda: build_module(nnx.Rngs(0))))
    except Exception as error:
        raise InputError(
            f"{directory / ARCHITECTURE_FILE} does not describe a model of the space {architecture.space!r} "
            f"({type(error).__name__}: {error}); was it written with another version of that space?"
        ) from error
    if isinstance(values, TrackedValues) and (unread := [name for name in values if name not in values.read]):
        raise InputError(
            f"{directory / ARCHITECTURE_FILE} has a value for {unread[0]!r}, which the space {architecture.space!r} "
            "does not know: upgrade l2l to load it."
        )
    _check_tensors(directory, expected, tensors)
    module = build_module(rngs or nnx.Rngs(0))
    for name, variable in collect_variables(module).items():
        if weights or isinstance(variable, Statistic):
            variable[...] = jnp.asarray(tensors[name])
    module.eval()
    return module


def read_architecture(path: str | os.PathLike[str]) -> Architecture:
    """Reads `architecture.json` of a found model.

    Raises: InputError if a file of the folder is missing, altered, of a newer version or not of this kind.
    """
    return _parse_architecture(Path(path), read_verified(Path(path))[ARCHITECTURE_FILE])


def _name_space(space: SearchSpace[Any]) -> str:
    """The space's name in the file; a custom space with a built-in name is marked."""
    return f"{space.name} (own)" if space.name in BUILT_IN and not is_built_in(space) else space.name


def _compute_digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_verified(directory: Path) -> dict[str, bytes]:
    """Reads the bytes of every file and checks them against its digest. Raises: InputError."""
    if not (directory / SUMS_FILE).is_file():
        raise InputError(
            f"{directory} holds no found model ({SUMS_FILE} is missing); expected the best/ folder of a run."
        )
    contents: dict[str, bytes] = {}
    for line in filter(None, re.split(r"(?<=\n)", _read_bytes(directory, SUMS_FILE).decode(errors="replace"))):
        match = _SUM_LINE.fullmatch(line)
        if match is None:
            raise InputError(f"{directory / SUMS_FILE} is damaged at the line {line!r}; copy the whole folder again.")
        digest, name = match.groups()
        contents[name] = _read_bytes(directory, name)
        if _compute_digest(contents[name]) != digest:
            raise InputError(f"{directory / name} is damaged: its SHA-256 differs from {SUMS_FILE}; copy it again.")
    for name in (ARCHITECTURE_FILE, WEIGHTS_FILE, CARD_FILE):
        if name not in contents:
            raise InputError(f"{directory / SUMS_FILE} does not list {name}; copy the whole folder again.")
    return contents


def _read_bytes(directory: Path, name: str) -> bytes:
    """Reads a file that lies in the folder itself. Raises: InputError."""
    path = directory / name
    try:
        if os.path.dirname(os.path.realpath(path)) != os.path.realpath(directory):
            raise InputError(f"{directory} names {name!r}, a path that leaves the folder; do not use this model.")
        if not path.is_file():
            raise InputError(f"{path} is missing; copy the whole folder again.")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); copy the whole folder again.") from error


def _parse_architecture(directory: Path, content: bytes) -> Architecture:
    """The checked content of `architecture.json`. Raises: InputError."""
    path = directory / ARCHITECTURE_FILE
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}); copy the folder again.") from None
    if not isinstance(fields, dict) or type(fields.get("version")) is not int:
        raise InputError(f"{path} has no version; expected a file that l2l wrote.")
    if fields["version"] < 1:
        raise InputError(f"{path} has the version {fields['version']}; expected a file that l2l wrote.")
    if fields["version"] > MODULE_VERSION:
        raise InputError(
            f"{path} is of version {fields['version']}, newer than {MODULE_VERSION}: upgrade l2l to load it."
        )
    fields: dict[str, Any] = {**_LATER, **fields}
    for name, kind in _FIELDS.items():
        if type(fields.get(name)) is not kind:
            raise InputError(
                f"{path}: {name!r} must be of type {kind.__name__}, got {_describe_type(fields.get(name))}."
            )
    sizes = [*fields["inputs"], *fields["targets"], fields["outputs"], fields["examples"], fields["epochs"]]
    if not fields["inputs"] or any(type(size) is not int or size < 1 for size in sizes):
        raise InputError(f"{path}: inputs, targets, outputs, examples and epochs must be integers of at least 1.")
    if fields["tokens"] < 0:
        raise InputError(f"{path}: tokens must be an integer of at least 0, got {fields['tokens']}.")
    for name, value in fields["values"].items():
        if not (value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and isfinite(value))):
            raise InputError(
                f"{path}: the value of {name!r} must be a number, a text, true, false or null, got "
                f"{_describe_type(value)}."
            )
    spec = Spec(**{name: fields[name] for name in Spec._fields})
    spec = spec._replace(inputs=tuple(spec.inputs), targets=tuple(spec.targets))
    return Architecture(fields["space"], fields["values"], spec)


def _describe_type(value: object) -> str:
    """A value's type, and the value if it is a number; anything else may be too long or too deep to show."""
    return f"{type(value).__name__} {value}" if isinstance(value, bool | int | float) else type(value).__name__


def _find_build(directory: Path, architecture: Architecture, space: SearchSpace[Learner] | None) -> tuple[Any, Any]:
    name, values, _ = architecture
    if space is not None:
        try:
            return space.build, space.candidate(values).values
        except InputError as error:
            raise InputError(f"{directory / ARCHITECTURE_FILE} does not fit the given space: {error}") from None
    if name not in BUILT_IN:
        raise InputError(
            f"{directory} was found in the space {name!r}, which is not built in; pass your own: "
            f"l2l.load(path, space=my_space.space()); built in: {suggest_names('', BUILT_IN)}"
        )
    return importlib.import_module(BUILT_IN[name]).build, TrackedValues(values)


def _read_tensors(directory: Path, content: bytes) -> dict[str, np.ndarray]:
    try:
        return {
            name: np.frombuffer(view["data"], jnp.dtype(_DTYPES[view["dtype"]])).reshape(view["shape"])
            for name, view in safetensors.deserialize(content)
        }
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{directory / WEIGHTS_FILE} is not a safetensors file ({error}); copy the folder again."
        ) from None


def _check_tensors(directory: Path, expected: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    path = directory / WEIGHTS_FILE
    for name, variable in expected.items():
        description = f"{variable.dtype} {list(variable.shape)}"
        if name not in tensors:
            raise InputError(f"{path} lacks the tensor {name!r} ({description}); it belongs to another model.")
        if (actual := f"{tensors[name].dtype} {list(tensors[name].shape)}") != description:
            raise InputError(
                f"{path}: the tensor {name!r} is {actual}, expected {description}; it belongs to another model."
            )
    for name in tensors:
        if name not in expected:
            raise InputError(f"{path} has a tensor {name!r} that the architecture does not know.")
