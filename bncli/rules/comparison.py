"""BN9xx: what a comparison against another implementation shows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.report import Finding, Severity
from bncli.rules.interface import Rule

if TYPE_CHECKING:
    from bncli.model import Closeness

DIFFERS = Rule(
    "BN901",
    "differs",
    Severity.ERROR,
    "A quantity lies further from the other implementation's than the arithmetic explains.",
    "Compare eps, momentum, the variance (biased or not) and each channel's weight and bias.",
)

RULES = (DIFFERS,)


def comparison_findings(compared: list[Closeness], backend: str) -> list[Finding]:
    """A finding for each quantity that did not pass; `backend` is its name and version."""
    findings = []
    for item in compared:
        if item.passed:
            continue
        times = f"{item.used:.3g} times" if math.isfinite(item.used) else "beyond any multiple of"
        findings.append(
            DIFFERS.finding(
                item.quantity,
                f"{item.mismatched} of {item.total} values differ from {backend}; the worst, at "
                f"{_place(item.index)}, is {item.actual:.9g} against {item.expected:.9g}, "
                f"{times} its tolerance.",
                {
                    "mismatched": item.mismatched,
                    "total": item.total,
                    "index": item.index,
                    "actual": item.actual,
                    "expected": item.expected,
                    "tolerance_used": item.used,
                },
            )
        )
    return findings


def _place(index: tuple[int, ...]) -> str:
    """An index as a person reads it."""
    if len(index) == 1:
        return f"channel {index[0]}"
    return "[" + ", ".join(map(str, index)) + "]"
