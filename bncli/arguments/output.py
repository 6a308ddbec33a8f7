"""The flags that every command has: which findings count, and where its report goes."""

from __future__ import annotations

from typing import Annotated

import typer

from bncli.arguments.completion import complete_codes
from bncli.arguments.options import FINDINGS, OUTPUT
from bncli.renderers import SUFFIXES, Format
from bncli.report import FailOn
from bncli.values import dataclass


@dataclass(frozen=True, slots=True)
class Output:
    """The flags as typed; None where a flag was not given and no setting stands for it."""

    fail_on: Annotated[
        FailOn | None,
        typer.Option(
            help="The least severity that makes the exit code 1.",
            rich_help_panel=FINDINGS,
            show_default="error",
        ),
    ] = None
    select: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODES",
            help="Only these findings: codes (BN001), beginnings of codes (BN9), or one of them "
            "for some layers (BN001:backbone.*); with commas, or repeated.",
            rich_help_panel=FINDINGS,
            show_default="all",
            autocompletion=complete_codes,
        ),
    ] = None
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODES",
            help="All but these findings, written as for --select.",
            rich_help_panel=FINDINGS,
            show_default="none",
            autocompletion=complete_codes,
        ),
    ] = None
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="All but the findings that this file knows.",
            rich_help_panel=FINDINGS,
            show_default=False,
        ),
    ] = None
    update_baseline: Annotated[
        bool,
        typer.Option(
            "--update-baseline",
            help="Write the findings to the --baseline, so that only new ones fail.",
            rich_help_panel=FINDINGS,
        ),
    ] = False
    format: Annotated[
        Format,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help=f"How the report is shown: {', '.join(form.value for form in Format)}.",
            rich_help_panel=OUTPUT,
        ),
    ] = Format.TABLE
    output: Annotated[
        list[str] | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help=f"Write the report to a file too ({', '.join(SUFFIXES)}); may be repeated.",
            rich_help_panel=OUTPUT,
            show_default=False,
        ),
    ] = None
    width: Annotated[
        int | None,
        typer.Option(
            min=20,
            metavar="N",
            help="Columns to draw tables in.",
            rich_help_panel=OUTPUT,
            show_default="the terminal's",
        ),
    ] = None
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="Print no report and no progress.", rich_help_panel=OUTPUT
        ),
    ] = False
