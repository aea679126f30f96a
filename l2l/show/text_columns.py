"""Text in aligned columns, for a terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import Box
from rich.console import Console
from rich.table import Table
from rich.text import Text

UNDERLINED_HEAD = Box("    \n    \n -  \n    \n    \n    \n    \n    \n", ascii=True)
"""Nothing but a line of dashes below the head."""
UNLIMITED = 100_000
"""A width in characters that no line reaches: whoever reads the text breaks its lines, or does not."""


@dataclass(frozen=True)
class Column:
    """The head of a column, and how its cells stand below it."""

    head: str
    max_width: int | None = None
    """Maximum characters per line; longer cells take several lines."""
    is_number: bool = False
    """Whether the cells are aligned at the right."""


def align_columns(columns: Sequence[Column], rows: Sequence[Sequence[str]], underline: bool = False) -> list[str]:
    """The lines of a table with a head, whose columns are as wide as their cells."""
    table = Table(
        box=UNDERLINED_HEAD if underline else None, padding=(0, 1, 0, 0) if underline else (0, 2, 0, 0),
        pad_edge=False, show_edge=False, header_style="",
    )  # fmt: skip
    for column in columns:
        justify = "right" if column.is_number else "left"
        table.add_column(Text(column.head), max_width=column.max_width, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    screen = Console(file=io.StringIO(), width=UNLIMITED, color_system=None, force_terminal=False)
    with screen.capture() as capture:
        screen.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]
