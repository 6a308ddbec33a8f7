"""A chart in characters: a mark a series, a column of the terminal a piece of the x axis."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.renderers.drawing.cells import format_cell
from bncli.report import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bncli.report import Chart

CHART_WIDTH = 88
"""Columns of a chart where there is room: the eye follows no curve over a line of 200."""

HEIGHT = 8
"""Lines of a chart, without its axis: a screen of 24 holds it and the table above it."""

MARKS = "·─o+x*#@"
"""The marks of the series, in their order; a later one is drawn over an earlier one. So the batches
of a simulation, which come first and scatter, are dots behind the line of their average."""


def chart_lines(chart: Chart, width: int) -> Iterator[str]:
    """The chart's lines: the curves, the x axis and a legend. Points without a number are left out.

    Where several points fall in one column of the terminal, all of them are drawn.
    """
    points = {
        name: [
            (float(x), float(y))
            for x, y in zip(chart.x, values, strict=True)
            if y is not None and math.isfinite(y)
        ]
        for name, values in chart.series.items()
    }
    seen = [point for values in points.values() for point in values]
    if not seen:
        yield "(no finite value)"
        return
    low, high = min(y for _, y in seen), max(y for _, y in seen)
    left, right = min(x for x, _ in seen), max(x for x, _ in seen)
    labels = [format_cell(high, ".4g"), format_cell(low, ".4g")]
    margin = max(map(len, labels))
    columns = max(width - margin - 2, 4)  # beside the label, a blank and the axis
    # One value is a line, and not the lower edge of a scale that it does not have.
    rows = [[" "] * columns for _ in range(HEIGHT if high > low else 1)]
    for mark, values in zip(_marks(len(points)), points.values(), strict=True):
        for x, y in values:  # all of a series before the next, which is drawn over it
            column = _place(x, left, right, columns)
            row = len(rows) - 1 - _place(y, low, high, len(rows))
            rows[row][column] = mark
    for number, cells in enumerate(rows):
        label = labels[0] if number == 0 else labels[1] if number == len(rows) - 1 else ""
        yield f"{label:>{margin}} │{''.join(cells)}".rstrip()
    yield f"{'':>{margin}} └{'─' * columns}"
    ends = format_cell(left, ".6g"), format_cell(right, ".6g")
    axis = f"{ends[0]}{ends[1]:>{max(columns - len(ends[0]), 0)}}"
    # Two numbers without a blank between them would read as one.
    if left == right or len(axis) > columns or len(ends[0]) + len(ends[1]) >= columns:
        axis = ends[0]
    yield f"{'':>{margin}}  {axis}"
    line = ""
    for mark, name in zip(_marks(len(points)), points, strict=True):
        entry = f"{mark} {printable(name)}"
        if line and len(line) + 3 + len(entry) > columns:
            yield f"{'':>{margin}}  {line}"
            line = entry
        else:
            line = f"{line}   {entry}" if line else entry
    yield f"{'':>{margin}}  {line}"


def _marks(number: int) -> Sequence[str]:
    """A mark for each series."""
    return [MARKS[i % len(MARKS)] for i in range(number)]


def _place(value: float, low: float, high: float, cells: int) -> int:
    """The cell of `value` where `low` is the first and `high` the last."""
    if not high > low:
        return 0
    # By halves, because the difference of two floats may overflow.
    share = (value / 2 - low / 2) / (high / 2 - low / 2)
    # To the nearest cell, so that the first and the last are as wide as a half of the others and
    # the ends of the data lie at the ends of the axis.
    return min(int(share * (cells - 1) + 0.5), cells - 1)
