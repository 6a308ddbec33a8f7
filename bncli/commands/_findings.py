"""The findings of a pass over one layer, and the closing line, as several commands say them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bncli.batchnorm import Normalization
    from bncli.commands._layer import Layer
    from bncli.model import ChannelStats, Closeness
    from bncli.report import Finding


def pass_findings(stats: ChannelStats, layer: Layer, norm: Normalization) -> list[Finding]:
    """What the batch and the layer's state show."""
    from bncli.rules.batch import batch_findings, fresh_statistics_finding, state_findings

    findings = batch_findings(
        stats,
        layer.settings,
        layer.parameter_dtype,
        None if layer.settings.normalizes_with_batch else norm.var,
    )
    findings += state_findings(
        {
            "weight": layer.weight,
            "bias": layer.bias,
            "running_mean": layer.running.running_mean if layer.running else None,
            "running_var": layer.running.running_var if layer.running else None,
        }
    )
    if layer.fresh:
        findings.append(fresh_statistics_finding())
    return findings


def backend_findings(
    compared: list[Closeness],
    name: str,
    norm: Normalization,
    dtype: str,
    findings: list[Finding],
    *,
    more: Mapping[str, str] | None = None,
) -> list[Finding]:
    """What the comparison with the backend `name` shows, given the pass's own `findings`.

    `more` holds sentences to add, by quantity.
    """
    import numpy as np

    from bncli.rules.batch_rules import OVERFLOW
    from bncli.rules.comparison import comparison_findings, lost_digits_findings

    overflow = any(finding.code == OVERFLOW.code for finding in findings)
    found = comparison_findings(compared, name, overflow=overflow, more=more)
    output = next(item for item in compared if item.quantity == "output")
    if dtype in ("float32", "float64") and not overflow:  # half precision is coarse by itself
        scale = float(np.max(np.abs((norm.weight, norm.bias))))
        found += lost_digits_findings(output, scale, name)
    return found


def agreement(compared: list[Closeness], name: str, findings: Sequence[Finding]) -> str:
    """The verdict of a comparison, which says where `findings` tell of NaN on both sides."""
    failed = [item.quantity for item in compared if not item.passed]
    if failed:
        return (
            f"bncli and {name} differ in {len(failed)} of {len(compared)} quantities: "
            f"{', '.join(failed)}."
        )
    if not compared:
        return f"Nothing was compared: {name} has none of it."
    closest = max(compared, key=lambda item: item.used)
    return (
        f"bncli and {name} agree in all {len(compared)} quantities; "
        f"{closest.quantity} uses most of its tolerance, {closest.used:.0%}.{nan_note(findings)}"
    )


def nan_note(findings: Sequence[Finding]) -> str:
    """That NaN of both sides is agreement, where `findings` say that there is some."""
    from bncli.rules import batch_rules as rules

    causes = (rules.NOT_FINITE, rules.NOT_POSITIVE, rules.STATE_NOT_FINITE)
    codes = {rule.code for rule in (*causes, rules.GRADIENT_NOT_FINITE)}
    if codes.isdisjoint(finding.code for finding in findings):
        return ""
    return " NaN that both sides make counts as agreement."


def closing(*sentences: str, findings: Sequence[Finding]) -> str:
    """The verdict: what there is to say, and that nothing was found where that is so."""
    return " ".join(filter(None, (*sentences, "" if findings else "No findings.")))


def by_severity(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Errors first, then warnings, then notes; each by code, and else as they came."""
    return tuple(sorted(findings, key=lambda finding: (-finding.severity.rank, finding.code)))
