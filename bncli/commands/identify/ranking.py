"""What both reports of `bncli identify` are: a ranking of hypotheses, with a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.report import Column, Report, Table

if TYPE_CHECKING:
    from bncli.arguments.input import Input
    from bncli.report import Finding, Value

RANK = Column.plain("rank", "explains", "mode")


def about(given: Input, *specs: str) -> tuple[tuple[str, str], ...]:
    """The inputs and the other tensors that the findings are about."""
    from bncli.arguments.layer import about_spec

    return (*given.about, *(about_spec(spec) for spec in specs))


def kind_of(row: dict[str, Value]) -> tuple[str, ...]:
    """What tells a hypothesis from others, as a row has it; its eps and momentum may be fitted."""
    return tuple(f"{key} {row[key]}" for key in ("mode", "ddof", "variant"))


def ranking(
    facts: dict[str, Value],
    columns: tuple[Column, ...],
    rows: list[dict[str, Value]],
    findings: list[Finding],
) -> Report:
    """The report, without what it is about and the files that were read."""
    explaining = sum(row["explains"] is True for row in rows)
    verdict = f"None of {facts['tried']} hypotheses explains it."
    if not rows:
        verdict = "Nothing was compared: every channel holds NaN or Inf."
    elif explaining:
        verb = "explain" if explaining > 1 else "explains"
        verdict = f"{explaining} of {facts['tried']} hypotheses {verb} it."
    return Report(
        command="identify",
        facts=facts,
        tables=(Table("hypotheses", "Hypotheses, the best first", columns, rows),),
        findings=tuple(findings),
        verdict=verdict,
        nothing_checked=not rows,
    )
