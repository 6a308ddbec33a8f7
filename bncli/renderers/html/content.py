"""What a page says, in the order in which it says it; every text is one harmless line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from bncli import __version__
from bncli.errors import BncliError
from bncli.light import dataclass
from bncli.pictures import Chain, pictures_of
from bncli.renderers.drawing.blocks import MOST_FIXES, MOST_NAMES, MOST_PLACES, blocks
from bncli.renderers.drawing.cells import format_fact
from bncli.renderers.html.tables import Codes, Grid, grid_of
from bncli.report import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bncli.pictures import Shown
    from bncli.renderers.drawing.blocks import Block, Place
    from bncli.renderers.interface import RenderContext
    from bncli.report import Report

FOLDED = re.compile(r"(?<![\w-])-v (?=(?:list|show|explain)s\b)")
"""What notes say of a terminal; on a page, everything is there already."""

FOLDS = "Everything else"
"""The heading above the folds of a page, as its template has it."""

LONG_NAMES = 400
"""Letters of a list of names that is folded away behind its first ones."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A place of a finding: the names that are shown at once, and the others."""

    where: str
    rest: str
    hidden: int
    message: str
    details: tuple[str, ...]
    inner: bool


@dataclass(frozen=True, slots=True)
class Said:
    """The findings of one rule."""

    id: str
    code: str
    severity: str
    label: str
    claim: str
    certainty: str
    spots: tuple[Spot, ...]
    more: tuple[Spot, ...]
    details: tuple[str, ...]
    fixes: tuple[str, ...]
    more_fixes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture: drawn for a wide page and for a narrow one, or a chain, or why there is none."""

    title: str
    text: str
    wide: Any = ""
    narrow: Any = ""
    links: tuple[tuple[str, str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Content:
    """The whole page."""

    title: str
    command: str
    version: str
    exit_code: int
    word: str
    verdict: str
    subject: tuple[str, ...]
    unread: tuple[tuple[str, str], ...]
    findings: tuple[Said, ...]
    answers: tuple[Grid, ...]
    drawings: tuple[Drawing, ...]
    problem: str
    remarks: tuple[str, ...]
    tables: tuple[Grid, ...]
    charts: tuple[Drawing, ...]
    facts: tuple[tuple[str, str], ...]
    suppressed: tuple[tuple[str, str, str, str, str], ...]


def content_of(report: Report, context: RenderContext, prefix: str) -> Content:
    """What a page says of a delivered report; its identifiers begin with `prefix`."""
    findings = tuple(_said(report, prefix))
    codes: Codes = {}
    for said in findings:
        codes.setdefault(said.code, said.id)
    answers = report.answers(verbose=False)
    others = [
        table
        for table in report.tables
        if (table.rows or table.note) and not any(table is answer for answer in answers)
    ]
    grids = [
        grid_of(table, codes, f"{prefix}table-{number}")
        for number, table in enumerate([*answers, *others])
    ]
    problem = ""
    shown: tuple[Shown, ...] = ()
    try:
        shown = pictures_of(report)
    except BncliError as error:
        problem = printable(str(error))
    keys = {picture.key for picture in shown}
    verdict = printable(report.verdict).removeprefix(report.word).strip()
    name = f"bncli {report.command}"
    return Content(
        title=" · ".join(filter(None, (f"{report.word} {verdict}".strip()[:120], name))),
        command=report.command,
        version=__version__,
        exit_code=int(context.exit_code),
        word=report.word,
        verdict=verdict or ("" if report.word else name),
        subject=_lines(report.subject),
        unread=tuple((printable(u.path), printable(u.problem)) for u in report.unread),
        findings=findings,
        answers=tuple(map(_with_note, grids[: len(answers)])),
        drawings=tuple(map(_drawing, shown)),
        problem=problem,
        remarks=tuple(map(_unfolded, _lines(report.remarks))),
        tables=tuple(map(_with_note, grids[len(answers) :])),
        charts=tuple(_charts(report, keys)),
        facts=tuple((printable(key), format_fact(value)) for key, value in report.facts.items()),
        suppressed=tuple(_suppressed(report)),
    )


def _lines(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(printable, texts))


def _unfolded(text: str) -> str:
    """A note as it is true on a page."""
    return FOLDED.sub(f"“{FOLDS}” below ", text)


def _with_note(grid: Grid) -> Grid:
    from dataclasses import replace

    return replace(grid, note=_unfolded(grid.note))


def _said(report: Report, prefix: str) -> Iterator[Said]:
    """The findings in their order, those of one rule together."""
    taken: dict[str, int] = {}
    for block in blocks(report, every=True):
        number = taken[block.code] = taken.get(block.code, 0) + 1
        name = f"{prefix}{block.code}" + (f"-{number}" if number > 1 else "")
        yield _block(block, name)


def _block(block: Block, name: str) -> Said:
    spots = tuple(map(_spot, block.places))
    most = len(spots) if len(spots) <= MOST_PLACES + 1 else MOST_PLACES
    return Said(
        id=name,
        code=block.code,
        severity=block.severity.value,
        label=block.severity.label,
        claim=printable(block.claim),
        certainty=block.certainty,
        spots=spots[:most],
        more=spots[most:],
        details=_lines(block.details),
        fixes=_lines(block.fixes[:MOST_FIXES]),
        more_fixes=_lines(block.fixes[MOST_FIXES:]),
    )


def _spot(place: Place) -> Spot:
    """A place; of very many names, the first are shown at once."""
    names = place.where.split(", ") if len(place.where) > LONG_NAMES else [place.where]
    first, rest = (
        (names, []) if len(names) <= MOST_NAMES else (names[:MOST_NAMES], names[MOST_NAMES:])
    )
    return Spot(
        where=printable(", ".join(first)),
        rest=printable(", ".join(rest)),
        hidden=len(rest),
        message=printable(place.message),
        details=_lines(place.details),
        inner=place.inner,
    )


def _drawing(shown: Shown) -> Drawing:
    """A picture as it is drawn."""
    title, text = printable(shown.title), printable(shown.text)
    if isinstance(shown, Chain):
        links = tuple(
            (printable(link.quantity), printable(link.formula), printable(link.numbers),
             printable(link.value))
            for link in shown.links
        )  # fmt: skip
        return Drawing(title, text, links=links)
    from markupsafe import Markup

    from bncli.renderers.drawing.pictures.layout import NARROW, WIDE
    from bncli.renderers.drawing.pictures.page import svg_of

    # All text in them is escaped already, by ElementTree.
    wide, narrow = (Markup(svg_of(shown, medium)) for medium in (WIDE, NARROW))  # noqa: S704  # see above
    return Drawing(title, text, wide, narrow)


def _charts(report: Report, keys: set[str]) -> Iterator[Drawing]:
    """The charts of which there is no picture."""
    from bncli.renderers.drawing.plot import picture_of

    for chart in report.charts:
        if chart.key not in keys:
            yield _drawing(picture_of(chart))


def _suppressed(report: Report) -> Iterator[tuple[str, str, str, str, str]]:
    """What the user chose not to hear of: severity, code, place, claim, and what took it out."""
    for each in report.suppressed:
        finding = each.finding
        place = printable(report.place_of(finding))
        claim = printable(finding.message.rstrip("."))
        yield finding.severity.label, finding.code, place, claim, each.by
