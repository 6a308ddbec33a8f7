"""Where everything of a picture stands, in pixels from its upper left corner."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.pictures import Kind
from bncli.renderers.drawing.pictures.marks import EDGE_SAID, has_edge, numbers
from bncli.renderers.drawing.pictures.names import LINE, fitted, text_width
from bncli.renderers.drawing.pictures.scales import scale_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bncli.pictures import Axis, Panel, Picture
    from bncli.renderers.drawing.pictures.scales import Scale

GAP = 18.0
"""Pixels between panels."""

EDGE = 10.0
"""Pixels that are free to the right of a panel, where half a label may stand."""

LISTED = 20.0
"""Pixels of each name of a list along a y axis."""

MOST_LISTED = 480.0
"""Pixels of a list, of which a longer one is thinned."""

HANDLE = 26.0
"""Pixels of what a legend draws before each name, with what is free behind it."""


@dataclass(frozen=True, slots=True)
class Medium:
    """What a picture is drawn for: its width in pixels, and how much of it there is room for.

    Names have `longest` characters, and `listed` ones where they stand one below the other.
    """

    width: float
    columns: int
    height: float
    small_height: float
    longest: int
    listed: int


WIDE = Medium(width=760, columns=4, height=240, small_height=150, longest=26, listed=50)
"""A page on a desk, or a file."""

NARROW = Medium(width=358, columns=1, height=200, small_height=150, longest=20, listed=26)
"""A page on a telephone."""


@dataclass(frozen=True, slots=True)
class Box:
    """A panel with its scales and the rectangle of its axes: left, top, width, height."""

    panel: Panel
    x: Scale
    y: Scale
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in the legend, and where its line begins."""

    label: str
    left: float
    top: float


@dataclass(frozen=True, slots=True)
class Layout:
    """A picture of that size; `entries` are the legend above its panels."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    entries: tuple[Entry, ...]

    def moved(self, right: float) -> Layout:
        """The layout that many pixels further to the right."""
        return replace(
            self,
            boxes=tuple(replace(box, left=box.left + right) for box in self.boxes),
            entries=tuple(replace(entry, left=entry.left + right) for entry in self.entries),
        )


def layout_of(picture: Picture, medium: Medium, *, top: float = 0.0) -> Layout:
    """Where everything stands, `top` pixels below the upper edge."""
    entries = tuple(_entries(_labels(picture), medium, top))
    top = entries[-1].top + LINE + 10 if entries else top + 2
    columns = max(1, min(picture.columns, medium.columns, len(picture.panels)))
    rows = range(0, len(picture.panels), columns)
    heights = [_height(picture.panels[row : row + columns], picture, medium) for row in rows]
    cell = (medium.width - GAP * (columns - 1)) / columns
    shown = _axes_once(picture)
    y_scales = [
        _y_scale(
            panel,
            picture.panels if picture.one_scale else (panel,),
            heights[number // columns],
            medium,
        )
        for number, panel in enumerate(shown)
    ]
    margin = max((_margin(panel.y, y) for panel, y in zip(shown, y_scales, strict=True)))
    width = cell - margin - EDGE
    boxes: list[Box] = []
    for first, height in zip(rows, heights, strict=True):
        row = range(first, min(first + columns, len(shown)))
        panels = [shown[number] for number in row]
        scales = [_x_scale(panel, width, medium) for panel in panels]
        top += LINE + 6 if any(panel.title for panel in panels) else 6
        for place, (number, panel, x) in enumerate(zip(row, panels, scales, strict=True)):
            left = (cell + GAP) * place + margin
            boxes.append(Box(panel, x, y_scales[number], left, top, width, height))
        top += height + max(map(_foot, panels, scales)) + GAP
    return Layout(medium.width, top - GAP + 2, tuple(boxes), entries)


def _axes_once(picture: Picture) -> list[Panel]:
    """The panels; of those one below the other on the same named axis, the lowest has the names."""
    shown = list(picture.panels)
    for at, (panel, below) in enumerate(pairwise(picture.panels)):
        if picture.columns == 1 and panel.x.names and panel.x == below.x:
            shown[at] = replace(
                panel, x=replace(panel.x, title="", names=("",) * len(panel.x.names))
            )
    return shown


def _height(row: Sequence[Panel], picture: Picture, medium: Medium) -> float:
    """Pixels of the panels of a row: as many as lists need, or as what is measured is given."""
    lists = [len(panel.y.names) for panel in row]
    if all(lists):
        return min(max(LISTED * max(lists), 3 * LISTED), MOST_LISTED)
    few = len(row) == 1 and len(picture.panels) <= 3
    return medium.height if few else medium.small_height


def _labels(picture: Picture) -> list[str]:
    """The names in the legend, each once; that of marks at the edge of a log axis comes last."""
    series = (each for panel in picture.panels for each in panel.series)
    labels = list(dict.fromkeys(each.label for each in series if each.label))
    return [*labels, EDGE_SAID] if any(map(has_edge, picture.panels)) else labels


def _entries(labels: list[str], medium: Medium, top: float) -> Iterator[Entry]:
    """The legend in as many lines as it needs."""
    left = 0.0
    for label in labels:
        text = fitted(label, 0.8 * medium.width)
        width = HANDLE + text_width(text) + 20
        if left and left + width > medium.width:
            left, top = 0.0, top + LINE + 4
        yield Entry(text, left, top)
        left += width


def _margin(axis: Axis, scale: Scale) -> float:
    """Pixels to the left of a panel."""
    return scale.breadth + 8 + (LINE + 4 if axis.title else 0)


def _foot(panel: Panel, scale: Scale) -> float:
    """Pixels below a panel."""
    return labels_height(scale) + (LINE + 4 if panel.x.title else 0)


def labels_height(scale: Scale) -> float:
    """Pixels of what is written along an axis below a panel."""
    if not scale.labels:
        return 0.0
    return scale.breadth + 10 if scale.turned else LINE + 6


def _x_scale(panel: Panel, width: float, medium: Medium) -> Scale:
    values = [numbers(series.x) for series in panel.series if series.kind is not Kind.LEVEL]
    bars = [numbers(series.x) for series in panel.series if series.kind in (Kind.BARS, Kind.RANGE)]
    for x in bars:  # the outermost are as wide as the others
        gaps = np.diff(np.unique(x[np.isfinite(x)]))
        if len(gaps) and not panel.x.log and not panel.x.names:
            half = gaps.min() / 2
            values += [x - half, x + half]
    whole = np.concatenate([*values, np.empty(0)])
    return scale_of(panel.x, whole, width, longest=medium.longest, flat=True)


def _y_scale(panel: Panel, panels: Sequence[Panel], height: float, medium: Medium) -> Scale:
    """The y axis of a panel, for the numbers of all these panels."""
    values: list[Any] = [np.empty(0)]
    every = [series for each in panels for series in each.series]
    for series in every:
        values += [numbers(series.y), numbers(series.upper)]
    bars = any(series.kind is Kind.BARS for series in every)
    return scale_of(
        panel.y, np.concatenate(values), height, longest=medium.listed, flat=False, from_zero=bars
    )
