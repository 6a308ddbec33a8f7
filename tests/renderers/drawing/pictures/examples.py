"""Pictures made by hand, one of each kind of series."""

from __future__ import annotations

from bncli.pictures import Axis, Kind, Panel, Picture, Series
from bncli.report import Severity

HOSTILE = (
    "<script>alert(1)</script>", '"><img src=x onerror=1>', "$\\frac{1}{2}$", "{{7*7}}",
    "a\u202eb", "line\nbreak", "x" * 5000, "", "雪", "]]>", "-->", "&amp;", "\udcff", "\x00",
)  # fmt: skip
"""Names that a file may have, and that nothing may take for its own."""


def picture(*series: Series, x=None, y=None, key="p", title="Title", text="Text.") -> Picture:
    panel = Panel("", x or Axis("x"), y or Axis("y"), series)
    return Picture(key, title, (panel,), text)


def every_kind(names=(), *, log=False) -> Picture:
    """One series of each kind over five places."""
    x = [0, 1, 2, 3, 4]
    return picture(
        Series("band", Kind.BAND, x, [1, 2, None, 2, 1], [3, 4, 3, 4, 3]),
        Series("bars", Kind.BARS, x, [1, 2, 3, 4, 5]),
        Series("range", Kind.RANGE, x, [1, 2, 3, 4, 5], [2, 2, 9, 5, 6]),
        Series("line", Kind.LINE, x, [1.5, 2.5, None, 3.5, float("nan")]),
        Series("points", Kind.POINTS, x, [1, float("inf"), 2, 3, 4]),
        Series("level", Kind.LEVEL, (), [2.5]),
        Series("errors", Kind.POINTS, [1, 3], [2, 4], severity=Severity.ERROR, names=("a", "b")),
        x=Axis("place", names=names),
        y=Axis("value", log=log),
    )
