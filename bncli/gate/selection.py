"""Which findings count: `--select` and `--ignore` by code, by its beginning, by layer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.errors import UsageError
from bncli.gate.places import aliases, fits, places
from bncli.light import dataclass
from bncli.report import Suppressed

if TYPE_CHECKING:
    from bncli.report import Finding, Report


SHORTEST = len("BN")
"""The least letters of a code: every code begins so, and to name less is a typing error."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """`CODE`, the beginning of one, or `CODE:LAYER-GLOB`.

    The glob is held against the layer's full name, and against the name without wrappers such
    as `module.` and without what all names of its file begin with. The code of an older rule
    means what newer rules took over from it, too.
    """

    code: str
    glob: str = "*"

    def picks(self, finding: Finding, report: Report) -> bool:
        """Whether some of the finding is meant."""
        from bncli.rulebook import formerly

        codes = (finding.code, *formerly(finding.code))
        return any(self._fitting(finding, report, codes))

    def covers(self, finding: Finding, report: Report, codes: Iterable[str]) -> bool:
        """Whether all of the finding is meant under one of the codes: it may have many places."""
        return all(self._fitting(finding, report, codes))

    def _fitting(self, finding: Finding, report: Report, codes: Iterable[str]) -> list[bool]:
        """Whether each place of the finding is meant."""
        if not any(code.startswith(self.code) for code in codes):
            return [False]
        if self.glob == "*" or self._means(finding.subject, finding, report):
            return [True]
        return [self._means(place, finding, report) for place in places(finding)]

    def _means(self, place: str, finding: Finding, report: Report) -> bool:
        """Whether the glob means a place of the finding, by any name of it."""
        return any(fits(name, self.glob) for name in aliases(place, report, finding.path))


def parse_patterns(texts: Iterable[str], label: str) -> tuple[Pattern, ...]:
    """The patterns of a flag that may be repeated, each text a list with commas.

    Raises UsageError, which begins with `label`, for what no rule's code begins with.
    """
    from bncli.rulebook.registry import RULES

    codes = [rule.code for rule in RULES]
    names = {rule.name: rule.code for rule in RULES}
    patterns: list[Pattern] = []
    for part in ",".join(texts).split(","):
        code, colon, glob = (piece.strip() for piece in part.partition(":"))
        if not part.strip():
            continue
        if meant := names.get(code.lower()):
            raise UsageError(f"{label} {part.strip()}: write the rule's code, {meant}.")
        if code != code.upper() and code.upper() in codes and not patterns:
            written = f"{code.upper()}{colon}{glob}"
            raise UsageError(f"{label} {part.strip()}: write the code in capitals, {written}.")
        if code != code.upper() and any(known.startswith(code.upper()) for known in codes):
            raise UsageError(  # bn1 behind a comma is a layer's name, and must not mean all of BN1
                f"{label} {part.strip()}: write codes in capitals, such as {code.upper()}, "
                f"and a layer after a code and a colon, such as BN203:{code}."
            )
        if len(code) < SHORTEST or not any(known.startswith(code) for known in codes):
            raise UsageError(f"{label} {part.strip()}: {_no_rule(code.upper(), codes)}")
        if colon and not glob:
            raise UsageError(
                f"{label} '{part.strip()}': no layer follows the colon; write for example "
                f"{code}:backbone.*."
            )
        patterns.append(Pattern(code, glob or "*"))
    return tuple(patterns)


def _no_rule(code: str, codes: list[str]) -> str:
    """Why a code is not one, and which ones are close."""
    import difflib

    if re.fullmatch(r"BN\d{3}", code):
        return f"there is no rule {code}; bncli rules lists them."
    near = difflib.get_close_matches(code, codes, n=3, cutoff=0.7)
    if near:
        return f"no rule's code begins like this; did you mean {' or '.join(near)}?"
    return "no rule's code begins like this; write one such as BN001, BN9 or BN9:output."


def selected(report: Report, select: Sequence[Pattern], ignore: Sequence[Pattern]) -> Report:
    """The report with only the findings that are selected (no pattern: all) and not ignored."""
    kept: list[Finding] = []
    suppressed = list(report.suppressed)
    for finding in report.findings:
        if select and not any(pattern.picks(finding, report) for pattern in select):
            suppressed.append(Suppressed(finding, "select"))
        elif _ignored(finding, report, ignore):
            suppressed.append(Suppressed(finding, "ignore"))
        else:
            kept.append(finding)
    return replace(report, findings=tuple(kept), suppressed=tuple(suppressed))


def _ignored(finding: Finding, report: Report, ignore: Sequence[Pattern]) -> bool:
    """Whether a finding is meant by its code, or all that it stands for is by older codes."""
    from bncli.rulebook import former_codes

    def meant(codes: Iterable[str]) -> bool:
        return any(pattern.covers(finding, report, codes) for pattern in ignore)

    former = former_codes(finding)
    return meant((finding.code,)) or (bool(former) and all(map(meant, former)))
