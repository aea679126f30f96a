"""Boxes from the input to the logits as a picture: SVG, written by hand, the same bytes for the same boxes."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from xml.sax.saxutils import escape

from l2l.nn.description import format_shape
from l2l.show.summary import Box

FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"
INK, GREY, LINE, FRAME = "#1f2937", "#6b7280", "#64748b", "#cbd5e1"
TONES = {
    "data": ("#f8fafc", "#94a3b8"), "plain": ("#eef2f7", "#94a3b8"), "norm": ("#faf5d7", "#d3c470"),
    "attention": ("#e0ecff", "#7aa2e3"), "dense": ("#e0f3e4", "#79bd89"), "experts": ("#fdead2", "#dfa25a"),
}  # fmt: skip
"""Fill and border of a box by its kind."""
MARGIN, BOX_WIDTH, GUTTER, SIDE = 24, 460, 36, 250
"""Pixels around the picture, of the boxes, between them and the lists beside, and of those."""
PAD, ROW, GAP, BYPASS = 12, 17, 16, 26
"""Pixels within a box's border, of a line of text, of an arrow within a box, and beside what is added to its input."""
ARROW = 30
"""Pixels from a layer to the next."""
TEXT, HEAD = 12, 20
"""Sizes of the type."""


def replace_unprintable(text: str) -> str:
    """The text with a placeholder for each character that cannot be printed."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def estimate_width(text: str, size: float = TEXT, bold: bool = False) -> float:
    """An upper bound of a text's width in pixels, for every common sans-serif type."""
    width = 0.0
    for character in text:
        if character in "ijl.,:;'|!tfrI()[] /\\-·":
            width += 0.43
        elif character in "mwMW@%<>+=~#^\N{MULTIPLICATION SIGN}" or (
            ord(character) > 0x2000 and unicodedata.east_asian_width(character) not in "WF"
        ):
            width += 1.0
        elif unicodedata.east_asian_width(character) in "WF":
            width += 1.1
        else:
            width += 0.8 if character.isupper() else 0.65
    return width * size * (1.12 if bold else 1.0)


def wrap_text(text: str, room: float, size: float = TEXT, bold: bool = False) -> list[str]:
    """A text in lines of at most `room` pixels, broken at spaces where there are any."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if estimate_width(longer, size, bold) <= room:
            lines[-1] = longer
            continue
        lines.append("")
        for character in word:
            if lines[-1] and estimate_width(lines[-1] + character, size, bold) > room:
                lines.append("")
            lines[-1] += character
    return [line for line in lines if line] or [""]


def join_facts(facts: Iterable[str], room: float) -> list[str]:
    """Facts in lines of at most `room` pixels, broken between facts where that is possible."""
    lines: list[str] = []
    for fact in facts:
        if lines and estimate_width(longer := f"{lines[-1]} · {fact}") <= room:
            lines[-1] = longer
        else:
            lines += wrap_text(fact, room)
    return lines


def draw_picture(title: str, note: str, boxes: Sequence[Box], lists: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """The boxes from top to bottom, with lists of names and values beside them, as SVG."""
    page, top = _Page(), MARGIN + HEAD
    width = 2 * MARGIN + BOX_WIDTH + GUTTER + SIDE
    for line in wrap_text(replace_unprintable(title), width - 2 * MARGIN, HEAD, True):
        page.text(MARGIN, top, line, size=HEAD, bold=True)
        top += HEAD + 6
    for line in wrap_text(replace_unprintable(note), width - 2 * MARGIN):
        page.text(MARGIN, top, line, fill=GREY)
        top += ROW
    top += 12
    bottom = _draw_column(page, boxes, MARGIN, top, BOX_WIDTH, ARROW)
    list_top = top
    for heading, rows in lists.items():
        list_top = _draw_list(page, heading, rows, MARGIN + BOX_WIDTH + GUTTER, list_top)
    height = max(bottom, list_top - 18) + MARGIN
    body = "\n".join(page.parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" font-family="{FONT}">\n<title>{escape(replace_unprintable(f"{title}: {note}"))}</title>\n'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


class _Page:
    """The elements of a picture, in the order in which they are painted."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def text(
        self, x: float, y: float, text: str, *, size: int = TEXT, bold: bool = False, fill: str = INK, end: bool = False
    ) -> None:
        """A line of text that begins, or ends, at x."""
        more = ' font-weight="bold"' if bold else ""
        more += ' text-anchor="end"' if end else ""
        self.parts.append(f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{fill}"{more}>{escape(text)}</text>')

    def name_and_title(self, x: float, y: float, name: str, title: str) -> None:
        """A name in grey and a title behind it."""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{TEXT}" fill="{GREY}">{escape(name)}'
            f'<tspan dx="8" font-weight="bold" fill="{INK}">{escape(title)}</tspan></text>'
        )

    def line(self, *points: tuple[float, float], arrow: bool = False) -> None:
        """A line through points; with an arrow, a head at its end, which is downwards or to the right."""
        path = "M" + " L".join(f"{x:g},{y:g}" for x, y in points)
        self.parts.append(f'<path d="{path}" fill="none" stroke="{LINE}" stroke-width="1.4"/>')
        if arrow:
            (x, y), (_, before) = points[-1], points[-2]
            head = [(x - 4, y - 7), (x + 4, y - 7)] if y > before else [(x - 7, y - 4), (x - 7, y + 4)]
            corners = " ".join(f"{a:g},{b:g}" for a, b in (points[-1], *head))
            self.parts.append(f'<polygon points="{corners}" fill="{LINE}"/>')

    def frame(self, at: int, x: float, y: float, width: float, height: float, fill: str, stroke: str) -> None:
        """A box, painted before part number `at`."""
        self.parts.insert(
            at,
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="7" fill="{fill}" '
            f'stroke="{stroke}" stroke-width="1.2"/>',
        )


