"""A picture as a figure of matplotlib: what is drawn where, in colours given by their roles."""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import contextmanager, redirect_stderr
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from bncli.errors import MissingBackendError
from bncli.pictures import Kind
from bncli.renderers.drawing.pictures.layout import HANDLE, labels_height, layout_of
from bncli.renderers.drawing.pictures.marks import EDGE_STYLE, Drawn, draw_series, is_marked
from bncli.renderers.drawing.pictures.names import LINE, SIZE, fitted
from bncli.renderers.drawing.pictures.palette import SEVERITY_MARKERS, Look, look_of
from bncli.report import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bncli.pictures import Picture, Series
    from bncli.renderers.drawing.pictures.layout import Box, Layout, Medium

INSTALL = "python -m pip install 'bncli[report]'"
UPGRADE = "python -m pip install --upgrade 'bncli[report]'"

USED = {"matplotlib": "matplotlib.figure"}
"""The module of a library that is imported to find out whether it works, if not its first one."""

MOST_REASON = 200
"""Characters of why a library cannot be imported."""

BOLD = 0.85
"""The share of a width that bold letters have, which are wider than those that are measured."""

STYLE = {
    "svg.fonttype": "none",  # letters stay letters, which a reader can find and copy
    "text.parse_math": False,  # a $ in a layer's name is a $
    "font.family": "DejaVu Sans",  # which comes with matplotlib
    "font.size": SIZE,
    "path.simplify": False,  # which the thinning has done, alike for every size
    "axes.unicode_minus": False,
}


def is_there(library: str) -> bool:
    """Whether a library can be imported; finding out imports nothing."""
    try:
        return find_spec(library) is not None
    except ValueError:  # sys.modules has None in its place
        return False


def check_libraries(what: str, libraries: Sequence[str]) -> None:
    """Raise MissingBackendError, which says that `what` needs them, where any cannot be used."""
    missing = [name for name in libraries if not is_there(name)]
    if missing:
        verb = "are" if len(missing) > 1 else "is"
        raise MissingBackendError(
            f"{what} needs {' and '.join(missing)}, which {verb} not installed here: {INSTALL}"
        )
    for name in libraries:
        _check_import(what, name)


def _check_import(what: str, library: str) -> None:
    """Raise MissingBackendError where a library that is there does not work."""
    try:
        # One that was built for another NumPy says so at length besides.
        with _silent(), redirect_stderr(io.StringIO()):
            import_module(USED.get(library, library))
    except Exception as error:  # whatever another release of something broke
        reason = printable(f"{type(error).__name__}: {error}"[:MOST_REASON])
        raise MissingBackendError(
            f"{what} needs {library}, which is installed here but cannot be imported "
            f"({reason}): {UPGRADE}"
        ) from error


@contextmanager
def _silent() -> Iterator[None]:
    """No word of matplotlib's about fonts and its cache."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a letter that the font does not have
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def own_style(**more: str) -> Iterator[None]:
    """matplotlib as it comes, whatever the user's settings say, and silent about fonts."""
    with _silent():
        import matplotlib as mpl

        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update({**STYLE, **more})
            yield


def figure_of(
    pictures: Sequence[Picture], medium: Medium, colors: dict[str, str], *, margin: float = 0.0
) -> Any:
    """The pictures one below the other, as a figure of 72 pixels an inch, inside `own_style`.

    With a `margin`, in pixels, they stand by themselves: each has its title.
    """
    from matplotlib.figure import Figure

    layouts: list[Layout] = []
    tops = []
    top = margin
    for picture in pictures:
        tops.append(top)
        layouts.append(layout_of(picture, medium, top=top + (LINE + 10 if margin else 0)))
        top = layouts[-1].height + 2 * LINE
    height = (layouts[-1].height if layouts else LINE) + margin
    width = medium.width + 2 * margin
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    for picture, layout, at in zip(pictures, layouts, tops, strict=True):
        if margin:
            title = fitted(picture.title, BOLD * medium.width)
            _write(figure, margin, at + LINE, title, colors["ink"], fontweight="bold")
        _draw(figure, picture, layout.moved(margin), colors)
    return figure


def _draw(figure: Any, picture: Picture, layout: Layout, colors: dict[str, str]) -> None:
    """Draw a picture's legend and panels."""
    looks = _looks(picture, colors)
    kinds = {series.label: series for panel in picture.panels for series in panel.series[::-1]}
    labels = list(dict.fromkeys(s.label for p in picture.panels for s in p.series if s.label))
    for entry in layout.entries[len(labels) :]:
        _edge_handle(figure, entry.left, entry.top + LINE / 2, colors)
        _write(figure, entry.left + HANDLE, entry.top + LINE - 2.5, entry.label, colors["ink"])
    for label, entry in zip(labels, layout.entries[: len(labels)], strict=True):
        _handle(figure, entry.left, entry.top + LINE / 2, kinds[label], looks[label])
        _write(figure, entry.left + HANDLE, entry.top + LINE - 2.5, entry.label, colors["ink"])
    for box in layout.boxes:
        _draw_panel(figure, box, looks, colors)


def _looks(picture: Picture, colors: dict[str, str]) -> dict[str, Look]:
    """One look for each name, in all panels alike; those without one go by their place."""
    looks: dict[str, Look] = {}
    number = lines = 0
    for panel in picture.panels:
        for place, series in enumerate(panel.series):
            name = _name(series, place)
            if name in looks:
                continue
            if series.severity is not None:
                severity = series.severity
                looks[name] = Look(colors[severity.value], SEVERITY_MARKERS[severity], "-")
                continue
            looks[name] = look_of(number, lines, colors)
            number += 1
            lines += series.kind in (Kind.LINE, Kind.LEVEL)
    return looks


