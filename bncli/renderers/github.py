"""Workflow commands of GitHub Actions: an annotation of the run for each rule and file.

The escapes are those of GitHub's own toolkit: % and line breaks in messages, colons and commas
too in properties. GitHub shows the first ten annotations of a kind for a step, so that the worst
findings come first; the log has them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.renderers.drawing.blocks import blocks
from bncli.report import Severity, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bncli.renderers.drawing.blocks import Block
    from bncli.renderers.interface import RenderContext
    from bncli.report import Report

COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def render(report: Report, context: RenderContext) -> str:
    """A line for each file that could not be read, each rule of each file, and the verdict."""
    name = f"bncli {report.command}"
    lines = [_command("error", unread.path, name, unread.problem) for unread in report.unread]
    lines += [
        _command(COMMANDS[block.severity], block.path, f"{block.code} {block.where}", *_said(block))
        for block in blocks(report, every=context.verbose, by_file=True)
    ]
    if report.nothing_checked:
        lines.append(_command("error", "", name, report.verdict or "nothing was checked."))
    return "\n".join([*lines, f"{name}: {printable(report.verdict)}"]).rstrip() + "\n"


def _said(block: Block) -> Iterator[str]:
    """The lines of an annotation: the claim, where it holds, what supports it, the fixes."""
    yield f"{block.claim} ({block.certainty})"
    for place in block.places:
        if place.where != block.path:
            yield f"{place.where}: {place.message}" if place.message else place.where
        yield from place.details
    yield from (*block.details, *block.fixes)


def _command(command: str, file: str, title: str, *lines: str) -> str:
    """One workflow command. GitHub shows the line breaks of a message."""
    properties = [("file", file), ("title", title)]
    text = ",".join(f"{key}={_property(value)}" for key, value in properties if value)
    message = "\n".join(map(printable, lines))
    return f"::{command} {text}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(printable(text)).replace(":", "%3A").replace(",", "%2C")
