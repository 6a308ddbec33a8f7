"""The report for people as a picture, for a page, an issue or a talk.

It is the text that a terminal shows, drawn word by word on a background of its own, so that it can
be read on a light page and on a dark one. It refers to nothing outside of itself, not even a font,
and the same report gives the same picture, byte for byte.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from bncli.renderers import table
from bncli.renderers.drawing.grid import NARROW

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bncli.renderers.interface import RenderContext
    from bncli.report import Report

SIZE, ADVANCE, LEADING, MARGIN = 14, 8.4, 20, 16
"""In pixels: the letters' size, the width of one, the height of a line, the space around all."""

CLASSES = {
    "1": "bold", "2": "dim", "31": "red", "32": "green", "33": "yellow", "34": "blue",
    "35": "magenta", "36": "cyan", "39": "",
}  # fmt: skip
"""What each escape sequence of the report for people asks for, as the name of a class in STYLE."""

STYLE = """\
.bncli { font: 14px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #d5dbe3 }
.bncli .paper { fill: #14181f }
.bncli .bold { font-weight: bold }
.bncli .dim { fill: #98a2b0 }
.bncli .red { fill: #ff7b72 }
.bncli .green { fill: #56d364 }
.bncli .yellow { fill: #e3b341 }
.bncli .blue { fill: #79c0ff }
.bncli .magenta { fill: #d2a8ff }
.bncli .cyan { fill: #56d4dd }
"""

RUN = re.compile(r"\x1b\[([\d;]+)m(.*?)\x1b\[0m|[^\x1b]+")
"""Text in one style: with the escape sequences around it, or without any."""

WORDS = re.compile(r"\S+(?: \S+)*")
"""Text whose place is fixed at its beginning: wider gaps separate the columns of a table."""


def render(report: Report, context: RenderContext) -> str:
    """The picture, as wide as `context.width` columns, or NARROW where that is not known."""
    from rich.cells import cell_len

    shown = replace(context, width=context.width or NARROW, color=True)
    lines = [list(_runs(line)) for line in table.render(report, shown).splitlines()]
    longest = max(sum(cell_len(text) for text, _ in line) for line in lines)
    width = round(max(longest, NARROW) * ADVANCE) + 2 * MARGIN
    height = len(lines) * LEADING + 2 * MARGIN
    title = f"bncli {report.command}"
    size = f'width="{width}" height="{height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="bncli" role="img" {size}',
            f'     viewBox="0 0 {width} {height}" aria-label={quoteattr(title)}>',
            f"<title>{escape(title)}</title>",
            f"<style>\n{STYLE}</style>",
            f'<rect class="paper" {size} rx="8"/>',
            *(drawn for number, line in enumerate(lines) for drawn in _drawn(line, number)),
            "</svg>\n",
        ]
    )


def _runs(line: str) -> Iterator[tuple[str, str]]:
    """The parts of a line of the report, each with its classes."""
    for match in RUN.finditer(line):
        codes = match[1].split(";") if match[1] else []
        text = match[0] if match[1] is None else match[2]
        yield text, " ".join(filter(None, (CLASSES[code] for code in codes)))


def _drawn(line: list[tuple[str, str]], number: int) -> Iterator[str]:
    """The parts of a line as elements, each at its column and as wide as its columns."""
    from rich.cells import cell_len

    column = 0
    y = MARGIN + number * LEADING + SIZE
    for text, classes in line:
        styled = f' class="{classes}"' if classes else ""
        for words in WORDS.finditer(text):
            x = MARGIN + (column + cell_len(text[: words.start()])) * ADVANCE
            length = cell_len(words[0]) * ADVANCE
            yield (
                f'<text{styled} x="{x:.1f}" y="{y}" textLength="{length:.1f}">'
                f"{escape(words[0])}</text>"
            )
        column += cell_len(text)
