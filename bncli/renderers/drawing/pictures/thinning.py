"""Fewer points that look the same: a picture has no more pixels than it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.light import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray["np.float64"]

MOST_POINTS = 600
"""Marks of one series."""

MOST_PLACES = 400
"""Places along x at which a line, a band or ranges are drawn."""


def thin_points(x: Floats, y: Floats, most: int = MOST_POINTS) -> NDArray[np.intp]:
    """Indices, in order, of at most about `most` of the points, spread as the points are.

    `x` and `y` are finite and in units of the panel's width and height: from 0 to 1.
    """
    if len(x) <= most:
        return np.arange(len(x))
    cells = 400
    kept = np.arange(len(x))
    while len(kept) > most and cells > 1:
        cell = np.floor(x * cells).astype(np.int64) * 4 * cells + np.floor(y * cells)
        _, first = np.unique(cell, return_index=True)
        kept = np.sort(first)
        cells = cells * 3 // 4
    return kept


def thin_spans(
    x: Floats, low: Floats, high: Floats, most: int = MOST_PLACES
) -> tuple[Floats, Floats, Floats]:
    """At most `most` places, each with the least and the greatest of what was there; NaN stays."""
    if len(x) <= most:
        return x, low, high
    order = np.argsort(x, kind="stable")
    x, low, high = x[order], low[order], high[order]
    starts = np.unique(np.linspace(0, len(x), most, endpoint=False).astype(np.intp))
    return (
        x[starts],
        np.fmin.reduceat(low, starts),
        np.fmax.reduceat(high, starts),
    )


def thin_line(x: Floats, y: Floats, most: int = MOST_PLACES) -> tuple[Floats, Floats]:
    """A line through the extremes of at most `most` pieces, each in the order of the line."""
    if len(x) <= 2 * most:
        return x, y
    kept = []
    for piece in np.array_split(np.arange(len(x)), most):
        values = y[piece]
        if np.isnan(values).all():
            kept.append(piece[0])
            continue
        kept += sorted({piece[int(np.nanargmin(values))], piece[int(np.nanargmax(values))]})
    index = np.asarray(kept)
    return x[index], y[index]