def _draw_column(page: _Page, boxes: Sequence[Box], x: float, y: float, width: float, gap: int) -> float:
    """Boxes below one another, joined by arrows that say what passes; returns where the last one ends."""
    middle, goes_around = x + width / 2, gap == GAP and any(box.skip for box in boxes)
    for number, box in enumerate(boxes):
        if number:
            page.line((middle, y), (middle, y + gap), arrow=not box.skip)
            if gap == ARROW and boxes[number - 1].shape:
                page.text(middle + 10, y + gap / 2 + 4, format_shape(boxes[number - 1].shape), size=11, fill=GREY)
            y += gap
        bypass = BYPASS if goes_around and not box.skip else 0
        y = _draw_box(page, box, x + bypass, y, width - 2 * bypass)
    return y


def _draw_box(page: _Page, box: Box, x: float, y: float, width: float) -> float:
    if box.skip:
        return _draw_skip(page, box, x, y, width)
    start = len(page.parts)
    bottom = _draw_texts(page, box, x, y, width)
    if box.inner:
        middle = x + width / 2
        page.line((middle, bottom - 2), (middle, bottom + 8), arrow=not box.inner[0].skip)
        bottom = _draw_column(page, box.inner, x + PAD, bottom + 8, width - 2 * PAD, GAP)
        page.line((middle, bottom), (middle, bottom + PAD))
        bottom += PAD
    fill, stroke = ("#ffffff", FRAME) if box.inner else TONES.get(box.tone, TONES["plain"])
    page.frame(start, x, y, width, bottom - y, fill, stroke)
    return bottom


def _draw_skip(page: _Page, box: Box, x: float, y: float, width: float) -> float:
    """A box, or several, and an arrow that leads around them to a sum."""
    middle, bypass, within = x + width / 2, x + BYPASS / 2, y + 20
    parts = box.inner or (replace(box, skip=False),)
    page.line((middle, y), (middle, within), arrow=True)
    bottom = _draw_column(page, parts, x + BYPASS, within, width - 2 * BYPASS, GAP)
    plus = bottom + 19
    page.line((middle, bottom), (middle, plus - 8))
    page.line((middle, y + 6), (bypass, y + 6), (bypass, plus), (middle - 8, plus), arrow=True)
    page.parts.append(
        f'<circle cx="{middle:g}" cy="{plus:g}" r="8" fill="#ffffff" stroke="{LINE}" stroke-width="1.4"/>'
    )
    page.line((middle - 4, plus), (middle + 4, plus))
    page.line((middle, plus - 4), (middle, plus + 4))
    return plus + 8


def _draw_texts(page: _Page, box: Box, x: float, y: float, width: float) -> float:
    """The texts of a box; returns where they end."""
    room, y = width - 2 * PAD, y + 19
    count = f"{box.parameters:,}" if box.parameters else ""
    name, title = replace_unprintable(box.name), replace_unprintable(box.title)
    left = room - (estimate_width(count) + 14 if count else 0)
    if count:
        page.text(x + width - PAD, y, count, fill=GREY, end=True)
    if name and title and estimate_width(f"{name}  ") + estimate_width(title, bold=True) <= left:
        page.name_and_title(x + PAD, y, name, title)
        y += ROW
    else:
        for line in wrap_text(f"{name} {title}".strip(), left, bold=True):
            page.text(x + PAD, y, line, bold=True)
            y += ROW
    total, idle = box.own_parameters, box.own_idle
    active = [f"{total - idle:,} of {total:,} parameters active for a token"] if idle else []
    for line in join_facts(map(replace_unprintable, (*box.facts, *active)), room):
        page.text(x + PAD, y, line)
        y += ROW
    experts, active_experts = box.experts
    if experts and experts * 13 <= room:
        fill, stroke = TONES["experts"]
        for index in range(experts):
            shade = stroke if index < active_experts else fill
            page.parts.append(
                f'<rect x="{x + PAD + 13 * index:g}" y="{y - 9:g}" width="9" height="9" rx="2" fill="{shade}" '
                f'stroke="{stroke}"/>'
            )
        y += ROW
    return y - 7


def _draw_list(page: _Page, heading: str, rows: Sequence[tuple[str, str]], x: float, y: float) -> float:
    """Names and values under a heading; returns where the next list begins."""
    y += 12
    page.text(x, y, heading, size=14, bold=True)
    y += 8
    page.line((x, y), (x + SIDE, y))
    for name, value in rows:
        name, value = replace_unprintable(name), replace_unprintable(value)
        y += ROW + 2
        if estimate_width(name) + estimate_width(value) + 14 <= SIDE:
            page.text(x, y, name, fill=GREY)
            page.text(x + SIDE, y, value, end=True)
            continue
        for line in wrap_text(name, SIDE):
            page.text(x, y, line, fill=GREY)
            y += ROW
        for line in wrap_text(value, SIDE - 12):
            page.text(x + SIDE, y, line, end=True)
            y += ROW
        y -= ROW
    return y + 34
