"""One line a finding, for grep and editors: `path::layer: error BN201 running_var is NaN`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.report import harmless, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bncli.renderers.interface import RenderContext
    from bncli.report import Report


def render(report: Report, context: RenderContext) -> str:  # noqa: ARG001  # looks one way
    """A line for each file that could not be read and each finding, and the verdict last."""
    return "\n".join(harmless(printable(line)) for line in _lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    for unread in report.unread:
        yield f"{unread.path}: error {unread.problem}"
    for finding in report.findings:
        place = report.place_of(finding)
        said = f"{finding.severity.label} {finding.code} {finding.message.rstrip('.')}"
        yield f"{place}: {said}" if place else said
    if report.verdict:
        yield report.verdict
