"""The flags that every command has: which findings count, and where its report goes."""

from __future__ import annotations

from typing import Annotated

from bncli.arguments.completion import complete_codes
from bncli.arguments.options import FINDINGS, OUTPUT, option
from bncli.light import dataclass
from bncli.renderers import SUFFIXES, Format
from bncli.report import FailOn


@dataclass(frozen=True, slots=True)
class Output:
    """The flags as typed; None where a flag was not given and no setting stands for it."""

    fail_on: Annotated[
        FailOn | None,
        option("The least severity that makes the exit code 1.", FINDINGS, default="error"),
    ] = None
    select: Annotated[
        list[str] | None,
        option(
            "Only these findings: codes (BN001), beginnings of codes (BN9), or one of them "
            "for some layers (BN001:backbone.*); with commas, or repeated.",
            FINDINGS,
            metavar="CODES",
            default="all",
            complete=complete_codes,
        ),
    ] = None
    ignore: Annotated[
        list[str] | None,
        option(
            "All but these findings, written as for --select.",
            FINDINGS,
            metavar="CODES",
            default="none",
            complete=complete_codes,
        ),
    ] = None
    baseline: Annotated[
        str | None, option("All but the findings that this file knows.", FINDINGS, metavar="FILE")
    ] = None
    update_baseline: Annotated[
        bool,
        option(
            "Write the findings to the --baseline, so that only new ones fail.",
            FINDINGS,
            "--update-baseline",
        ),
    ] = False
    format: Annotated[
        Format,
        option(
            f"How the report is shown: {', '.join(form.value for form in Format)}.",
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
            "Columns to draw tables in.", OUTPUT, metavar="N", default="the terminal's", least=20
        ),
    ] = None
    verbose: Annotated[
        bool,
        option(
            "Show every table, column and fact too; on an error, where in bncli it was raised.",
            OUTPUT,
            "--verbose",
            "-v",
        ),
    ] = False
    quiet: Annotated[bool, option("Print no report and no progress.", OUTPUT, "--quiet", "-q")] = (
        False
    )
