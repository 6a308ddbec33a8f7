"""What `bncli diff INPUT` says first: the quantities that come closest to failing, and why."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.commands.diff.differences import AT_WORST, number
from bncli.light import dataclass
from bncli.report import ANSWER_ROWS, Column, Table
from bncli.rulebook.comparison import ALLOW_MORE, DIFFERS
from bncli.sections.answer import closest, counted, listed, share
from bncli.sections.findings import EXPLAINED, closing, nan_note, tolerance_said

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.commands.diff.mode_tables import ModeResult
    from bncli.model import Closeness
    from bncli.report import Finding
    from bncli.verify.closeness import GivenTolerance

FAR = 1 / 3
"""The share of the largest use of a tolerance below which a quantity is counted, and not shown."""

ROUNDING_ULP = 8.0
"""The error of a gradient, in ULPs of the values that were rounded on its way, that is rounding."""

MOST_CAUSES = 2
"""Causes of differences that a verdict names."""

IS_ROUNDING = "what differs is float32 rounding"


@dataclass(frozen=True, slots=True)
class _Compared:
    """A quantity in one mode."""

    mode: str
    item: Closeness
    channel: int | None


def _worst_first(results: Sequence[ModeResult]) -> list[_Compared]:
    """Every quantity of every mode, those that failed first and the worst of them first."""
    found = [
        _Compared(result.mode, item.whole, _channel(result, item.whole))
        for result in results
        for item in result.compared.quantities
    ]
    return sorted(found, key=lambda one: one.item.badness)


def _channel(result: ModeResult, item: Closeness) -> int | None:
    """The channel in which a quantity is furthest off; None for the counter."""
    if not item.index or item.quantity == "num_batches_tracked":
        return None
    return item.index[0] if len(item.index) == 1 else item.index[result.done.channel_axis]


def quantities_answer(results: Sequence[ModeResult], backend: str) -> Table:
    """The quantities that failed, those that use most of their tolerance, and a line for the rest.

    `backend` is the name of the other side's values.
    """
    ordered = _worst_first(results)
    largest = max((one.item.used for one in ordered if one.item.passed), default=0.0)
    shown = [
        one
        for one in ordered
        if not one.item.passed or (largest > 0 and one.item.used >= FAR * largest)
    ] or [one for one in ordered if one.item.quantity == "output"]
    shown = shown[:ANSWER_ROWS]
    rest = [one.item for one in ordered if one not in shown]
    failed = any(not one.item.passed for one in shown)
    off = Column("off", "values off", spare=0 if failed else 2)
    rows = [
        {
            "quantity": one.item.quantity,
            "mode": one.mode,
            "channel": one.channel,
            "difference": one.item.difference,
            "used": share(one.item.used),
            "index": one.item.index if len(one.item.index) > 1 else None,
            "off": f"{one.item.mismatched} of {one.item.total}",
            "actual": one.item.actual,
            "expected": one.item.expected,
        }
        for one in shown
    ]
    columns = (
        Column("quantity", "quantity"),
        *([Column("mode", "mode")] if len(results) > 1 else []),
        Column("channel", "channel"),
        Column("difference", "difference", ".3g"),
        *([off] if failed else []),
        Column("used", "tolerance used"),
        *([Column("index", "index", spare=1)] if any(row["index"] for row in rows) else []),
        *([] if failed else [off]),
        Column("actual", "bncli", ".9g", spare=3),
        Column("expected", backend, ".9g", spare=3),
    )
    elsewhere = any(one.item.max_mismatch > one.item.difference for one in shown)
    note = "; ".join(filter(None, (_rest(rest), AT_WORST * elsewhere)))
    return Table("quantities", "", columns, rows, note)


def _rest(rest: Sequence[Closeness]) -> str:
    """A line for the quantities that are not shown; "" where there are none."""
    if not rest:
        return ""
    most = max(item.used for item in rest)
    said = counted(len(rest), "more quantity", "more quantities")
    if most == 0:
        return f"{said} {'does' if len(rest) == 1 else 'do'} not differ at all"
    used = share(most)
    at_most = "" if used.startswith("less") else "at most "
    return f"{said} {'uses' if len(rest) == 1 else 'use'} {at_most}{used} (-v lists them)"


def worst_findings_first(
    findings: Sequence[Finding], name: str, *, rounding: bool
) -> list[Finding]:
    """The findings, those of quantities that differ worst first, and briefly if they are several.

    Where it is known why a quantity differs, it comes first.

    `name` is that of the backend, which several say once; `rounding` says that the differences are
    proven to be rounding, so that nothing but the tolerance is wrong.
    """
    differing = [one for one in findings if one.code == DIFFERS.code]
    differing.sort(
        key=lambda one: ("cause" not in one.evidence, -number(one.evidence["tolerance_used"]))
    )
    if len(differing) > 1:
        claim = f"values differ from {name}"
        differing = [replace(one, message=_brief(one), claim=claim) for one in differing]
    if rounding:
        differing = [replace(one, hint=ALLOW_MORE) for one in differing]
    return [*(one for one in findings if one.code != DIFFERS.code), *differing]


def _brief(finding: Finding) -> str:
    """How many values differ, and how far the worst is off."""
    evidence = finding.evidence
    off = number(evidence["max_mismatch"])
    by = f", by up to {off:.2g}" if math.isfinite(off) else ", NaN or Inf on one side"
    verb = "differs" if evidence["mismatched"] == 1 else "differ"
    cause = f": {evidence['cause']}" if "cause" in evidence else ""
    return f"{evidence['mismatched']} of {evidence['total']} values {verb}{by}{cause}"


def verdict(
    results: Sequence[ModeResult],
    name: str,
    findings: Sequence[Finding],
    tolerance: GivenTolerance,
) -> str:
    """Whether the two agree, and what their differences are where that is proven.

    `tolerance` is what the user gave in place of the one that follows from the arithmetic.
    """
    ordered = _worst_first(results)
    failed = [one for one in ordered if not one.item.passed]
    total = len(ordered)
    rounding = rounding_sentence(results)
    if failed:
        several = len(results) > 1
        names = [f"{one.item.quantity}{f' ({one.mode})' * several}" for one in failed]
        within = f" at {tolerance_said(tolerance)}" if isinstance(tolerance, float) else ""
        said = f"{name} differs in {len(failed)} of {total} quantities{within}"
        joined = (str(one.evidence["cause"]) for one in findings if "cause" in one.evidence)
        causes = list(dict.fromkeys(clause for each in joined for clause in each.split("; ")))
        if causes:
            return closing(said, *causes[:MOST_CAUSES])
        said = f"{said}: {listed(names, 2)}"
        if isinstance(tolerance, tuple) and rounding == IS_ROUNDING:
            rtol, atol = tolerance
            return closing(said, f"{rounding}, which rtol {rtol:g} and atol {atol:g} do not allow")
        return closing(said, EXPLAINED if all(one.item.explained for one in failed) else "")
    worst = max(ordered, key=lambda one: one.item.used).item
    if not rounding and worst.used:
        rounding = closest(worst.quantity, worst.used)
    return closing(
        f"{name} agrees in {total} of {total} quantities",
        rounding or "all are equal",
        nan_note(findings),
    )


def rounding_sentence(results: Sequence[ModeResult]) -> str:
    """That the differences are float32's rounding, where the error budget proves it; else "".

    Proven is what PyTorch's arithmetic, repeated step by step, gives bit for bit, and a gradient
    that lies within a few ULPs of its exact value in every channel.
    """
    differing = [
        (result, item)
        for result in results
        for item in result.compared.quantities
        if item.whole.max_abs_diff > 0
    ]
    if not differing:
        return ""
    furthest = 0.0
    for result, item in differing:
        line = next((one for one in result.budget if one.quantity == item.whole.quantity), None)
        if line is None:
            return ""
        if line.repeated_ulp is None and item.whole.quantity.startswith("grad_"):
            if line.torch_ulp is None or line.channels < len(item.channels):
                return ""
            furthest = max(furthest, line.torch_ulp)
        elif line.repeated_ulp != 0:
            return ""
    if furthest <= ROUNDING_ULP:
        return IS_ROUNDING
    return (
        "what differs in the forward pass is float32 rounding; the gradients are up to "
        f"{furthest:.3g} ULP from exact"
    )
