"""Findings as people read them: one block for each rule, with the places and the fix once."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from bncli.light import dataclass
from bncli.report import Certainty, Severity
from bncli.rulebook.interface import examples

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bncli.report import Finding, Report

MOST_PLACES = 5
"""Places of one rule that are told by default, a line each."""

FEW_PLACES = 2
"""Places of one rule that are told with what supports each, by default."""

MOST_NAMES = 6
"""Names of places that share a line, because the same is said of them."""

MOST_FIXES = 2
"""Fixes of one rule that are told by default, where its cases have different ones."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place and what is said of it; both may be ""; `inner` ones are in the file above them."""

    where: str
    message: str = ""
    details: tuple[str, ...] = ()
    inner: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """All findings of one rule: the claim, how sure it is, the places, what supports it, fixes.

    Where some are surer than others, `certainty` has each, and the places say which is whose.
    `where` is the place in a few words: the subject, or how many there are.
    """

    code: str
    severity: Severity
    where: str
    claim: str
    certainty: str
    path: str
    places: tuple[Place, ...]
    details: tuple[str, ...]
    fixes: tuple[str, ...]


def blocks(report: Report, *, every: bool, by_file: bool = False) -> Iterator[Block]:
    """The findings in their order, those of one rule (and file) together.

    `every` place is told with its own details, or the first few.
    """

    def rule(finding: Finding) -> tuple[str, ...]:
        file = report.file_of(finding) if by_file else ""
        return finding.code, finding.severity.value, file

    for _, group in groupby(report.findings, rule):
        yield _block(report, list(group), every=every)


def _block(report: Report, alike: Sequence[Finding], *, every: bool) -> Block:
    """The block of findings of one rule and severity."""
    first = alike[0]
    message = first.message.rstrip(".")
    if len(alike) == 1:
        claim, where, places = message, first.subject, [Place(report.place_of(first))]
    else:
        same = all(finding.message == first.message for finding in alike)
        heading = message if same else (first.claim or message).rstrip(".")
        where = _number(report, alike)
        claim = f"{heading}: {where}"
        places = list(_places(report, alike, same=same, every=every))
    details = {finding.detail: None for finding in alike}
    fixes = _fixes(report, alike)
    left = 0 if every else len(fixes) - MOST_FIXES
    if left > 1:  # one more is no longer than a sentence about it
        more = f"{left} more fixes, each for its place: -v shows them."
        fixes = (*fixes[:MOST_FIXES], more)
    return Block(
        first.code,
        first.severity,
        where,
        claim,
        " or ".join(each.value for each in _certainties(alike)),
        report.file_of(first),
        tuple(places),
        tuple(filter(None, details)) if len(details) == 1 else (),
        fixes,
    )


def _fixes(report: Report, alike: Sequence[Finding]) -> tuple[str, ...]:
    """The fixes; where there are several, each says which places it is for."""
    of: dict[str, list[str]] = {}
    for finding in alike:
        if finding.hint:
            of.setdefault(finding.hint, []).append(report.subject_of(finding))
    if len(of) == 1 or any(not name for names in of.values() for name in names):
        return tuple(of)
    return tuple(f"{examples(names, FEW_PLACES)}: {fix}" for fix, names in of.items())


def _certainties(findings: Sequence[Finding]) -> list[Certainty]:
    """How sure the findings are, the surest first."""
    return [each for each in Certainty if any(each is one.certainty for one in findings)]


def _number(report: Report, alike: Sequence[Finding]) -> str:
    """How many places there are, and of what kind if it is known."""
    layers = all(
        finding.subject in report.names.get(report.known_file(finding), ()) for finding in alike
    )
    files = {report.known_file(finding) for finding in alike}
    word = "layers" if layers else "places"
    where = f" of {len(files)} files" if len(files) > 1 else ""
    if not layers and len(files) == len(alike) and "" not in files:
        return f"{len(files)} files"
    return f"{_count(alike)} {word}{where}"


def _count(findings: Sequence[Finding]) -> int:
    """How many places there are; a finding may stand for several."""
    return sum(max(len(finding.places), 1) for finding in findings)


def _places(
    report: Report, alike: Sequence[Finding], *, same: bool, every: bool
) -> Iterator[Place]:
    """A line for each file with several places, and for those of which the same is said."""
    several = len({finding.detail for finding in alike}) > 1
    mixed = len(_certainties(alike)) > 1
    lines: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in alike:
        detail = finding.detail if several and every else ""
        message = "" if same else finding.message.rstrip(".")
        sure = f" ({finding.certainty.value})" if mixed else ""
        said = (report.known_file(finding), f"{message}{sure}".lstrip(), detail)
        lines.setdefault(said, []).append(finding)
    most = len(lines) if every else MOST_PLACES
    detailed = several and (every or len(lines) <= FEW_PLACES)
    for path, told in groupby(list(lines.items())[:most], lambda line: line[0][0]):
        inside = list(told)
        inner = bool(path) and sum(len(found) for _, found in inside) > 1
        if inner:
            yield Place(path)
        for (_, message, _), found in inside:
            names = [report.subject_of(one) if inner else report.place_of(one) for one in found]
            details = {one.detail for one in found if one.detail and detailed}
            # Several would not say which of the names each belongs to.
            own = tuple(details) if len(details) == 1 else ()
            yield Place(_listed(names, every=every), message, own, inner)
    if left := sum(_count(found) for found in list(lines.values())[most:]):
        yield Place(f"{left} more: -v lists them", inner=True)


def _listed(names: list[str], *, every: bool) -> str:
    """Names in a line; the first few by default."""
    left = 0 if every else len(names) - MOST_NAMES
    if left <= 1:
        return ", ".join(names)
    return f"{', '.join(names[:MOST_NAMES])} and {left} more"
