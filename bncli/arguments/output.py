"""The flags that every command has: which findings count, and where its report goes."""

from __future__ import annotations

from typing import Annotated

from bncli.arguments.completion import complete_codes, complete_severities
from bncli.arguments.options import FINDINGS, OUTPUT, option
from bncli.errors import UsageError
from bncli.light import dataclass
from bncli.renderers import SUFFIXES, Format
from bncli.report import FailOn


def _severity(text: str) -> str:
    """The value of the FailOn that a text means. Raises UsageError."""
    try:
        return FailOn(text).value
    except ValueError:
        raise UsageError(
            f"--fail-on: it takes error, warning, info or never, not '{text}'."
        ) from None


@dataclass(frozen=True, slots=True)
class Output:
    """The flags as typed; None where a flag was not given and no setting stands for it."""

    fail_on: Annotated[
        FailOn | None,
        option(
            "Exit with code 1 if a finding has this severity or a higher one; info may be written "
            "note.",
            FINDINGS,
            metavar="error|warning|info|never",
            default="error",
            complete=complete_severities,
            parse=_severity,
        ),
    ] = None
    select: Annotated[
        list[str] | None,
        option(
            "Report only these findings. Give a code (BN001) or a code prefix (BN9), optionally "
            "limited to some layers (BN001:backbone.*); separate several with commas, or repeat "
            "the flag.",
            FINDINGS,
            metavar="CODES",
            default="all",
            complete=complete_codes,
        ),
    ] = None
    ignore: Annotated[
        list[str] | None,
        option(
            "Do not report these findings; written as for --select.",
            FINDINGS,
            metavar="CODES",
            default="none",
            complete=complete_codes,
        ),
    ] = None
    baseline: Annotated[
        str | None,
        option("Do not report the findings listed in this file.", FINDINGS, metavar="FILE"),
    ] = None
    update_baseline: Annotated[
        bool,
        option(
            "Write the findings to the --baseline file, so that only new ones fail from then on.",
            FINDINGS,
            "--update-baseline",
        ),
    ] = False
    format: Annotated[
        Format,
        option(
            f"The format of the report: {', '.join(form.value for form in Format)}.",
            OUTPUT,
            "--format",
            "-f",
            metavar="FORMAT",
        ),
    ] = Format.TABLE
    output: Annotated[
        list[str] | None,
        option(
            f"Write the report to a file too ({', '.join(SUFFIXES)}); may be repeated.",
            OUTPUT,
            "--output",
            "-o",
            metavar="FILE",
        ),
    ] = None
    width: Annotated[
        int | None,
        option(
            "The maximum width of the report, in characters.",
            OUTPUT,
            metavar="N",
            default="the terminal's width",
            least=20,
        ),
    ] = None
    verbose: Annotated[
        bool,
        option(
            "Show every table, column and detail; if bncli fails, show the traceback too.",
            OUTPUT,
            "--verbose",
            "-v",
        ),
    ] = False
    quiet: Annotated[bool, option("Print no report and no progress.", OUTPUT, "--quiet", "-q")] = (
        False
    )
