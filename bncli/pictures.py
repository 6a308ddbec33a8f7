"""What is drawn where people would rather look than read: plain data, standard library only.

A command says what its pictures show; only `bncli.renderers` knows how they are drawn. All that a
picture shows stands in the report's tables too, so that no script needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, cast

from bncli.light import dataclass
from bncli.report import Severity

if TYPE_CHECKING:
    from bncli.report import Report

Numbers = Sequence[float | None]
"""Numbers to be drawn; None, NaN and infinite ones are left out."""


class Kind(str, Enum):
    """How a series is drawn."""

    LINE = "line"
    POINTS = "points"
    BAND = "band"
    """The area between `y` and `upper`, along `x`."""
    RANGE = "range"
    """A bar from `y` to `upper` at each `x`."""
    BARS = "bars"
    """A bar from 0 to `y` at each `x`, side by side with its neighbours, as in a histogram."""
    LEVEL = "level"
    """A line across the whole panel at each `y`; `x` is empty."""


@dataclass(frozen=True, slots=True)
class Series:
    """Numbers that are drawn in one colour, under one name in the legend ("" for none).

    `upper` is the other edge of a BAND or a RANGE, of the length of `y`. One with a `severity`
    marks findings, in the colour of that severity, and `names` says at each mark which they are.
    """

    label: str
    kind: Kind
    x: Sequence[float]
    y: Numbers
    upper: Numbers = ()
    severity: Severity | None = None
    names: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis: what it measures, with its unit; `names` stand for the places 0, 1, 2, ... on it.

    On a `log` axis, numbers that are not positive are drawn at its lower edge, and as such.
    """

    title: str
    log: bool = False
    names: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Panel:
    """Series over one pair of axes."""

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """Panels that are looked at together, such as small multiples; a page has them in `columns`.

    `text` says in sentences what one sees in it, with the numbers that matter: it is the caption,
    and the alternative for those who cannot see the picture. With `one_scale`, the y axes of all
    panels are the same, so that their heights compare.
    """

    key: str
    title: str
    panels: tuple[Panel, ...]
    text: str
    columns: int = 1
    one_scale: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """One step of a chain: the quantity, its formula, the same with numbers, and the value."""

    quantity: str
    formula: str
    numbers: str
    value: str


@dataclass(frozen=True, slots=True)
class Chain:
    """The steps of a calculation, each made of those before it; `text` is as in a `Picture`."""

    key: str
    title: str
    links: tuple[Link, ...]
    text: str


Shown = Picture | Chain
"""Whatever is drawn."""


def pictures_of(report: Report) -> tuple[Shown, ...]:
    """The pictures of a report, made if they were not.

    A partial that holds `findings`, which are to be marked, gets those that count in their place: a
    gate may have left some out.
    """
    pictures = report.pictures
    if isinstance(pictures, partial) and "findings" in pictures.keywords:
        return cast("tuple[Shown, ...]", pictures(findings=report.findings))
    return pictures() if callable(pictures) else pictures
