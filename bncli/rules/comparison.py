"""BN9xx: what a comparison against another implementation shows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.report import Finding, Severity
from bncli.rules.interface import Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.model import Closeness

DIFFERS = Rule(
    "BN901",
    "differs",
    Severity.ERROR,
    "A quantity lies further from the other implementation's than the arithmetic explains.",
    "Compare eps, momentum, the variance (biased or not) and each channel's weight and bias.",
    symptom="A port, a fused kernel or a converted file does not give the same numbers.",
    arithmetic="|actual - expected| exceeds a tolerance that follows from the number of values, "
    "the dtype and the order of additions; the finding says how many times over. A constant ratio "
    "of n/(n - 1) in running_var is the unbiased variance against the biased one; a channel's own "
    "factor is eps, weight or a permutation.",
    certainty="Certain that rounding does not explain it, under the derived tolerances. --rtol and "
    "--atol put your own in their place.",
    lookalike="Fewer digits in both, on ill-conditioned input, is BN002 or BN902.",
    seen=("microsoft/onnxruntime#26584", "pytorch/pytorch#60528", "ml-explore/mlx#3817"),
)

LOST_DIGITS = Rule(
    "BN902",
    "lost-digits",
    Severity.WARNING,
    "The other implementation's output is far from the exact one, as its arithmetic explains.",
    "Subtract a constant from the input, or compare in float64.",
    symptom="Both agree with each other or within their tolerance, and neither is right to more "
    "than a few digits.",
    arithmetic="The output's tolerance, by the implementation's own arithmetic, is above a "
    "thousandth of the size of weight and bias, and the difference from the exact values is too.",
    certainty="Certain: bncli's own values are exact to about 1e-12.",
    lookalike="A difference that the arithmetic does not explain is BN901.",
    seen=("pytorch/pytorch#40302", "tenstorrent/tt-metal#45968"),
)

RULES = (DIFFERS, LOST_DIGITS)

MOST_LOST = 1e-3
"""The error of an output, in units of its channels' weight and bias, that is remarked."""


def lost_digits_findings(output: Closeness, scale: float, backend: str) -> list[Finding]:
    """A warning where the output passed, but by a tolerance that had to be wide.

    `scale` is the largest |weight| or |bias|: the size of a normalised output.
    """
    if not output.passed or not output.max_abs_diff > MOST_LOST * scale:
        return []
    return [
        LOST_DIGITS.finding(
            output.quantity,
            f"{backend} is off by up to {output.max_abs_diff:.3g} from the exact values, within "
            "what its own arithmetic loses on this input.",
            {"max_abs_diff": output.max_abs_diff, "scale": scale},
        )
    ]


def comparison_findings(
    compared: Sequence[Closeness],
    backend: str,
    *,
    overflow: bool = False,
    counted: str = "channel",
) -> list[Finding]:
    """A finding for each quantity that did not pass; `backend` is its name and version.

    `overflow` says that a variance overflows, which BN004 reports and which explains the rest.
    `counted` is what the index of a quantity of one axis counts.
    """
    findings = []
    for item in compared:
        if item.passed:
            continue
        times = f"{item.used:.3g} times" if math.isfinite(item.used) else "beyond any multiple of"
        findings.append(
            DIFFERS.finding(
                item.quantity,
                f"{item.mismatched} of {item.total} values differ from {backend}; the worst, at "
                f"{_place(item.index, counted)}, is {item.actual:.9g} against {item.expected:.9g}, "
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
    if overflow:
        hint = "BN004 says why: the variance overflows."
        findings = [replace(finding, hint=hint) for finding in findings]
    return findings


def _place(index: tuple[int, ...], counted: str) -> str:
    """An index as a person reads it."""
    if len(index) == 1:
        return f"{counted} {index[0]}"
    return "[" + ", ".join(map(str, index)) + "]"
