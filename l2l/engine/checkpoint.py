"""Where a training stands between two rungs: a file for each trial, data only, told whole or lost by its digest."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from l2l import files

_OURS = re.compile(r"\.?(\d+)-(\d+)(\.\d+)?")
"""The name of a checkpoint, or of one that was being written: in a folder that others use, the rest is theirs."""
_MARK = b"l2l checkpoint 1\n"

log = logging.getLogger("l2l")


class Damaged(ValueError):
    """What was kept is not what was written, or belongs to another program: the trial begins anew."""


@dataclass(frozen=True)
class Checkpoints:
    """The states of running trials in one folder, by trial number and the epoch that each stands after.

    What is lost or damaged costs time and nothing else: a training from its start gives the same bits.
    """

    folder: Path

    def epoch(self, number: int) -> int:
        """The last epoch after which the trial was kept; 0 if it was not."""
        return max((int(found[2]) for found in self._found() if int(found[1]) == number and not found[3]), default=0)

    def save(self, number: int, epoch: int, name: str, leaves: Sequence[np.ndarray]) -> None:
        """Keeps the leaves of a state under the `name` of its program, in place of an earlier epoch's."""
        about = [[leaf.dtype.name, list(leaf.shape)] for leaf in leaves]
        head = json.dumps({"name": name, "leaves": about}).encode() + b"\n"
        content = b"".join([head, *(np.ascontiguousarray(leaf).tobytes() for leaf in leaves)])
        whole = _MARK + hashlib.sha256(content).hexdigest().encode() + b"\n" + content
        try:
            self.folder.mkdir(exist_ok=True)
            files.replace(self._path(number, epoch), whole, durable=False)  # the digest tells what a crash tore
        except OSError as error:
            log.warning("trial %d is not kept between its rungs: %s", number, error.strerror)
            return
        for found in self._found():
            if int(found[1]) == number and int(found[2]) != epoch:
                (self.folder / found[0]).unlink(missing_ok=True)

    def load(self, number: int, epoch: int, name: str) -> list[np.ndarray]:
        """The leaves that were kept under `name` after this epoch. Raises: Damaged if they are not whole."""
        try:
            mark, digest, content = self._path(number, epoch).read_bytes().split(b"\n", 2)
            if mark + b"\n" != _MARK or hashlib.sha256(content).hexdigest().encode() != digest:
                raise Damaged(f"the checkpoint of trial {number} is damaged")
        except (OSError, ValueError) as error:
            raise Damaged(str(error)) from error
        head, _, body = content.partition(b"\n")
        about = json.loads(head)
        if about["name"] != name:
            raise Damaged(f"the checkpoint of trial {number} belongs to another program")
        leaves: list[np.ndarray] = []
        start = 0
        for dtype, shape in about["leaves"]:
            leaf = np.ndarray(shape, np.dtype(dtype), body, start)
            leaves.append(leaf)
            start += leaf.nbytes
        return leaves

    def retain(self, numbers: Collection[int]) -> None:
        """Deletes what was kept of every other trial, and an empty folder."""
        with suppress(OSError):
            for found in self._found():
                if int(found[1]) not in numbers:
                    (self.folder / found[0]).unlink(missing_ok=True)
            if not numbers:
                self.folder.rmdir()

    def _found(self) -> list[re.Match[str]]:
        """The names of the checkpoints that lie in the folder."""
        with suppress(OSError):
            return [found for path in self.folder.iterdir() if (found := _OURS.fullmatch(path.name))]
        return []

    def _path(self, number: int, epoch: int) -> Path:
        return self.folder / f"{number}-{epoch}"