def _name(series: Series, place: int) -> str:
    """By what a series is known in its picture."""
    return series.label or f"\n{place}\n{series.severity}"  # no label has a line break for long


def _draw_panel(figure: Any, box: Box, looks: dict[str, Look], colors: dict[str, str]) -> None:
    """Draw a panel: its frame, its series and its texts."""
    panel, whole = box.panel, figure.get_size_inches() * 72
    axes = figure.add_axes(
        (
            box.left / whole[0],
            1 - (box.top + box.height) / whole[1],
            box.width / whole[0],
            box.height / whole[1],
        )
    )
    axes.patch.set_visible(False)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set(color=colors["line"], linewidth=0.8)
    axes.set_xscale("log" if box.x.log else "linear")
    axes.set_yscale("log" if box.y.log else "linear")
    axes.set_xlim(box.x.low, box.x.high)
    axes.set_ylim(box.y.low, box.y.high)
    if panel.y.names:
        axes.invert_yaxis()  # lists are read from their top
    axes.minorticks_off()
    muted = {"labelcolor": colors["muted"], "labelsize": SIZE}
    # An anchor is kept in SVG, where the letters' widths are the reader's.
    turned = {"rotation": 90, "ha": "right", "va": "center", "rotation_mode": "anchor"}
    axes.set_xticks(box.x.ticks, box.x.labels, **(turned if box.x.turned else {}))
    axes.set_yticks(box.y.ticks, box.y.labels)
    axes.tick_params("x", length=3, width=0.8, color=colors["line"], pad=3, **muted)
    axes.tick_params("y", length=0, pad=5, **muted)
    axes.grid(visible=True, axis="y", color=colors["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    _draw_all(axes, box, looks, colors)
    _titles(figure, box, colors)


def _draw_all(axes: Any, box: Box, looks: dict[str, Look], colors: dict[str, str]) -> None:
    """Draw the series of a panel; ranges and bars side by side."""
    series = list(enumerate(box.panel.series))
    for kind in Kind:
        alike = [(place, each) for place, each in series if each.kind is kind]
        beside = kind is Kind.RANGE or (kind is Kind.BARS and bool(box.panel.x.names))
        for number, (place, each) in enumerate(alike):
            on = Drawn(
                axes, box.x, box.y, box.width, colors["paper"],
                number if beside else 0, len(alike) if beside else 1, bool(box.panel.x.names),
            )  # fmt: skip
            draw_series(on, each, looks[_name(each, place)])


def _titles(figure: Any, box: Box, colors: dict[str, str]) -> None:
    """Write the titles of a panel and of its axes, as much of each as there is room for."""
    panel = box.panel
    if panel.title:
        title = fitted(panel.title, BOLD * box.width)
        _write(figure, box.left, box.top - 7, title, colors["ink"], fontweight="bold")
    if panel.x.title:
        title = fitted(panel.x.title, box.width)
        below = box.top + box.height + labels_height(box.x) + LINE
        middle = box.left + box.width / 2
        _write(figure, middle, below, title, colors["muted"], horizontalalignment="center")
    if panel.y.title:
        title = fitted(panel.y.title, box.height + LINE)
        left = box.left - box.y.breadth - 12  # the tick labels end 5 pixels before the panel
        _write(
            figure, left, box.top + box.height / 2, title, colors["muted"], rotation=90,
            horizontalalignment="center", rotation_mode="anchor",
        )  # fmt: skip


def _write(figure: Any, x: float, y: float, text: str, color: str, **how: Any) -> None:
    """Write a line of text at a place in pixels from the upper left corner."""
    width, height = figure.get_size_inches() * 72
    figure.text(x / width, 1 - y / height, text, color=color, fontsize=SIZE, **how)


def _edge_handle(figure: Any, x: float, y: float, colors: dict[str, str]) -> None:
    """Draw the mark of what a log axis cannot show, of no series' colour, in the legend."""
    from matplotlib.lines import Line2D

    width, height = figure.get_size_inches() * 72
    mark = Line2D([(x + (HANDLE - 8) / 2) / width], [1 - y / height], **EDGE_STYLE)
    mark.set(color=colors["paper"], markeredgecolor=colors["muted"])
    figure.add_artist(mark)


def _handle(figure: Any, x: float, y: float, series: Series, look: Look) -> None:
    """Draw what a series looks like, before its name in the legend."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    width, height = figure.get_size_inches() * 72
    ends = [x / width, (x + HANDLE - 8) / width]
    level = 1 - y / height
    if series.severity is None and series.kind in (Kind.BAND, Kind.BARS, Kind.RANGE):
        alpha = {Kind.BAND: 0.2, Kind.BARS: 0.7, Kind.RANGE: 0.85}[series.kind]
        thick = 3.0 if series.kind is Kind.RANGE else 9.0
        figure.add_artist(
            Rectangle(
                (ends[0], level - thick / 2 / height),
                ends[1] - ends[0],
                thick / height,
                facecolor=(look.color, alpha),
                edgecolor=look.color if series.kind is Kind.BAND else "none",
                linewidth=0.8,
            )
        )
        return
    line = series.severity is None and series.kind in (Kind.LINE, Kind.LEVEL)
    mark = look.marker if not line or (series.kind is Kind.LINE and is_marked(series)) else "none"
    figure.add_artist(
        Line2D(
            [ends[0], sum(ends) / 2, ends[1]],
            [level] * 3,
            color=look.color,
            linestyle=look.dashes if line else "none",
            linewidth=1.6,
            marker=mark,
            markevery=[1],
            markersize=8 if series.severity is not None else 5,
            markeredgewidth=0,
            dash_capstyle="butt",
            solid_capstyle="butt",
        )
    )
