"""What the tables that carry the answer have in common: few rows, the troubled ones first."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.report import ANSWER_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    Row = TypeVar("Row")

FEW_ROWS = 8
"""Rows that are all shown, though some of them are in trouble and others are not."""

MOST_NAMES = 4
"""Names that a verdict lists."""

LEAST_SHARE, MOST_SHARE = 0.01, 10
"""The shares between which a whole number of percent says enough."""


def known(value: float | None) -> float | None:
    """A number; None where it is not finite."""
    return value if value is not None and math.isfinite(value) else None


def troubled_first(
    rows: Sequence[Row], troubled: Callable[[Row], bool]
) -> tuple[list[Row], list[Row]]:
    """The rows to show, those in trouble before the others, and those that are left.

    Where some are in trouble and the rows are not few, the others are left. Both keep the order of
    `rows` among their like.
    """
    ordered = sorted(rows, key=lambda row: not troubled(row))
    most = most_rows(len(rows), sum(map(troubled, rows)))
    return ordered[:most], ordered[most:]


def most_rows(rows: int, troubled: int) -> int:
    """How many of a number of rows are shown; those in trouble come first."""
    alone = troubled > 0 and rows > FEW_ROWS
    return min(troubled, ANSWER_ROWS) if alone else ANSWER_ROWS


def span(low: float | None, high: float | None, spec: str = ".4g") -> str | None:
    """A range as one cell: "-0.36 .. 0.35", one number where both are written alike."""
    if low is None or high is None:
        return None
    ends = [format(value, spec) for value in (low, high)]
    return ends[0] if ends[0] == ends[1] else " .. ".join(ends)


def short(value: float) -> str:
    """A number in as few digits as tell its size: 3 from 1 on, and 2 below."""
    return f"{value:.3g}" if abs(value) >= 1 else f"{value:.2g}"


def counted(number: int, singular: str, plural: str = "") -> str:
    """A number of things: "1 layer", "2 layers"."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def size_of(nbytes: int) -> str:
    """A number of bytes: "812 bytes", "94 kB", "1.3 MB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= size:
            number = nbytes / size
            return f"{number:.{0 if number >= 9.95 else 1}f} {unit}"
    return counted(nbytes, "byte")


def scope_of(channels: int, values: int) -> str:
    """What was judged of an input: "48 channels of 784 values"."""
    return f"{counted(channels, 'channel')} of {counted(values, 'value')}"


def listed(names: Sequence[str], most: int = MOST_NAMES) -> str:
    """The first names, and how many more there are: "mean, var and 3 more"."""
    left = len(names) - most
    return ", ".join(names[:most]) + (f" and {left} more" if left > 0 else "")


def closest(quantity: str, used: float) -> str:
    """Which quantity comes closest to failing: "mean comes closest to its tolerance, ..."."""
    return f"{quantity} comes closest to its tolerance, using {share(used)} of it"


def share(part: float) -> str:
    """A part of a whole: "37%", "935%", from 10 on "21.5 times", "-" for what is not finite.

    What is not 0 is not written as 0.
    """
    if not math.isfinite(part):
        return "-"
    if 0 < part < LEAST_SHARE:
        return f"less than {LEAST_SHARE:.0%}"
    return f"{part:.0%}" if part < MOST_SHARE else f"{part:.3g} times"
