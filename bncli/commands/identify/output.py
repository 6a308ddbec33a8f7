"""How an output was made: the ranking of ways, and what the output itself implies."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.commands.identify.ranking import RANK, about, departing, kind_of, ranking
from bncli.report import Column, Report, Table
from bncli.verify.identify.hypotheses import eps_text

if TYPE_CHECKING:
    from bncli.arguments.flags import KnownFlags
    from bncli.arguments.input import Input
    from bncli.report import Finding, Value
    from bncli.verify.identify.hypotheses import Known
    from bncli.verify.identify.implied import Implied
    from bncli.verify.identify.nonfinite import NotFinite
    from bncli.verify.identify.output import Identification

HYPOTHESIS_COLUMNS = (
    *RANK,
    *Column.plain("ddof", "eps"),
    Column("max_abs_diff", "max_abs", ".3g"),
    *Column.plain("variant", "channel"),
)
IMPLIED_COLUMNS = (
    *Column.plain("channel", "scale", "shift", "mean", "var", "affine"),
    Column("off", "off", ".3g"),
)


def output_report(given: Input, output: str, flags: KnownFlags) -> Report:
    """The ranking of the ways to make `output`, a tensor as it was typed."""
    from bncli.loaders import open_tensor
    from bncli.rulebook.comparison import identification_findings
    from bncli.sections.identification import identify_output_of
    from bncli.verify.identify.fixes import output_departure

    made = open_tensor(output)
    found, known, read = identify_output_of(given, made, flags, made.label)
    rows: list[dict[str, Value]] = [
        {
            "rank": rank,
            "mode": item.hypothesis.mode,
            "ddof": item.hypothesis.ddof,
            "eps": item.hypothesis.eps,
            "variant": item.hypothesis.variant,
            "max_abs_diff": item.max_abs_diff,
            "explains": item.explains,
            "channel": item.channel,
        }
        for rank, item in enumerate(found.hypotheses, 1)
    ]
    findings: list[Finding] = []
    if rows:
        best = found.hypotheses[0].hypothesis
        findings = identification_findings(
            "OUTPUT",
            best.words,
            found.tried,
            explained=found.explained,
            expected=found.expected,
            kind=kind_of(rows[0]) if found.confident else (),
        )
        if found.explained:
            findings = departing(findings, output_departure(best, known, found.eps_range))
    if found.not_finite is not None:
        left = len(found.not_finite.channels)
        one = left == 1
        rest = (
            f"{left} {'channel' if one else 'channels'} with NaN or Inf in OUTPUT alone "
            f"{'is' if one else 'are'} left out."
        )
        findings = [_not_finite(found.not_finite), *(replace(one, detail=rest) for one in findings)]
    facts = _facts(given, output, found)
    words = [item.hypothesis.label for item in found.hypotheses]
    within = [item.level < len(item.shares) for item in found.hypotheses]
    report = replace(
        ranking(facts, HYPOTHESIS_COLUMNS, rows, words, found.said, made.label, within),
        subject=_subject(given, made.label, known),
        findings=tuple(replace(finding, where=made.label) for finding in findings),
        read=read,
        about=about(given, output, *flags.specs),
    )
    if found.implied is None:
        return report
    return replace(report, tables=(*report.tables, _implied_table(found.implied)))


def _facts(given: Input, output: str, found: Identification) -> dict[str, Value]:
    """What the report says of the input, and of what was found in `output`."""
    return {
        "input": given.label,
        "output": output,
        "shape": given.tensors[0].shape,
        "inputs": len(given.tensors) if len(given.tensors) > 1 else None,
        "dtype": given.dtype,
        "channel_axis": given.channel_axis,
        "tried": found.tried,
        "channels": found.channels,
        "confident": found.confident,
        "best": found.best,
        "eps_range": found.eps_range,
        "engines": found.engines or None,
    }


def _not_finite(odd: NotFinite) -> Finding:
    """The finding for NaN and Inf in the output alone."""
    from bncli.rulebook.comparison import not_finite_finding

    at = "" if odd.first is None else str(list(odd.first))
    return not_finite_finding(
        "OUTPUT", odd.nan, odd.inf, odd.total, odd.channels, odd.num_features, at
    )


def _subject(given: Input, name: str, known: Known) -> tuple[str, ...]:
    """The output, the input, and what is expected of the layer."""
    shape = ", ".join(map(str, given.tensors[0].shape))
    first = f"{name} from {given.label}  {given.dtype} ({shape})"
    mode = "either mode"
    if known.training is not None:
        mode = "training mode" if known.training else "eval mode"
    eps = f"eps {eps_text(known.eps)}"
    if known.eps_origin:
        eps += f" ({known.eps_origin})"
    return first, f"expected: {eps}, {mode}{given.axis_said}"


def _implied_table(implied: Implied) -> Table:
    """What the output itself says of each channel; None for what it does not tell."""
    import math

    names = ("scale", "shift", "mean", "var", "off")
    columns = {name: getattr(implied, name).tolist() for name in names}
    rows: list[dict[str, Value]] = [
        {
            "channel": channel,
            **{
                name: values[channel] if math.isfinite(values[channel]) else None
                for name, values in columns.items()
            },
            "affine": affine,
        }
        for channel, affine in enumerate(implied.affine.tolist())
    ]
    note = (
        "output = scale * input + shift is the line that fits best; off is the largest difference "
        "from it, and affine says whether that may be rounding. mean and var are the statistics "
        "that would normalise in this way, with the weight, bias and eps that are known, else 1, 0 "
        "and 1e-5."
    )
    return Table("implied", "What the output itself implies", IMPLIED_COLUMNS, rows, note)
