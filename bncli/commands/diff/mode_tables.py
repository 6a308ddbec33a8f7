"""The tables of `bncli diff INPUT`: a row names its mode first."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING

from bncli.commands.diff.differences import (
    AT_CHANNEL_INDEX,
    CHANNEL_COLUMNS,
    ChannelFacts,
    channel_row,
    worst_first,
)
from bncli.light import dataclass
from bncli.report import Column, Table
from bncli.sections.tables import AT_INDEX, DIFFERENCE_COLUMNS, closeness_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.arguments.layer import Layer
    from bncli.model import ChannelCloseness
    from bncli.report import Value
    from bncli.verify.batch_norm_pass import BatchNormPass
    from bncli.verify.budget import BudgetLine
    from bncli.verify.comparison import Compared

MODE_COLUMN = Column("mode", "mode", foldable=True)


@dataclass(frozen=True, slots=True)
class ModeResult:
    """One mode's pass on both sides, and where a float32 difference comes from."""

    mode: str
    layer: Layer
    done: BatchNormPass
    compared: Compared
    budget: list[BudgetLine]

    def unit(self, quantity: str, channel: int) -> float | None:
        """The standard deviation that a difference of the quantity is measured in, if any."""
        stats, norm = self.done.stats, self.done.norm
        std = math.sqrt(var) if (var := float(stats.var[channel])) >= 0 else math.nan
        if quantity in ("mean", "running_mean"):
            return std
        if quantity == "output":
            return abs(float(norm.weight[channel]) * float(norm.invstd[channel])) * std
        return None


def mode_differences_table(results: list[ModeResult], name: str) -> Table:
    """A row for each mode and quantity."""
    rows = [
        {"mode": result.mode, "quantity": item.whole.quantity, **closeness_row(item.whole)}
        for result in results
        for item in result.compared.quantities
    ]
    columns = (MODE_COLUMN, *DIFFERENCE_COLUMNS)
    return Table("differences", f"bncli against {name}", columns, rows, AT_INDEX, lead=2)


def _rows(
    result: ModeResult, item: ChannelCloseness, shown: Sequence[int]
) -> list[dict[str, Value]]:
    """A row for each channel of one quantity."""
    stats = result.done.stats
    facts = ChannelFacts.of(stats, stats.num_features)
    quantity = item.whole.quantity
    whole_tensor = quantity in ("output", "grad_input")
    dtype = result.done.dtype if whole_tensor else result.done.parameter_dtype
    return [
        {
            "mode": result.mode,
            "channel": c,
            "quantity": quantity,
            **channel_row(item, c, dtype, facts, result.unit(quantity, c)),
        }
        for c in shown
    ]


def mode_channels_table(results: list[ModeResult], shown: Sequence[int]) -> Table:
    """A row for each mode and channel: the quantity that uses most of its tolerance there."""
    rows: list[dict[str, Value]] = []
    for result in results:
        items = [item for item in result.compared.quantities if item.channels]
        for c in shown:
            worst = max(items, key=lambda item: item.channels[c].used)
            rows += _rows(result, worst, [c])
    columns = (MODE_COLUMN, *Column.plain("channel", "quantity"))
    note = (
        "quantity is the one that uses most of its tolerance in that channel; mean, std and "
        f"condition (|mean|/std) are the input's. {AT_CHANNEL_INDEX}"
    )
    return Table(
        "channels",
        "Channels, the worst first",
        (*columns, *CHANNEL_COLUMNS),
        worst_first(rows),
        note,
        lead=2,
    )


def per_quantity_table(results: list[ModeResult], shown: Sequence[int]) -> Table:
    """A row for each mode, quantity and channel, worst first."""
    rows: list[dict[str, Value]] = []
    for result in results:
        for item in result.compared.quantities:
            if item.channels:
                rows += _rows(result, item, shown)
    columns = (MODE_COLUMN, *Column.plain("quantity", "channel"))
    return Table(
        "quantities",
        "Every quantity and channel, the worst first",
        (*columns, *CHANNEL_COLUMNS),
        worst_first(rows),
        AT_CHANNEL_INDEX,
        lead=3,
    )


def budget_table(results: list[ModeResult], backend: str, *, repeated: bool) -> Table:
    """Where a float32 difference comes from; `repeated` adds PyTorch's arithmetic, repeated."""
    rows: list[dict[str, Value]] = [
        {"mode": result.mode, **{each.name: getattr(line, each.name) for each in fields(line)}}
        for result in results
        for line in result.budget
    ]
    note = f"bncli and {backend} against exact arithmetic, at each channel's worst element"
    again: tuple[Column, ...] = ()
    if repeated:
        again = (Column("repeated_ulp", "repeated_ulp", ".3g"),)
        note += (
            f"; repeated is PyTorch's arithmetic, repeated step by step, against {backend}: 0 "
            "means that what differs is rounding"
        )
    columns = (
        *Column.plain("mode", "quantity"),
        Column("bncli_ulp", "bncli_ulp", ".2g"),
        Column("torch_ulp", f"{backend}_ulp", ".3g"),
        *again,
        Column("bncli_error", "bncli_error", ".2g", spare=1),
        Column("torch_error", f"{backend}_error", ".3g", spare=1),
        Column("channels", "channels", foldable=True, spare=2),
    )
    return Table("budget", "Error budget in float32", columns, rows, f"{note}.", lead=2)
