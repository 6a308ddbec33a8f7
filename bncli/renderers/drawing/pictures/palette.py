"""The colours of pages and pictures, by what they are for; light and dark.

Letters have a contrast of at least 4.5 with the paper, lines and marks of at least 3 (WCAG 2, AA).
The series' colours are told apart by people with any of the common colour blindnesses, and each has
a mark and a style of line of its own besides.
"""

from __future__ import annotations

from bncli.light import dataclass
from bncli.report import Severity

LIGHT = {
    "paper": "#ffffff",
    "panel": "#f6f7f9",
    "ink": "#1c2128",
    "muted": "#57606a",
    "grid": "#e3e6ea",
    "line": "#7d858f",
    "link": "#0b5cad",
    "error": "#b3261e",
    "warning": "#8a5a00",
    "info": "#2f5fa8",
    "good": "#1a6b3c",
    "nothing": "#7b3f98",
    "series0": "#0068b5",
    "series1": "#c2500a",
    "series2": "#00795c",
    "series3": "#a33f93",
    "series4": "#7a6a00",
    "series5": "#4b4fa0",
    "series6": "#5c636b",
}

DARK = {
    "paper": "#14181f",
    "panel": "#1c222b",
    "ink": "#e2e6ec",
    "muted": "#a3adba",
    "grid": "#2e3641",
    "line": "#7d8896",
    "link": "#82bdff",
    "error": "#ff8f85",
    "warning": "#e8b84a",
    "info": "#8dbbff",
    "good": "#6fd08c",
    "nothing": "#d6a8f2",
    "series0": "#62b3f5",
    "series1": "#f59a55",
    "series2": "#4fc9a4",
    "series3": "#f0a0cf",
    "series4": "#d3c14a",
    "series5": "#a5a8f5",
    "series6": "#b3bac4",
}

SERIES = 7
"""How many colours there are for series; an eighth one has the first colour and another mark."""

PLACEHOLDERS = {role: f"#0102{number:02x}" for number, role in enumerate(LIGHT)}
"""For a page: colours that stand for the roles until each becomes a variable of its style sheet."""

MARKERS = "os^DvP*<>p"
"""matplotlib's names of the marks of series, in their order."""

DASHES: tuple[str | tuple[float, tuple[float, ...]], ...] = (
    "-", (0.0, (5.0, 2.0)), (0.0, (1.5, 1.5)), (0.0, (7.0, 2.0, 1.5, 2.0)), (0.0, (3.0, 1.0)),
)  # fmt: skip
"""matplotlib's styles of the lines of series, in their order."""

SEVERITY_MARKERS = {Severity.ERROR: "X", Severity.WARNING: "^", Severity.INFO: "D"}
"""matplotlib's names of the marks of findings."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a series looks: its colour, its mark and its style of line, in matplotlib's words."""

    color: str
    marker: str
    dashes: str | tuple[float, tuple[float, ...]]


def look_of(number: int, lines: int, colors: dict[str, str]) -> Look:
    """The look of the series of that number, from 0, before which there are `lines` lines."""
    return Look(
        colors[f"series{number % SERIES}"],
        MARKERS[number % len(MARKERS)],
        DASHES[lines % len(DASHES)],
    )


def variables(colors: dict[str, str]) -> str:
    """The colours as declarations for a style sheet, one for each role."""
    return " ".join(f"--bn-{role}: {color};" for role, color in colors.items())
