"""What both reports of `bncli identify` have: a ranking of hypotheses, and a verdict."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from bncli.report import Column, Report, Table

if TYPE_CHECKING:
    from bncli.arguments.input import Input
    from bncli.pictures import Shown
    from bncli.report import Finding, Value
    from bncli.verify.identify.said import Said

MOST_BEST = 3
"""Hypotheses that are shown by default."""

RANK = Column.plain("rank", "explains", "mode")


def about(given: Input, *specs: str) -> tuple[tuple[str, str], ...]:
    """The inputs and the other tensors that the findings are about."""
    from bncli.arguments.layer import about_spec

    return (*given.about, *(about_spec(spec) for spec in specs))


def kind_of(row: dict[str, Value]) -> tuple[str, ...]:
    """What tells a hypothesis from others, as a row has it; its eps and momentum may be fitted."""
    return tuple(f"{key} {row[key]}" for key in ("mode", "ddof", "variant"))


def departing(findings: list[Finding], odd: tuple[str, str]) -> list[Finding]:
    """The findings with what differs from the expected as their claim, and its fix."""
    claim, fix = odd
    return [replace(one, message=claim, hint=fix or one.hint) for one in findings]


def ranking(
    facts: dict[str, Value],
    columns: tuple[Column, ...],
    rows: list[dict[str, Value]],
    words: list[str],
    said: Said,
    what: str,
    within: list[bool],
) -> Report:
    """The report, without its findings, what it is about and the files that were read.

    `words` say the hypotheses of the rows, `what` is what they were to explain, and `within` says
    which of them leave no more than rounding may, be they the explanation or not.
    """
    tried = facts["tried"]
    assert isinstance(tried, int)
    answer = _best_table(rows, words) if rows else Table("hypotheses", "", columns, ())
    lines = []
    if rows:
        more = f"; {said.contrast}" if said.contrast and rows[0]["explains"] else ""
        lines = [f"{tried} hypotheses tried{more}"]
    if said.doubt:
        lines.append(said.doubt)
    return Report(
        command="identify",
        facts=facts,
        answer=(answer,),
        remarks=tuple(lines),
        tables=(Table("hypotheses", "Hypotheses, the best first", columns, rows),),
        pictures=partial(_drawn, rows, words, what, within, tried),
        verdict=said.claim,
        nothing_checked=not rows,
    )


def _drawn(
    rows: list[dict[str, Value]], words: list[str], what: str, within: list[bool], tried: int
) -> tuple[Shown, ...]:
    from bncli.commands.identify.pictures import residual_pictures

    return residual_pictures(rows, words, what, within, tried)


def _best_table(rows: list[dict[str, Value]], words: list[str]) -> Table:
    """The best hypotheses in words, and of those that explain it how many more there are."""
    best = [
        {"hypothesis": said, **{key: row[key] for key in ("max_abs_diff", "channel")}}
        for row, said in zip(rows[:MOST_BEST], words, strict=False)
    ]
    left = sum(row["explains"] is True for row in rows[MOST_BEST:])
    notes = [f"{left} more explain{'s' * (left == 1)} it too (-v lists them)"] if left else []
    off = [row["max_abs_diff"] for row in rows[:MOST_BEST] if row["explains"] is True]
    numbers = [value for value in off if isinstance(value, float)]
    if numbers and numbers[0] > min(numbers):
        notes.append("those that explain it are listed by simplicity")
    note = "; ".join(notes)
    columns = (
        Column("hypothesis", "hypothesis", wraps=True),
        Column("max_abs_diff", "off by", ".2g"),
        Column("channel", "channel"),
    )
    return Table("best", "", columns, best, note)
