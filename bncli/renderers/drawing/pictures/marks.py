"""How the series of a panel are drawn onto matplotlib's axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.pictures import Kind
from bncli.renderers.drawing.pictures.names import shortened
from bncli.renderers.drawing.pictures.palette import SEVERITY_MARKERS
from bncli.renderers.drawing.pictures.thinning import thin_line, thin_points, thin_spans

if TYPE_CHECKING:
    from bncli.pictures import Panel, Series
    from bncli.renderers.drawing.pictures.palette import Look
    from bncli.renderers.drawing.pictures.scales import Scale
    from bncli.renderers.drawing.pictures.thinning import Floats

FEW = 40
"""Points of a line that are marked, so that one sees what was measured."""

MOST_NAMED = 200
"""Marks of findings that say what they are when pointed at."""

FINDING, SMALL = 8.0, 5.0
"""Pixels of the mark of a finding, and where those of one severity have less room than that."""

EDGE = "v"
"""The mark of what a log axis cannot show, at its lower edge."""

EDGE_STYLE: dict[str, Any] = {
    "linestyle": "none", "marker": EDGE, "markersize": 6, "markeredgewidth": 1.2,
}  # fmt: skip

EDGE_SAID = "0 or less, which a log axis cannot show"
"""Its name in a legend."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Where a series is drawn: the axes, their scales, and the number of pixels of the panel.

    `place` and `places` say which of the series of its kind it is that stand side by side; `named`
    places have room between them.
    """

    axes: Any
    x: Scale
    y: Scale
    width: float
    paper: str
    place: int = 0
    places: int = 1
    named: bool = False


def numbers(values: Any) -> Floats:
    """Numbers as an array; None as NaN, and so is what is infinite."""
    array = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    array[~np.isfinite(array)] = np.nan
    return array


def is_marked(series: Series) -> bool:
    """Whether a line has a mark at each of its points: it has few, or one, which is no line."""
    return len(series.y) <= FEW or int(np.isfinite(numbers(series.y)).sum()) == 1


def has_edge(panel: Panel) -> bool:
    """Whether a panel has marks of what its log axis cannot show."""
    if not panel.y.log:
        return False
    lowest = [_lowest(series) for series in panel.series if _has_edge(series)]
    return any(bool((low <= 0).any()) for low in lowest)


def _has_edge(series: Series) -> bool:
    """Whether values of a series that a log axis cannot show are marked; bars begin there."""
    return series.severity is None and series.kind not in (Kind.BARS, Kind.LEVEL)


def _lowest(series: Series) -> Floats:
    """The lower of the two values at each place of a series."""
    y = numbers(series.y)
    return np.fmin(y, numbers(series.upper)) if len(series.upper) else y


def draw_series(on: Drawn, series: Series, look: Look) -> None:
    """Draw a series."""
    y = numbers(series.y)
    if series.kind is Kind.LEVEL:
        for level in on.y.placed(y[np.isfinite(y)]):
            on.axes.plot(
                [on.x.low, on.x.high], [level, level], color=look.color, linestyle=look.dashes,
                linewidth=1.2, zorder=2.5, **UNCLIPPED,
            )  # fmt: skip
        return
    x = numbers(series.x)
    upper = numbers(series.upper) if len(series.upper) else y
    if series.severity is not None:
        _draw_findings(on, series, x, y, look)
        return
    if series.kind is Kind.POINTS:
        _draw_points(on, x, y, look)
    elif series.kind is Kind.LINE:
        _draw_line(on, x, y, look, marked=is_marked(series))
    elif series.kind is Kind.BAND:
        _draw_band(on, x, y, upper, look)
    elif series.kind is Kind.RANGE:
        _draw_range(on, x, y, upper, look)
    else:
        _draw_bars(on, x, y, look)
    if _has_edge(series):
        _draw_edge(on, x, _lowest(series), look)


UNCLIPPED = {"clip_on": False, "solid_capstyle": "butt", "dash_capstyle": "butt"}
"""Nothing is drawn outside of a panel, so that no page needs a path to clip it."""


def _finite(on: Drawn, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """The points that have numbers, placed."""
    there = np.isfinite(x) & np.isfinite(y)
    return on.x.placed(x[there]), on.y.placed(y[there])


def _draw_points(on: Drawn, x: Floats, y: Floats, look: Look) -> None:
    if on.y.log:
        y = np.where(y > 0, y, np.nan)  # those at the edge have a mark of their own
    x, y = _finite(on, x, y)
    kept = thin_points(on.x.share(x), on.y.share(y))
    _mark(on, x[kept], y[kept], look, alpha=0.8 if len(kept) > FEW else 1.0)


def _mark(on: Drawn, x: Floats, y: Floats, look: Look, *, alpha: float = 1.0) -> None:
    on.axes.plot(
        x, y, linestyle="none", marker=look.marker, markersize=4.5 if len(x) <= 4 * FEW else 3,
        color=look.color, markeredgewidth=0, alpha=alpha, zorder=4, clip_on=False,
    )  # fmt: skip


def _draw_line(on: Drawn, x: Floats, y: Floats, look: Look, *, marked: bool) -> None:
    x, y = thin_line(on.x.placed(x), on.y.placed(y))
    on.axes.plot(
        x, y, color=look.color, linestyle=look.dashes, linewidth=1.6, zorder=3, **UNCLIPPED
    )
    there = np.isfinite(x) & np.isfinite(y)
    if on.y.log:
        there &= y > on.y.low
    if marked:
        _mark(on, x[there], y[there], look)


def _draw_band(on: Drawn, x: Floats, low: Floats, high: Floats, look: Look) -> None:
    x, low, high = thin_spans(on.x.placed(x), on.y.placed(low), on.y.placed(high))
    there = np.isfinite(x) & np.isfinite(low) & np.isfinite(high)
    for run in np.split(np.arange(len(x)), np.flatnonzero(~there)):
        inside = run[there[run]]
        if not len(inside):
            continue
        around = np.concatenate([x[inside], x[inside][::-1]])
        edge = np.concatenate([low[inside], high[inside][::-1]])
        on.axes.fill(
            around, edge, color=look.color, alpha=0.2, linewidth=0, zorder=1, clip_on=False
        )
        for side in (low[inside], high[inside]):  # the area alone is too pale for some eyes
            on.axes.plot(x[inside], side, color=look.color, linewidth=0.8, zorder=1, **UNCLIPPED)


def _draw_range(on: Drawn, x: Floats, low: Floats, high: Floats, look: Look) -> None:
    there = np.isfinite(x) & np.isfinite(low) & np.isfinite(high)
    if on.y.log:
        there &= np.fmax(low, high) > 0  # those at the edge have a mark of their own
    x, low, high = thin_spans(
        on.x.placed(x[there]), on.y.placed(low[there]), on.y.placed(high[there])
    )
    if not len(x):
        return
    gap = _gap(x)
    between = float(gap) / (on.x.high - on.x.low) * on.width if not on.x.log else 3.0
    thick = min(7.0, max(1.2, 0.62 * between / on.places))
    if on.places > 1 and not on.x.log:
        x = x + gap * 0.7 * ((on.place + 0.5) / on.places - 0.5)
    # One path for all, and caps, without which a range of one value would not be seen.
    nothing = np.full_like(x, np.nan)
    on.axes.plot(
        np.column_stack([x, x, nothing]).ravel(), np.column_stack([low, high, nothing]).ravel(),
        color=look.color, linewidth=thick, zorder=2, clip_on=False, solid_capstyle="round",
        alpha=0.85,
    )  # fmt: skip


def _draw_bars(on: Drawn, x: Floats, y: Floats, look: Look) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    there = np.isfinite(x) & np.isfinite(y)
    x, y = on.x.placed(x[there]), on.y.placed(y[there])
    x, low, high = thin_spans(x, np.fmin(y, 0.0), np.fmax(y, 0.0))
    if not len(x):
        return
    if on.y.log:
        low = np.full_like(low, on.y.low)
    else:
        low, high = np.clip(low, on.y.low, None), np.clip(high, None, on.y.high)
    width = _gap(x) * (0.64 if on.named else 0.92) / on.places
    left = x - width * on.places / 2 + width * on.place
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    points = [
        corner
        for a, below, above in zip(left, low, high, strict=True)
        for corner in ((a, below), (a, above), (a + width, above), (a + width, below), (a, below))
    ]
    on.axes.add_patch(
        PathPatch(
            Path(points, codes * len(x)),
            facecolor=look.color,
            edgecolor=look.color,
            linewidth=0.8,
            linestyle=look.dashes,
            alpha=0.7,
            zorder=1.5,
            clip_on=False,
        )
    )


def _gap(x: Floats) -> float:
    """The least distance between two places; 1 where there is one."""
    gaps = np.diff(np.unique(x))
    return float(gaps.min()) if len(gaps) else 1.0


def _draw_edge(on: Drawn, x: Floats, y: Floats, look: Look) -> None:
    """Mark what a log axis cannot show."""
    if not on.y.log:
        return
    x, y = _finite(on, np.where(y <= 0, x, np.nan), y)
    kept = thin_points(on.x.share(x), on.y.share(y), FEW * 4)
    if len(kept):
        on.axes.plot(
            x[kept], y[kept], color=on.paper, markeredgecolor=look.color,
            zorder=5, clip_on=False, **EDGE_STYLE,
        )  # fmt: skip


def _draw_findings(on: Drawn, series: Series, x: Floats, y: Floats, look: Look) -> None:
    """Mark findings; each says what it is where it is pointed at, unless there are too many.

    The worse lie over the others, whatever the order of the series.
    """
    assert series.severity is not None
    marker = SEVERITY_MARKERS[series.severity]
    names = list(series.names)
    there = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    placed, levels = on.x.placed(x[there]), on.y.placed(y[there])
    kept = thin_points(on.x.share(placed), on.y.share(levels), MOST_NAMED)
    dense = len(kept) * FINDING > on.width
    style: dict[str, Any] = {
        "linestyle": "none", "marker": marker, "markersize": SMALL if dense else FINDING,
        "color": look.color, "markeredgecolor": on.paper, "markeredgewidth": 1.0,
        "zorder": 6 + series.severity.rank / 10, "clip_on": False,
    }  # fmt: skip
    if len(names) != len(x):
        on.axes.plot(placed[kept], levels[kept], **style)
        return
    for index in kept:
        (line,) = on.axes.plot(placed[index : index + 1], levels[index : index + 1], **style)
        line.set_gid(NAMED + shortened(names[there[index]], 120))


NAMED = "named: "
"""What the identifier of a mark begins with that is named on a page."""
