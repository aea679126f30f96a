"""What tracing and compiling gave, in files beside JAX's compilation cache: a later process does neither again.

A file is found under a digest of everything that its content depends on: our own source, the libraries, the options
of JAX and XLA, the processor, the devices, the space and the task. A change of any of them leads to another file, so a
stale one is never read. Files hold pickles and machine code, as JAX's own cache does: both belong in a folder that
only their user can write. Of a user's own spaces and tasks nothing is kept, since their code cannot be followed.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import threading
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import cloudpickle
import jax
from jax.experimental import serialize_executable

from l2l.files import write_atomically
from l2l.machine import describe_processor

T = TypeVar("T")

log = logging.getLogger("l2l")

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "cloudpickle")
FOLDER = "traces"
"""The folder of the files, in that of JAX's compilation cache."""
MAX_BYTES = 4 << 30
"""Bytes of all files, above which those that were not used for longest are deleted."""
CACHE_HIT = "/jax/compilation_cache/cache_hits"
"""JAX's event for a program that it has read from its own cache instead of compiling it."""


class TraceFiles:
    """The files of one space and task; without a folder nothing is kept."""

    def __init__(self, folder: Path | None, context: str = "") -> None:
        self.folder, self.context = folder, context

    @classmethod
    def of(cls, identity: Mapping[str, Any] | None) -> TraceFiles:
        """The files of what `identity` describes, in the folder of JAX's cache; none if either is missing.

        The identity must tell apart all sources, spaces and tasks that lead to different programs.
        """
        root = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
        if identity is None or not root or "://" in root or not jax.config.jax_enable_compilation_cache:  # pyright: ignore
            return cls(None)
        return cls(Path(root) / FOLDER, json.dumps([describe_process(), identity], sort_keys=True))

    def name(self, *parts: Any) -> str:
        """The name of a file: a digest of its context and of these parts, plain values."""
        text = json.dumps(parts, sort_keys=True, default=repr)  # a user's task may give NumPy's numbers
        return hashlib.sha256(f"{self.context} {text}".encode()).hexdigest()[:32]

    def remember(self, compute: Callable[[], T], *parts: Any) -> T:
        """What `compute` gave when it was called first for these parts, in whatever process."""
        name = self.name(*parts)
        content = self._read(name)
        if content is not None:
            return content[0]
        value = compute()
        self._write(name, (value,))
        return value

    def load_program(self, name: str) -> tuple[Any, Any] | None:
        """An executable, and what was saved with it; None if there is none that can be loaded."""
        content = self._read(name)
        if content is None:
            return None
        serialised, in_tree, out_tree, extra = content
        try:
            devices = jax.local_devices()
            return serialize_executable.deserialize_and_load(
                serialised, in_tree, out_tree, execution_devices=devices[: extra[0]]
            ), extra[1]
        except Exception as error:  # what XLA raises has no common type; the program is compiled instead
            log.debug("the program %s cannot be loaded: %s", name, error)
            self._delete(name)
            return None

    def save_program(self, name: str, executable: Any, devices: int, extra: Any) -> None:
        """Saves an executable of so many devices, and `extra` with it, if it can be taken apart."""
        if self.folder is None:
            return
        try:
            self._write(name, (*serialize_executable.serialize(executable), (devices, extra)))
        except Exception as error:  # not every backend can, and each says so in its own way
            log.debug("the program %s cannot be saved: %s", name, error)

    def _read(self, name: str) -> Any:
        """The content of a file; None if there is none, or it is damaged."""
        if self.folder is None:
            return None
        path = self.folder / name
        try:
            data = path.read_bytes()
        except OSError:
            return None
        with suppress(OSError):  # a folder that cannot be written can be read all the same
            os.utime(path)
        digest, packed = data[:32], data[32:]
        if hashlib.sha256(packed).digest() != digest:
            self._delete(name)
            return None
        try:
            return cloudpickle.loads(zlib.decompress(packed))
        except Exception as error:  # whatever unpickling raises
            log.debug("the file %s cannot be read: %s", path, error)
            self._delete(name)
            return None

    def _write(self, name: str, content: Any) -> None:
        """Writes a file, and makes room for it; a folder that cannot be written is left as it is."""
        if self.folder is None:
            return
        packed = zlib.compress(cloudpickle.dumps(content), 1)
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(self.folder / name, hashlib.sha256(packed).digest() + packed, durable=False)
            _limit_bytes(self.folder, MAX_BYTES)

    def _delete(self, name: str) -> None:
        if self.folder is not None:
            with suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)


NO_FILES = TraceFiles(None)
"""Where nothing is kept."""


class CacheHits:
    """Counts what JAX has read from its own compilation cache, thread by thread.

    An executable that was read cannot be taken apart again: it would lack the functions that it is made of.
    """

    def __init__(self) -> None:
        self._local = threading.local()
        jax.monitoring.register_event_listener(self._listen)

    @property
    def count(self) -> int:
        """Programs that this thread has read so far."""
        return getattr(self._local, "count", 0)

    def _listen(self, event: str, **_: Any) -> None:
        if event == CACHE_HIT:
            self._local.count = self.count + 1


@functools.cache
def count_cache_hits() -> CacheHits:
    """The one counter of this process."""
    return CacheHits()


def describe_process() -> dict[str, Any]:
    """What programs depend on besides our source, space and task: libraries, options, processor and devices."""
    options = {name: str(value) for name, value in jax.config.values.items() if "cache" not in name}
    return {
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "options": options,
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "python": platform.python_version(),
        "processor": describe_processor(),
        "devices": [f"{device.platform} {device.device_kind}" for device in jax.local_devices()],
    }


def _limit_bytes(folder: Path, most: int) -> None:
    """Deletes the files that were not used for longest until the others have at most so many bytes."""
    files: list[tuple[float, int, Path]] = []
    for entry in os.scandir(folder):
        with suppress(OSError):
            status = entry.stat()
            files.append((status.st_mtime, status.st_size, Path(entry.path)))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= most:
            return
        path.unlink(missing_ok=True)
        total -= size
