"""What pictures over depth have in common: a place for each layer, and findings marked there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

from bncli.pictures import Axis, Kind, Panel, Series
from bncli.rulebook.interface import in_prose
from bncli.rulebook.layers import label as label_of
from bncli.sections.answer import counted, short

if TYPE_CHECKING:
    from bncli.pictures import Numbers
    from bncli.report import Finding

Row = TypeVar("Row")

MOST_LAYERS = 1000
"""Layers that a picture shows: more are no wider than a pixel each."""

MOST_TOLD = 5
"""Rules that the text of a picture names; the page has the findings of all above it."""

MOST_CODES = 3
"""Codes of findings that a legend has for one severity."""

CLEAR = 0.08
"""How far above the data findings are marked, in heights of the data."""

LEAST_HEIGHT = 0.3
"""The least height of data on a log axis, in powers of ten, for that."""


def drawn(rows: Sequence[Row], marked: Callable[[Row], bool]) -> list[Row]:
    """The rows that a picture shows, in their order: those with marks, and others evenly spread."""
    left = len(rows) - MOST_LAYERS
    if left <= 0:
        return list(rows)
    kept = [at for at, row in enumerate(rows) if marked(row)][:MOST_LAYERS]
    others = sorted({*range(len(rows))} - {*kept})
    room = MOST_LAYERS - len(kept)
    kept += [others[at * len(others) // room] for at in range(room)]
    return [rows[at] for at in sorted(kept)]


def drawn_said(shown: int, rows: int) -> str:
    """That a picture does not show all layers; "" where it does."""
    return f"Shown are {shown} of {rows} layers, those with findings first." if shown < rows else ""


def by_layer(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    """The findings of each layer that their evidence names, by its name in a table."""
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        for name in _layers(finding):
            found.setdefault(name, []).append(finding)
    return found


def _layers(finding: Finding) -> tuple[str, ...]:
    """The layers that the evidence of a finding names, by their names in a table, each once."""
    layers = finding.evidence.get("layers", [finding.evidence.get("layer")])
    names = layers if isinstance(layers, (list, tuple)) else ()
    return tuple(dict.fromkeys(label_of(each) for each in names if isinstance(each, str)))


def layer_axis(names: Sequence[str]) -> Axis:
    """The x axis of layers in their order; what all names begin with stands in its title."""
    first, last = min(names, default=""), max(names, default="")
    alike = next((at for at, letter in enumerate(first) if last[at : at + 1] != letter), len(first))
    prefix = first[: first.rfind(".", 0, alike) + 1]
    if len(names) < 2 or not prefix:
        return Axis("layer", names=tuple(names))
    short_names = tuple(name.removeprefix(prefix) for name in names)
    return Axis(f"layer of {prefix.removesuffix('.')}", names=short_names)


def known(values: Iterable[object]) -> list[float | None]:
    """Numbers of rows as they are drawn; None for what is none."""
    return [
        float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
        for value in values
    ]


def ranges(label: str, lows: Numbers, highs: Numbers) -> Series:
    """A bar for each layer."""
    return Series(label, Kind.RANGE, range(len(lows)), lows, highs)


def points(label: str, values: Numbers) -> Series:
    """A point for each layer."""
    return Series(label, Kind.POINTS, range(len(values)), values)


def band(label: str, most: Numbers, others: Numbers) -> list[Series]:
    """The area up to what is known, down to the least of all numbers, those of `others` too.

    A log axis has no 0 to begin at. None where nothing is known.
    """
    known_ones = [value for value in (*most, *others) if value is not None and value > 0]
    if all(value is None for value in most) or not known_ones:
        return []
    return [Series(label, Kind.BAND, range(len(most)), [min(known_ones)] * len(most), most)]


def level(label: str, value: float) -> Series:
    """A line across the panel."""
    return Series(label, Kind.LEVEL, (), (value,))


def panel(
    title: str,
    x: Axis,
    measure: str,
    series: Sequence[Series],
    found: Mapping[int, Sequence[Finding]] | None = None,
    *,
    log: bool = True,
    coded: bool = True,
) -> Panel | None:
    """A panel over layers with its findings marked above the data; None where no number is known.

    `found` has the findings of each layer, by its place; if it is `coded`, the legend has their
    codes. A log axis stays one only where there is a number above 0.
    """
    numbers = [
        value
        for each in series
        for value in (*each.y, *each.upper)
        if value is not None and math.isfinite(value)
    ]
    if not any(value is not None for each in series if each.x for value in (*each.y, *each.upper)):
        return None
    log = log and any(value > 0 for value in numbers)
    marked = marks(found or {}, above(numbers, log=log), coded=coded)
    return Panel(title, x, Axis(measure, log=log), (*series, *marked))


def marks(
    found: Mapping[int, Sequence[Finding]], height: float | Sequence[float], *, coded: bool = True
) -> tuple[Series, ...]:
    """A mark for each layer with findings, by the worst of them; `found` is by the layer's place.

    `height` is that of all marks, or has one for each layer.

    The name of a mark has the codes of all findings of its layer, the worst first; the legend has
    those of a severity where they are few.
    """
    worst = {
        at: sorted(those, key=lambda finding: -finding.severity.rank)
        for at, those in sorted(found.items())
        if those
    }
    severities = {those[0].severity: None for those in worst.values()}
    series = []
    for severity in sorted(severities, key=lambda each: -each.rank):
        own = {at: those for at, those in worst.items() if those[0].severity is severity}
        names = [" ".join(dict.fromkeys(each.code for each in those)) for those in own.values()]
        heights = tuple(height[at] if isinstance(height, Sequence) else height for at in own)
        codes = " ".join(sorted({code for codes in names for code in codes.split()}))
        few = coded and codes.count(" ") < MOST_CODES
        series.append(
            Series(
                f"{severity.label} {codes}" if few else severity.label,
                Kind.POINTS,
                tuple(own),
                heights,
                severity=severity,
                names=tuple(names),
            )
        )
    return tuple(series)


def above(numbers: Sequence[float], *, log: bool) -> float:
    """A place above all numbers of an axis; on a `log` one, some number is positive."""
    if log:
        numbers = [value for value in numbers if value > 0]
        low, high = math.log10(min(numbers)), math.log10(max(numbers))
        power = high + max(high - low, LEAST_HEIGHT) * CLEAR
        return float(10**power) if power < math.log10(1e308) else max(numbers)
    low, high = min(numbers, default=0.0), max(numbers, default=0.0)
    return high + ((high - low) or abs(high) or 1.0) * CLEAR


# ------------------------------------------------------------------ in words


def spanned(quantity: str, lows: Numbers, highs: Numbers, names: Sequence[str]) -> str:
    """Between which numbers a quantity lies, and where these are; "" where none is known.

    `lows` and `highs` have one for each of the layers.
    """
    low = [(value, at) for at, value in enumerate(lows) if value is not None]
    high = [(value, at) for at, value in enumerate(highs) if value is not None]
    if not low or not high:
        return ""
    (least, first), (most, last) = min(low), max(high, key=lambda each: (each[0], -each[1]))
    where = ""
    if len(names) > 1:
        some = "" if len(low) == len(names) else f"{len(low)} of "
        where = f"Over {some}{len(names)} layers, "
    said = f"{where}{quantity} goes from {short(least)} to {short(most)} in {names[0]}."
    if short(least) == short(most):
        said = f"{where}{quantity} is {short(least)}."
    elif len(names) > 1:
        ends = f"from {short(least)} in {names[first]} to {short(most)} in {names[last]}"
        said = f"{where}{quantity} goes {ends}."
    if where or "_" in quantity.partition(" ")[0]:
        return said
    return f"{said[:1].upper()}{said[1:]}"


def furthest(what: str, distances: Numbers, names: Sequence[str]) -> str:
    """By up to how many standard deviations `what` holds, and of which layer; "" if not known."""
    there = [(value, at) for at, value in enumerate(distances) if value is not None]
    if not there:
        return ""
    most, worst = max(there, key=lambda each: (each[0], -each[1]))
    return f"{what} by up to {most:.3g} standard deviations, in {names[worst]}."


def factors(what: str, lows: Numbers, highs: Numbers, names: Sequence[str]) -> str:
    """Between which factors `what` holds, and of which layers these are; "" if not known.

    Of factors that are alike, one stands for all.
    """
    low = [(value, at) for at, value in enumerate(lows) if value is not None]
    high = [(value, at) for at, value in enumerate(highs) if value is not None]
    if not low or not high:
        return ""
    (least, first), (most, last) = min(low), max(high, key=lambda each: (each[0], -each[1]))
    one, two = f"{least:.3g}", f"{most:.3g}"
    if first == last or one == two:
        alike = {at for _, at in (*low, *high)} if one == two else {first}
        every = "both" if len(alike) == 2 else f"all {len(alike)}"
        where = names[first] if len(alike) == 1 else f"{every} layers"
        where += "" if len(alike) in (1, len(names)) else " where they are known"
        return f"{what} {one if one == two else f'{one} to {two}'} times as large in {where}."
    return f"{what} {one} ({names[first]}) to {two} times ({names[last]}) as large."


def findings_said(found: Iterable[Finding]) -> str:
    """Which rules the marks stand for and where, in a sentence; "" for none.

    What the findings say stands elsewhere in the report, once.
    """
    codes = codes_said(found)
    return f"The marks stand for findings: {codes}." if codes else ""


def codes_said(found: Iterable[Finding]) -> str:
    """The rules that found something, and where: "BN201 in a, BN402 in 12 layers"; "" for none."""
    ordered = sorted(found, key=lambda each: (-each.severity.rank, each.code))
    rules = [list(alike) for _, alike in groupby(ordered, lambda each: each.code)]
    said = []
    for alike in rules[:MOST_TOLD]:
        names = list(dict.fromkeys(name for each in alike for name in _places(each)))
        where = in_prose(names[0]) if len(names) == 1 else counted(len(names), "layer")
        said.append(f"{alike[0].code} in {where}")
    if (left := len(rules) - MOST_TOLD) > 0:
        said.append(f"those of {counted(left, 'more rule')}")
    return ", ".join(said)


def _places(finding: Finding) -> Sequence[str]:
    """The layers that a finding stands for, or its subject."""
    return _layers(finding) or (
        finding.places if finding.subject in finding.places else (finding.subject,)
    )


def sentences(*said: str) -> str:
    """Sentences as one text, without those that are ""."""
    return " ".join(filter(None, said))
