"""The tables of `bncli trace`: which columns each has, in what order."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.light import dataclass, np
from bncli.report import Column, Table
from bncli.verify.trace import FLOAT32_DIGITS, RESULT_DIGITS

if TYPE_CHECKING:
    from bncli.report import Value
    from bncli.verify.trace import Identity

    Row = dict[str, Value]

OFF_COLUMNS = (Column("difference", "difference", ".2g"), Column("ulps", "ulps", ".3g"))
"""How far a rounded value lies from the exact one; see `rounding`."""

IDENTITY_COLUMNS = (
    *Column.plain("channel", "quantity"),
    *Column.plain("left", "right", spec=".9g"),
    Column("holds", "holds"),
    Column("difference", "difference", ".2g"),
    Column("equals", "equals"),
)


@dataclass(frozen=True, slots=True)
class TraceShape:
    """What a trace has besides its own values.

    Those are the values of the `backend`, which `gives_steps` or only its module's results, the
    exact ones (`float32`), those of training (`trained`), gradients (`backward`), and deviations
    from the mean (`centered`). `digits` distinguish the input's values from their mean.
    """

    backend: str | None
    gives_steps: bool
    float32: bool
    trained: bool
    backward: bool
    centered: bool
    digits: int


def steps_table(rows: list[Row], shape: TraceShape, note: str) -> Table:
    """The steps of each channel; beside other values the value comes first, else the formulas."""
    beside: list[Column] = []
    if shape.trained:
        beside += [Column("training", "training", ""), Column("apart", "differs by", ".7g")]
    if shape.float32:
        beside += [Column("exact", "exact", ""), *OFF_COLUMNS]
    if shape.backend:
        beside += [Column("torch", shape.backend, ""), Column("distance", "distance", ".2g")]
        note = f"{note} {_backend_note(shape.backend, gives_steps=shape.gives_steps)}".strip()
    value = Column("value", "value", "")
    words = [*Column.plain("numbers", "formula")]
    columns = [value, *beside, *words] if beside else [*words, value]
    return Table(
        "steps",
        "Steps",
        (
            *Column.plain("channel", "pass", "quantity"),
            *columns,
            Column("step", "step"),
        ),
        rows,
        note,
        group=("channel", "pass"),
    )


def steps_answer(rows: list[Row], shape: TraceShape, title: str, note: str) -> Table:
    """The steps of one channel in brief; beside other values, formulas have to fit."""
    digits = max(shape.digits, FLOAT32_DIGITS if shape.float32 else RESULT_DIGITS)
    if shape.trained or shape.float32 or shape.backend:
        digits = min(digits, FLOAT32_DIGITS)
    spec = f".{digits}g"
    beside: list[Column] = []
    if shape.trained:
        beside += [
            Column("training", "training", spec),
            Column("apart", "differs by", ".4g", spare=4),
        ]
    if shape.float32:
        difference, ulps = OFF_COLUMNS
        beside += [
            Column("exact", "exact", spec),
            replace(difference, spare=2),
            replace(ulps, spare=1 * bool(shape.backend)),
        ]
    if shape.backend:
        beside += [
            Column("torch", shape.backend, spec),
            Column("distance", "difference", ".2g"),
        ]
    if beside:
        rows = [row for row in rows if row["quantity"] != "count"]
    value = Column("value", "value", spec)
    brief = Column("brief", "formula", wraps=True, spare=3 * bool(beside))
    columns = [value, *beside, brief] if beside else [brief, value]
    return Table("steps", title, (Column("quantity", "quantity"), *columns), rows, note)


def elements_table(rows: list[Row], shape: TraceShape, note: str) -> Table:
    """What becomes of each element of a channel."""
    columns = [*Column.plain("channel", "index")]
    columns.append(Column("x", "x", f".{shape.digits}g"))
    if shape.centered:
        columns += Column.plain("deviation", "squared")
    if shape.float32:
        columns += [Column("output", "output", ".9g"), Column("exact", "exact", ".12g")]
        columns += OFF_COLUMNS
    else:
        columns += Column.plain("x_hat", "output", spec=".7g")
    if shape.backward:
        columns += [Column("g", "g"), Column("grad_input", "grad_input", ".7g")]
    if shape.backend:
        for name in ["output", "grad_input"] if shape.backward else ["output"]:
            columns += [
                Column(f"torch_{name}", f"{shape.backend}_{name}", ".9g"),
                Column(f"distance_{name}", "distance", ".2g"),
            ]
    return Table("elements", "Elements", tuple(columns), rows, note, group=("channel",))


def _backend_note(backend: str, *, gives_steps: bool) -> str:
    """Which of the backend's values come from its module."""
    rest = f"the other steps from single operations of {backend}"
    if not gives_steps:
        rest = "it has no values for the other steps"
    return (
        f"{backend}: the module's own mean, var, invstd, output, running statistics and gradients; "
        f"{rest}."
    )


def identities_table(checks: list[tuple[int, Identity]]) -> Table:
    """Both sides of each channel's identities."""
    rows: list[Row] = [
        {
            "channel": channel,
            "quantity": item.quantity,
            "equals": item.equals,
            "left": item.left,
            "right": item.right,
            "difference": abs(item.left - item.right),
            "holds": item.holds,
        }
        for channel, item in checks
    ]
    return Table("identities", "Identities", IDENTITY_COLUMNS, rows, group=("channel",))


def distance(value: float | None, theirs: float | None) -> float | None:
    """|value - theirs|; 0 where both are the same infinity or NaN."""
    if value is None or theirs is None:
        return None
    if value == theirs or (math.isnan(value) and math.isnan(theirs)):
        return 0.0
    return abs(value - theirs)


def rounding(value: float | None, exact: float | None) -> Row:
    """The exact value, how far off the rounded one is, and in units of its last place."""
    if value is None or exact is None:
        return {"exact": exact, "difference": None, "ulps": None}
    difference = 0.0 if value == exact else value - exact
    with np.errstate(over="ignore", invalid="ignore"):
        place = float(np.spacing(np.float32(abs(exact))))  # NaN where float32 has no such number
    return {"exact": exact, "difference": difference, "ulps": difference / place}
