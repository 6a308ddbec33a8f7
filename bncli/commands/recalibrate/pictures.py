"""What a page shows of new running statistics: how far each layer's move, over depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.pictures import Picture
from bncli.sections.depth import (
    band,
    by_layer,
    drawn,
    drawn_said,
    factors,
    findings_said,
    furthest,
    known,
    layer_axis,
    level,
    panel,
    points,
    ranges,
    sentences,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bncli.report import Finding, Value

    Row = Mapping[str, Value]

MEASURED = ("z_max", "standard_error", "var_ratio_min", "var_ratio_max")


def pictures(
    findings: Sequence[Finding], *, rows: Sequence[Row], facts: Mapping[str, Value]
) -> tuple[Picture, ...]:
    """The picture of the rows of layers that change; () where none does, or nothing is known."""
    found = by_layer(findings)
    shown = drawn(rows, lambda row: str(row["name"]) in found)
    names = [str(row["name"]) for row in shown]
    marked = {at: found[name] for at, name in enumerate(names) if name in found}
    axis = layer_axis(names)
    of = {key: known(row[key] for row in shown) for key in MEASURED}
    z, error = of["z_max"], of["standard_error"]
    ratio = ranges("least to greatest channel", of["var_ratio_min"], of["var_ratio_max"])
    means = [points("worst channel", z), *band("standard error of the new means", error, z)]
    panels = (
        panel("Move of the means", axis, "standard deviations", means, marked),
        panel("New variance over the old one", axis, "ratio", [ratio, level("equal", 1.0)]),
    )
    there = tuple(each for each in panels if each is not None)
    if not there:
        return ()
    told = {id(each): each for those in marked.values() for each in those}
    text = sentences(
        drawn_said(len(shown), len(rows)),
        furthest("The mean of a channel moves", z, names),
        factors("The variances become", ratio.y, ratio.upper, names),
        _gap(facts),
        findings_said(told.values()),
    )
    return (Picture("moves", "How far the new statistics are from the old ones", there, text),)


def _gap(facts: Mapping[str, Value]) -> str:
    """What becomes of the gap between training and evaluation."""
    before, after = known((facts["gap_before"], facts["gap_after"]))
    if before is None or after is None:
        return ""
    return f"The gap between train() and eval() goes from {before:.3g} to {after:.3g}."
