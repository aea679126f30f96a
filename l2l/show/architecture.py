"""Shows the found architecture of a run: as a picture, and as text with a line for each layer."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from l2l import files
from l2l.errors import InputError
from l2l.export.module import ARCHITECTURE_FILE, SUMS_FILE, Architecture, load, read_architecture
from l2l.run.result import SearchRecord
from l2l.run.run_folder import CONFIG, RESULT
from l2l.show.summary import Box, outline
from l2l.show.svg import draw_picture, replace_unprintable
from l2l.show.text_columns import Column, align_columns
from l2l.space import SearchSpace
from l2l.store.builtin_spaces import BUILT_IN
from l2l.types import Learner

PICTURE = "architecture.svg"
RECIPE = {
    *("optimizer", "learning_rate", "weight_decay", "momentum", "schedule", "warmup", "batch_size", "dropout"),
    "label_smoothing",
}
"""Values that belong to the training in every space; any other is listed as the space's own."""


def draw_architecture(run: str, out: str | None = None, space: SearchSpace[Learner] | None = None) -> str:
    """Draws the module found in the folder `run`, of a run or of a module; returns its outline and the picture's path.

    The picture goes to `architecture.svg` in that folder, or to `out`. The folder's files are data: a custom `space`
    is passed in.

    Raises: InputError if there is no found module, it is damaged, needs a `space`, or the picture cannot be written.
    """
    folder = _find_module(Path(run))
    target = Path(out) if out is not None else Path(run) / PICTURE
    if target.suffix.lower() not in ("", ".svg"):
        raise InputError(f"out={out}: the picture is an SVG; choose a name that ends in .svg.")
    architecture = read_architecture(folder)
    name = architecture.space
    if space is None and name not in BUILT_IN:
        raise InputError(
            f"{folder} was found in the space {name!r}, which is not built in: name it, as in "
            f"`l2l show {shlex.quote(run)} {_suggest_space(Path(run))}`."
        )
    boxes = outline(load(folder, space=space), architecture.spec)
    total, idle = sum(box.parameters for box in boxes), sum(box.idle_parameters for box in boxes)
    count = f"{total:,} parameters" + (f", {total - idle:,} of them active for a token" if idle else "")
    svg = draw_picture(name, f"{count}; those of each part stand at its right", boxes, list_values(architecture))
    try:
        files.write_atomically(target, svg, durable=False)
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror}); choose another out=FILE.") from None
    return f"{_write_outline(boxes)}\n{replace_unprintable(name)}: {count}\npicture: {target.resolve()}"


def _find_module(path: Path) -> Path:
    """The folder of the found module: that of a run has it in `best`. Raises: InputError if there is none."""
    if not os.path.isdir(path):
        problem = "is a file" if os.path.exists(path) else "does not exist"
        raise InputError(f"{path} {problem}; expected the folder of a run, as `l2l search` leaves it in runs/.")
    if (path / SUMS_FILE).is_file() or (path / ARCHITECTURE_FILE).is_file():
        return path
    if (path / "best").is_dir():
        return path / "best"
    again = f"the same call of l2l.search(..., out={str(path)!r})"
    if (path / CONFIG).is_file():
        again = f"`l2l resume {shlex.quote(str(path))}`"
    elif not (path / "study.db").is_file() and not (path / RESULT).is_file():
        raise InputError(f"{path} is no run folder: it has neither best/ nor study.db; give the folder of a search.")
    try:
        test = SearchRecord.from_json(json.loads((path / RESULT).read_text())).test
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{path} holds a search that has not ended, so it has no best/: {again} continues it."
        ) from None
    if test is not None:
        raise InputError(f"{path} has lost its best/: {again} writes it again.")
    raise InputError(
        f"{path} has no best/, for its search exported nothing (final=null); result.json says what it found."
    )


def _suggest_space(path: Path) -> str:
    """The overrides that name a custom space, as the run's configuration has it; the file is read, never executed."""
    import yaml

    words = ["space._target_=MODULE.FUNCTION"]
    for folder in (path.resolve(), *path.resolve().parents[:2]):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError):
            node = yaml.safe_load((folder / CONFIG).read_text())["space"]
            # In brackets, since YAML ends a document that is a plain value with a mark.
            texts = {name: yaml.safe_dump([value], default_flow_style=True, width=9999) for name, value in node.items()}
            words = [f"space.{name}={text.strip()[1:-1]}" for name, text in texts.items()]
            break
    return replace_unprintable(shlex.join(words))


def list_values(architecture: Architecture) -> dict[str, list[tuple[str, str]]]:
    """The lists beside the picture: the training recipe, and the other values that no box shows."""
    training: list[tuple[str, str]] = []
    others: list[tuple[str, str]] = []
    spec = architecture.spec
    for name, value in architecture.values.items():
        kind = "learning_rate" if name.endswith("_learning_rate") else name
        if kind in RECIPE:
            training.append((kind.replace("_", " "), _format_value(value)))
        elif architecture.space not in BUILT_IN or not re.match(r"layer\d+_", name):
            others.append((name.replace("_", " "), _format_value(value)))
    training += [("epochs", f"{spec.epochs:,}"), ("training examples", f"{spec.examples:,}")]
    return {"training": training, **({"choices": others} if others else {})}


def _format_value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _write_outline(boxes: Sequence[Box]) -> str:
    """A line for each box: its parameters, those active for a token where they are fewer, its name and its layers."""
    has_idle = any(box.idle_parameters for box in boxes)
    columns = [Column("parameters", is_number=True), Column(""), Column("")]
    rows = [
        [
            f"{box.parameters:,}" if box.parameters else "",
            *([f"{box.parameters - box.idle_parameters:,}" if box.parameters else ""] if has_idle else []),
            replace_unprintable(box.name or box.title),
            replace_unprintable(_describe_box(box)),
        ]
        for box in boxes
    ]
    if has_idle:
        columns.insert(1, Column("active", is_number=True))
    return "\n".join(align_columns(columns, rows))


def _describe_box(box: Box) -> str:
    """The layers of a box, in one line."""
    parts: list[str] = []
    for leaf in box.leaves():
        facts = ", ".join(leaf.facts)
        title = "" if leaf is box and leaf.name in ("", leaf.title) else leaf.title
        parts.append(f"{title} ({facts})" if title and facts else title or facts)
    return ", ".join(parts)
