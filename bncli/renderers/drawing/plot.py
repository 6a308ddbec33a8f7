"""The pictures of a report in a file, .png or .svg, drawn by matplotlib where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bncli.errors import UsageError
from bncli.files.save import check_writable, refuse_overwriting, replacing
from bncli.pictures import Axis, Kind, Panel, Picture, Series
from bncli.renderers.drawing.pictures.figure import check_libraries, figure_of, own_style
from bncli.renderers.drawing.pictures.layout import WIDE
from bncli.renderers.drawing.pictures.palette import LIGHT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bncli.pictures import Shown
    from bncli.report import Chart

SUFFIXES = (".png", ".svg")

DENSITY = 144
"""Pixels of a .png for each inch, of which the picture takes 72 as one: its letters are smooth."""


MARGIN = 16.0
"""Pixels around the pictures."""


def check_plot(path: str) -> None:
    """Raise, before any work is done, where the picture could not be drawn or written.

    UsageError for another suffix, MissingBackendError without a matplotlib that works, and
    FileError for the place.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot {path}: the suffix picks the format; use .png or .svg.")
    check_writable(path)
    check_libraries("--plot", ("matplotlib",))


def draw(path: str, pictures: Iterable[Shown]) -> None:
    """Draw the pictures one below the other into `path`, which is not a file that was read.

    Chains are left out: they are made of words.
    """
    refuse_overwriting(path, "--plot")
    shown = [picture for picture in pictures if isinstance(picture, Picture)]
    form = Path(path).suffix[1:].lower()
    # No date and no random names, so that the same command makes the same file.
    with replacing(Path(path)) as stream, own_style(**{"svg.hashsalt": "bncli"}):
        figure = figure_of(shown, WIDE, LIGHT, margin=MARGIN)
        figure.set_facecolor(LIGHT["paper"])
        metadata = {"Date": None} if form == "svg" else {}
        density = DENSITY if form == "png" else 72
        figure.savefig(stream, format=form, metadata=metadata, dpi=density)


def picture_of(chart: Chart, x: str = "") -> Picture:
    """The picture of a chart; `x` is the title of its x axis.

    Its series named "batch" scatters; a line through it would hide its average.
    """
    series = tuple(
        Series(name, Kind.POINTS if name == "batch" else Kind.LINE, chart.x, values)
        for name, values in chart.series.items()
    )
    panel = Panel("", Axis(x), Axis(""), series)
    text = f"{chart.title}: {', '.join(chart.series)}."
    return Picture(chart.key, chart.title, (panel,), text)
