"""Which findings count: `--select` and `--ignore` by code, by its beginning, by layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from bncli.errors import UsageError
from bncli.places import place
from bncli.report import Suppressed

if TYPE_CHECKING:
    from bncli.places import Place
    from bncli.report import Finding, Report


SHORTEST = len("BN")
"""The least letters of a code: every code begins so, and to name less is a typing error."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """`CODE`, the beginning of one, or `CODE:LAYER-GLOB`.

    The glob is held against the layer's full name, and against the name without wrappers such
    as `module.` and without what all names of its file begin with.
    """

    code: str
    glob: str = "*"

    def matches(self, finding: Finding, where: Place) -> bool:
        """Whether the finding, at this place, is meant."""
        names = (finding.subject, where.full, where.short)
        return finding.code.startswith(self.code) and any(
            fnmatchcase(name, self.glob) for name in names
        )


def parse_patterns(texts: Iterable[str], label: str) -> tuple[Pattern, ...]:
    """The patterns of a flag that may be repeated, each text a list with commas.

    Raises UsageError, which begins with `label`, for what no rule's code begins with.
    """
    from bncli.rules import RULES

    codes = [rule.code for rule in RULES]
    patterns = []
    for part in ",".join(texts).split(","):
        code, colon, glob = (piece.strip() for piece in part.partition(":"))
        if not part.strip():
            continue
        if code != code.upper() and any(known.startswith(code.upper()) for known in codes):
            raise UsageError(  # bn1 behind a comma is a layer's name, and must not mean all of BN1
                f"{label} {part.strip()}: codes are written in capitals, such as {code.upper()}, "
                f"and a layer behind its code, such as BN203:{code}."
            )
        if len(code) < SHORTEST or not any(known.startswith(code) for known in codes):
            raise UsageError(f"{label} {part.strip()}: {_no_rule(code.upper(), codes)}")
        if colon and not glob:
            raise UsageError(
                f"{label} {part.strip()} has no layer behind the colon; write one such as "
                f"{code}:backbone.*."
            )
        patterns.append(Pattern(code, glob or "*"))
    return tuple(patterns)


def _no_rule(code: str, codes: list[str]) -> str:
    """Why a code is none, and which ones are near."""
    import difflib

    near = difflib.get_close_matches(code, codes, n=3, cutoff=0.7)
    if near:
        return f"no rule's code begins so; did you mean {' or '.join(near)}?"
    return "no rule's code begins so; write one such as BN001, BN9 or BN9:output."


def selected(report: Report, select: Sequence[Pattern], ignore: Sequence[Pattern]) -> Report:
    """The report with only the findings that are selected (no pattern: all) and not ignored."""
    kept: list[Finding] = []
    suppressed = list(report.suppressed)
    for finding in report.findings:
        where = place(finding, report)
        if select and not any(pattern.matches(finding, where) for pattern in select):
            suppressed.append(Suppressed(finding, "select"))
        elif any(pattern.matches(finding, where) for pattern in ignore):
            suppressed.append(Suppressed(finding, "ignore"))
        else:
            kept.append(finding)
    return replace(report, findings=tuple(kept), suppressed=tuple(suppressed))
