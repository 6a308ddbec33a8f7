"""What the tables that carry the answer have in common: few rows, the troubled ones first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.report import ANSWER_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    Row = TypeVar("Row")


def troubled_first(
    rows: Sequence[Row], troubled: Callable[[Row], bool], most: int = ANSWER_ROWS
) -> tuple[list[Row], list[Row]]:
    """The rows to show, those in trouble before the others, and those that are left.

    Both keep the order of `rows` among their like.
    """
    ordered = sorted(rows, key=lambda row: not troubled(row))
    return ordered[:most], ordered[most:]


def span(low: float | None, high: float | None, spec: str = ".4g") -> str | None:
    """A range as one cell: "-0.36 .. 0.35", one number where both are written alike."""
    if low is None or high is None:
        return None
    ends = [format(value, spec) for value in (low, high)]
    return ends[0] if ends[0] == ends[1] else " .. ".join(ends)


def counted(number: int, singular: str, plural: str = "") -> str:
    """A number of things: "1 layer", "2 layers"."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"
