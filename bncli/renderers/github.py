"""Workflow commands of GitHub Actions: each finding becomes an annotation of the run.

The escapes are those of GitHub's own toolkit: % and line breaks in messages, colons and commas
too in properties. GitHub shows the first ten annotations of a kind for a step, so that the worst
findings come first; the log has them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.report import Severity, printable

if TYPE_CHECKING:
    from bncli.renderers.interface import RenderContext
    from bncli.report import Report

COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def render(report: Report, context: RenderContext) -> str:  # noqa: ARG001  # looks one way
    """A line for each file that could not be read and each finding, and the verdict last."""
    name = f"bncli {report.command}"
    lines = [_command("error", unread.path, name, unread.problem) for unread in report.unread]
    lines += [
        _command(
            COMMANDS[finding.severity],
            report.file_of(finding),
            f"{finding.code} {finding.subject}",
            f"{finding.subject}: {finding.message} {finding.hint}".rstrip(),
        )
        for finding in report.findings
    ]
    if report.nothing_checked:
        lines.append(_command("error", "", name, report.verdict or "nothing was checked."))
    return "\n".join([*lines, f"{name}: {printable(report.verdict)}"]).rstrip() + "\n"


def _command(command: str, file: str, title: str, message: str) -> str:
    """One workflow command."""
    properties = [("file", file), ("title", title)]
    text = ",".join(f"{key}={_property(value)}" for key, value in properties if value)
    return f"::{command} {text}::{_data(printable(message))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(printable(text)).replace(":", "%3A").replace(",", "%2C")
