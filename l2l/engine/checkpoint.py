"""Checkpoints of trainings between two rungs: one file for each trial, checked by its digest, without any code."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from l2l import files
from l2l.engine.embedding import is_key, is_key_type

_FILE_NAME = re.compile(r"\.?(\d+)-(\d+)(\.\d+)?")
"""The name of a checkpoint or of its unfinished file: trial, epoch, process. Other files of the folder are not ours."""
_FIRST_LINE = b"l2l checkpoint 1\n"
"""The first bytes of a checkpoint: its kind and the version of its format."""

log = logging.getLogger("l2l")


class DamagedCheckpoint(ValueError):
    """A checkpoint is not what was written, or belongs to another program: its trial begins anew."""


class CheckpointFile(NamedTuple):
    """What the name of a checkpoint's file says."""

    path: Path
    trial: int
    epoch: int
    is_complete: bool


@dataclass(frozen=True)
class Checkpoints:
    """The states of running trials in one folder, by trial number and by the epoch after which they were saved.

    A lost or damaged checkpoint costs time and nothing else: a training from its start gives the same bits.
    """

    folder: Path

    def find_last_epoch(self, number: int) -> int:
        """The last epoch after which the trial was saved; 0 if it was not."""
        return max((file.epoch for file in self._list_files() if file.trial == number and file.is_complete), default=0)

    def save(self, number: int, epoch: int, program: str, leaves: Sequence[np.ndarray]) -> None:
        """Saves the leaves of a state of this program, and deletes the trial's checkpoints of other epochs."""
        arrays = [[leaf.dtype.name, list(leaf.shape)] for leaf in leaves]
        metadata = json.dumps({"name": program, "leaves": arrays}).encode() + b"\n"
        content = b"".join([metadata, *(np.ascontiguousarray(leaf).tobytes() for leaf in leaves)])
        data = _FIRST_LINE + hashlib.sha256(content).hexdigest().encode() + b"\n" + content
        try:
            self.folder.mkdir(exist_ok=True)
            files.write_atomically(
                self._path(number, epoch), data, durable=False
            )  # the digest shows what a crash has torn
        except OSError as error:
            log.warning("the checkpoint of trial %d cannot be saved: %s", number, error.strerror)
            return
        for file in self._list_files():
            if file.trial == number and file.epoch != epoch:
                file.path.unlink(missing_ok=True)

    def load(self, number: int, epoch: int, program: str) -> list[np.ndarray]:
        """The leaves that were saved after this epoch.

        Raises: DamagedCheckpoint if the file is not complete, or belongs to another program.
        """
        try:
            header, digest, content = self._path(number, epoch).read_bytes().split(b"\n", 2)
            if header + b"\n" != _FIRST_LINE or hashlib.sha256(content).hexdigest().encode() != digest:
                raise DamagedCheckpoint(f"the checkpoint of trial {number} is damaged")
        except (OSError, ValueError) as error:
            raise DamagedCheckpoint(str(error)) from error
        line, _, body = content.partition(b"\n")
        metadata = json.loads(line)
        if metadata["name"] != program:
            raise DamagedCheckpoint(f"the checkpoint of trial {number} belongs to another program")
        leaves: list[np.ndarray] = []
        start = 0
        for dtype, shape in metadata["leaves"]:
            leaf = np.ndarray(shape, np.dtype(dtype), body, start)
            leaves.append(leaf)
            start += leaf.nbytes
        return leaves

    def retain(self, numbers: Collection[int]) -> None:
        """Deletes the checkpoints of all other trials, and the folder if it is empty then."""
        with suppress(OSError):
            for file in self._list_files():
                if file.trial not in numbers:
                    file.path.unlink(missing_ok=True)
            if not numbers:
                self.folder.rmdir()

    def _list_files(self) -> list[CheckpointFile]:
        """The checkpoints in the folder, unfinished ones included."""
        with suppress(OSError):
            names = [(path, _FILE_NAME.fullmatch(path.name)) for path in self.folder.iterdir()]
            return [CheckpointFile(path, int(name[1]), int(name[2]), not name[3]) for path, name in names if name]
        return []

    def _path(self, number: int, epoch: int) -> Path:
        return self.folder / f"{number}-{epoch}"


def flatten_state(state: Any) -> list[np.ndarray]:
    """The leaves of a state on the host; of a typed key, its words."""
    return [np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf) for leaf in jax.tree.leaves(state)]


def unflatten_state(shapes: Any, leaves: Sequence[Any]) -> Any:
    """The state whose leaves `flatten_state` gave. Raises: DamagedCheckpoint if it has not these shapes."""
    expected, tree = jax.tree.flatten(shapes)
    words = [jax.eval_shape(jax.random.key_data, shape) if is_key_type(shape) else shape for shape in expected]
    if [(leaf.shape, leaf.dtype) for leaf in leaves] != [(shape.shape, shape.dtype) for shape in words]:
        raise DamagedCheckpoint("a checkpoint belongs to another program")
    pairs = zip(leaves, expected, strict=True)
    return jax.tree.unflatten(
        tree, [jax.random.wrap_key_data(leaf) if is_key_type(shape) else leaf for leaf, shape in pairs]
    )
