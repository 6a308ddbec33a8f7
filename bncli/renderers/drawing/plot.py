"""The charts of a report as a picture, .png or .svg, drawn by matplotlib where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.errors import MissingBackendError, UsageError
from bncli.files.save import check_writable, refuse_overwriting, replacing

if TYPE_CHECKING:
    from bncli.report import Chart

SUFFIXES = (".png", ".svg")

INSTALL = "python -m pip install matplotlib"


def check_plot(path: str) -> None:
    """Raise, before any work is done, where the picture could not be drawn or written.

    UsageError for another suffix, MissingBackendError without matplotlib, FileError for the place.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot {path}: the suffix picks the format; use .png or .svg.")
    check_writable(path)
    _matplotlib()


def draw(path: str, charts: tuple[Chart, ...]) -> None:
    """Draw the charts one under the other into `path`, which is not a file that was read."""
    refuse_overwriting(path, "--plot")
    figure_class, canvas_class = _matplotlib()
    from matplotlib import rc_context

    # 8 inches are a page's width; "constrained" keeps titles and labels off the next chart.
    figure = figure_class(figsize=(8, 2.8 * max(len(charts), 1)), layout="constrained")
    canvas_class(figure)
    colors: dict[str, str] = {}  # a series has one colour in all charts
    for number, chart in enumerate(charts):
        axes = figure.add_subplot(len(charts), 1, number + 1)
        for name, values in chart.series.items():
            y = [float("nan") if value is None else value for value in values]
            scattered = name == "batch"  # a line through what scatters would hide its average
            axes.plot(
                chart.x,
                y,
                label=name,
                color=colors.setdefault(name, f"C{len(colors)}"),
                linestyle="none" if scattered else "-",
                marker="." if scattered or len(y) == 1 else None,  # one point is not a line
                markersize=3,
                alpha=0.5 if scattered else 1.0,
            )
        axes.set_title(chart.title)
        axes.set_xlabel("step")
        axes.legend()
    # No date and no random names, so that the same command makes the same file.
    with replacing(Path(path)) as stream, rc_context({"svg.hashsalt": "bncli"}):
        metadata = {"Date": None} if path.lower().endswith(".svg") else {}
        figure.savefig(stream, format=Path(path).suffix[1:].lower(), metadata=metadata)


def _matplotlib() -> tuple[Any, Any]:
    """matplotlib's figure and a canvas that needs no screen."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingBackendError(
            f"--plot needs matplotlib, which is not installed here: {INSTALL}"
        ) from error
    return Figure, FigureCanvasAgg
