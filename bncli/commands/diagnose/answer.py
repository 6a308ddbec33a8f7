"""The table that carries a diagnosis: the layers whose output is furthest off."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.commands.diagnose.rows import codes_of
from bncli.report import ANSWER_ROWS, Column, Table
from bncli.rulebook.live.measures import BLAMED
from bncli.sections.answer import LEAST_SHARE, counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.commands.diagnose.rows import Row
    from bncli.report import FailOn, Report, Value

FEW = 3
"""Layers that are shown where none is off by something that matters: the worst of them."""

ANSWER_COLUMNS = (
    Column("name", "layer"),
    Column("worst_channel", "channel", spare=3),
    Column("stored", "stored mean, var"),
    Column("data", "data mean, var"),
    Column("off", "off by"),
    Column("noise_said", "noise up to", spare=2),
    Column("closes_said", "closes"),
    Column("flags", "findings", spare=1),
)


def layers_table(
    report: Report,
    fail_on: FailOn,  # noqa: ARG001  # a verdict is for the model
    rows: Sequence[Row],
) -> tuple[Table, ...]:
    """The layers whose output is furthest off; the others are summed up where they are many."""
    codes = codes_of(report.findings)
    worst = sorted(rows, key=lambda row: -_number(row["predicted_error"], unknown=-1.0))
    said = [
        {
            "name": row["name"],
            "worst_channel": row["worst_channel"],
            "stored": _pair(row["running_mean"], row["running_var"]),
            "data": _pair(row["mean"], row["var"]),
            "off": _std(row["predicted_error"]),
            "noise_said": _std(row["noise"]),
            "closes_said": _share(row["closes"]),
            "flags": " ".join(codes.get(str(row["name"]), ())) or None,
            "error": row["predicted_error"],
        }
        for row in worst
    ]
    measured = [row for row in said if row["off"] is not None]
    troubled = [row for row in measured if _number(row["error"]) >= BLAMED]
    shown = (troubled or measured[:FEW])[:ANSWER_ROWS]
    rest = [row for row in said if row not in shown]
    columns = tuple(
        column for column in ANSWER_COLUMNS if any(row[column.key] is not None for row in shown)
    )
    return (Table("answer", "", columns, shown, note=_note(shown, rest)),)


def _number(value: Value, unknown: float = 0.0) -> float:
    return value if isinstance(value, float) else unknown


def _pair(mean: Value, var: Value) -> str | None:
    """A mean and a variance in a cell."""
    if mean is None and var is None:
        return None
    first, second = ("-" if each is None else f"{each:.3g}" for each in (mean, var))
    return f"{first}, {second}"


def _std(value: Value) -> str | None:
    return f"{value:.3g} std" if isinstance(value, float) else None


def _share(value: Value) -> str | None:
    """A share as a cell: 100% at most, "<-100%" at least; what is not 0 is not written as 0."""
    if not isinstance(value, float):
        return None
    if value < -1:
        return "<-100%"
    value = min(value, 1.0)
    return f"{value:.0%}" if not 0 < value < LEAST_SHARE else f"<{LEAST_SHARE:.0%}"


def _note(shown: Sequence[Row], rest: Sequence[Row]) -> str:
    """What the columns are of, and one line that sums up what is not shown."""
    said = []
    if any(row["stored"] is not None for row in shown):
        said.append("mean, var: of the worst channel")
    if any(row["closes_said"] is not None for row in shown):
        said.append("closes: with new statistics in this layer alone")
    lines = ["; ".join(said)] if said else []
    if rest:
        errors = [_number(row["error"], unknown=math.nan) for row in rest]
        what = counted(len(rest), "more layer")
        if all(map(math.isfinite, errors)):
            most = max(errors)
            what += f" below {BLAMED} std" if most < BLAMED else f" up to {most:.3g} std"
        lines.append(f"{what} (-v lists {'it' if len(rest) == 1 else 'them'})")
    return ". ".join(lines)
