"""How the processes of a peer share candidates: whoever is free takes the next one, as l2l's workers do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def claim_candidates(folder: Path, count: int) -> Iterator[int]:
    """The candidates below `count` that this process is the first to take, each taken as it is asked for.

    A candidate is taken by whoever creates its file `NUMBER.taken`: the file system lets only one do so.
    """
    for number in range(count):
        try:
            (folder / f"{number}.taken").touch(exist_ok=False)
        except FileExistsError:
            continue
        yield number
