"""What a page shows of a capture: the ranges of the data's statistics beside the stored ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.pictures import Picture
from bncli.sections.depth import (
    by_layer,
    drawn,
    drawn_said,
    findings_said,
    known,
    layer_axis,
    panel,
    ranges,
    sentences,
    spanned,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bncli.report import Finding, Value

    Row = Mapping[str, Value]


def pictures(findings: Sequence[Finding], *, rows: Sequence[Row]) -> tuple[Picture, ...]:
    """The picture of the table's rows; () where no layer has numbers."""
    found = by_layer(findings)
    shown = drawn(rows, lambda row: str(row["name"]) in found)
    names = [str(row["name"]) for row in shown]
    marked = {at: found[name] for at, name in enumerate(names) if name in found}
    axis = layer_axis(names)
    means, variances = (
        [
            ranges(said, *(known(row[f"{key}_{end}"] for row in shown) for end in ("min", "max")))
            for said, key in (("of the data", kind), ("stored in the model", f"running_{kind}"))
        ]
        for kind in ("mean", "var")
    )
    panels = (
        panel("Variance of the channels", axis, "variance", variances, marked),
        panel("Mean of the channels", axis, "mean", means, log=False),
    )
    there = tuple(each for each in panels if each is not None)
    if not there:
        return ()
    told = {id(each): each for those in marked.values() for each in those}
    text = sentences(
        drawn_said(len(shown), len(rows)),
        spanned("the variance of the data", variances[0].y, variances[0].upper, names),
        spanned("running_var", variances[1].y, variances[1].upper, names),
        findings_said(told.values()),
    )
    return (Picture("statistics", "Range of each layer's channels over depth", there, text),)
