"""What `l2l show RUN` shows: the found architecture of a run, as a picture and in a line for each layer."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from l2l import files
from l2l.builtin import BUILT_IN
from l2l.errors import InputError
from l2l.export.module import ARCHITECTURE, SUMS, load, read_architecture
from l2l.show.summary import Box, outline
from l2l.show.svg import clean, picture
from l2l.space import SearchSpace
from l2l.types import Learner, Spec

PICTURE = "architecture.svg"
RECIPE = {
    *("optimizer", "learning_rate", "weight_decay", "momentum", "schedule", "warmup", "batch_size", "dropout"),
    "label_smoothing",
}
"""Values that are of the training wherever a space has them; any other is listed as the space's own."""


def architecture(place: str, out: str | None = None, space: SearchSpace[Learner] | None = None) -> str:
    """Draws what was found in the folder `place`, of a run or of a module, and returns where, with its outline.

    The picture goes to `architecture.svg` in that folder, or to `out`. What lies there is data: a `space` that is not
    built in is handed in.

    Raises: InputError if there is no found module, it is damaged, needs a `space`, or the picture cannot be written.
    """
    folder = _module(Path(place))
    target = Path(out) if out is not None else Path(place) / PICTURE
    if target.suffix.lower() not in ("", ".svg"):
        raise InputError(f"out={out}: the picture is an SVG; choose a name that ends in .svg.")
    about = read_architecture(folder)
    if space is None and about["space"] not in BUILT_IN:
        raise InputError(
            f"{folder} was found in the space {about['space']!r}, which is not built in: name it, as in "
            f"`l2l show {shlex.quote(place)} {_own(Path(place))}`."
        )
    spec = Spec.read(about)
    boxes = outline(load(folder, space=space), spec)
    total, idle = sum(box.parameters for box in boxes), sum(box.idle for box in boxes)
    note = f"{total:,} parameters" + (f", {total - idle:,} of them active for a token" if idle else "")
    drawn = picture(about["space"], f"{note}; those of each part stand at its right", boxes, lists(about))
    try:
        files.replace(target, drawn, durable=False)
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror}); choose a place with out=FILE.") from None
    return f"{_lines(boxes)}\n{clean(about['space'])}: {note}\npicture: {target.resolve()}"


def _module(place: Path) -> Path:
    """The folder of the found module that a run's folder, or a module's own, stands for."""
    if not os.path.isdir(place):
        what = "is a file" if os.path.exists(place) else "does not exist"
        raise InputError(f"{place} {what}; expected the folder of a run, as `l2l search` leaves it in runs/.")
    if (place / SUMS).is_file() or (place / ARCHITECTURE).is_file():
        return place
    if (place / "best").is_dir():
        return place / "best"
    again = f"the same call of l2l.search(..., out={str(place)!r})"
    if (place / "config.yaml").is_file():
        again = f"`l2l resume {shlex.quote(str(place))}`"
    elif not (place / "study.db").is_file() and not (place / "result.json").is_file():
        raise InputError(f"{place} is no run folder: it has neither best/ nor study.db; give one that a search left.")
    try:
        ended = json.loads((place / "result.json").read_text())["test"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{place} holds a search that has not ended, so it has no best/: {again} continues it."
        ) from None
    if ended is not None:
        raise InputError(f"{place} has lost its best/: {again} writes it again.")
    raise InputError(
        f"{place} has no best/, for its search handed nothing over (final=null); result.json says what it found."
    )


def _own(place: Path) -> str:
    """How a user's own space is named, as the run's configuration has it; that is read, and nothing in it called."""
    import yaml

    words = ["space._target_=MODULE.FUNCTION"]
    for folder in (place.resolve(), *place.resolve().parents[:2]):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError):
            node = yaml.safe_load((folder / "config.yaml").read_text())["space"]
            # Between brackets a plain value, too, comes without the mark of a document's end.
            dumped = {name: yaml.safe_dump([each], default_flow_style=True, width=9999) for name, each in node.items()}
            words = [f"space.{name}={text.strip()[1:-1]}" for name, text in dumped.items()]
            break
    return clean(shlex.join(words))


def lists(about: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """What stands beside the picture: the training recipe, and of the other values those that no box tells."""
    training: list[tuple[str, str]] = []
    others: list[tuple[str, str]] = []
    for name, value in about["values"].items():
        kind = "learning_rate" if name.endswith("_learning_rate") else name
        if kind in RECIPE:
            training.append((kind.replace("_", " "), _said(value)))
        elif about["space"] not in BUILT_IN or not re.match(r"layer\d+_", name):
            others.append((name.replace("_", " "), _said(value)))
    training += [("epochs", f"{about['epochs']:,}"), ("training examples", f"{about['examples']:,}")]
    return {"training": training, **({"choices": others} if others else {})}


def _said(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _lines(boxes: Sequence[Box]) -> str:
    """A line for each box: its parameters, those active for a token where they are fewer, its name and what it is."""
    active = any(box.idle for box in boxes)
    rows = [
        (
            f"{box.parameters:,}" if box.parameters else "",
            f"{box.parameters - box.idle:,}" if active and box.parameters else "",
            clean(box.name or box.title),
            clean(_told(box)),
        )
        for box in boxes
    ]
    rows = [("parameters", "active" if active else "", "", ""), *rows]
    long = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"{row[0]:>{long[0]}}  " + (f"{row[1]:>{long[1]}}  " if active else "") + f"{row[2]:<{long[2]}}  {row[3]}"
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _told(box: Box) -> str:
    """What a box is, in one line."""
    parts: list[str] = []
    for leaf in box.leaves():
        facts = ", ".join(leaf.facts)
        named = "" if leaf is box and leaf.name in ("", leaf.title) else leaf.title
        parts.append(f"{named} ({facts})" if named and facts else named or facts)
    return ", ".join(parts)
