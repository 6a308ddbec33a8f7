"""The tables of `bncli diff`: quantities as wholes, and channels with the worst of them first."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.light import dataclass, np
from bncli.report import ANSWER_ROWS, Column, Table
from bncli.sections.answer import counted, share
from bncli.sections.tables import AT_INDEX, closeness_row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bncli.model import ChannelCloseness, ChannelStats
    from bncli.pictures import Shown
    from bncli.report import Value

CHANNEL_COLUMNS = (
    Column("passed", "passed"),
    Column("tolerance_used", "used", ".1%"),
    Column("max_abs_diff", "max_abs", ".3g"),
    Column("ulp", "ulp", ".3g"),
    Column("diff_over_std", "of_std", ".3g"),
    Column("mismatched", "mismatched"),
    Column("total", "total", foldable=True),
    *Column.plain("mean", "std", spec=".4g"),
    Column("condition", "condition", ".3g"),
    Column("max_rel_diff", "max_rel", ".3g"),
    Column("index", "index"),
    *Column.plain("actual", "expected", spec=".9g"),
    Column("passing_atol", "passing_atol", ".3g"),
)
"""What is said of a channel behind its name."""

AT_WORST = "difference: at the value that uses most of its tolerance"
"""What a table says where another value of a row differs by more."""

AT_CHANNEL_INDEX = AT_INDEX.replace("over all", "over the channel")
"""What the full tables of channels say of the place beside a largest difference."""


@dataclass(frozen=True, slots=True)
class ChannelFacts:
    """Mean, std and |mean|/std of each channel, None where a channel has none."""

    mean: list[float | None]
    std: list[float | None]
    condition: list[float | None]

    @classmethod
    def of(cls, stats: ChannelStats | None, channels: int) -> ChannelFacts:
        """Those of `stats`; None for each of `channels` channels where there are no statistics."""
        if stats is None:
            nothing: list[float | None] = [None] * channels
            return cls(nothing, nothing, nothing)
        std = np.sqrt(stats.var)
        with np.errstate(divide="ignore", invalid="ignore"):
            condition = np.abs(stats.mean) / std
        return cls(stats.mean.tolist(), std.tolist(), condition.tolist())


def channel_row(
    compared: ChannelCloseness,
    channel: int,
    dtype: str,
    facts: ChannelFacts,
    unit: float | None,
) -> dict[str, Value]:
    """One channel of one quantity, and how much its difference matters.

    `dtype` is the one in which ULPs are counted, at the channel's size; `unit` is the quantity's
    standard deviation in this channel, None where it has none. No column of a full
    table shows `max_mismatch`, nor the `difference` at `index`, which is in ULPs and in `unit` too.
    """
    item = compared.channels[channel]

    def in_units(difference: float) -> float | None:
        return difference / unit if unit and math.isfinite(unit) else None

    size = compared.sizes[channel]
    return {
        "max_mismatch": item.max_mismatch,
        "difference": item.difference,
        "difference_in_ulp": in_ulps(item.difference, size, dtype),
        "difference_in_std": in_units(item.difference),
        **closeness_row(item),
        "actual": item.actual,
        "expected": item.expected,
        "ulp": in_ulps(item.max_abs_diff, size, dtype),
        "diff_over_std": in_units(item.max_abs_diff),
        "mean": facts.mean[channel],
        "std": facts.std[channel],
        "condition": facts.condition[channel],
    }


def in_ulps(difference: float, size: float, dtype: str) -> float | None:
    """A difference in units of the last place of values of that size, None where they have none."""
    from bncli.verify.closeness import spacing

    step = float(spacing(np.array([size]), dtype)[0])
    return difference / step if math.isfinite(step) else None


def worst_first(rows: list[dict[str, Value]]) -> list[dict[str, Value]]:
    """Rows by the share of the tolerance that they used, then by their difference."""

    def key(row: Mapping[str, Value]) -> tuple[float, float]:
        used, furthest = row["tolerance_used"], row["max_abs_diff"]
        assert isinstance(used, float)
        assert isinstance(furthest, float)
        return -used, -furthest

    return sorted(rows, key=key)


def channels_answer(
    rows: Sequence[Mapping[str, Value]],
    named: tuple[Column, ...],
    sides: tuple[str, str],
    title: str = "",
    *,
    most: int = ANSWER_ROWS,
) -> Table:
    """The first rows of channels, worst first, at most `most` of them, and a line for the rest.

    `named` are the columns that name a row, and `sides` the names of the two sides. The difference
    and both values are those of the element that uses most of its tolerance.
    """
    shown, rest = rows[:most], rows[most:]
    in_std = any(row["difference_in_std"] is not None for row in shown)
    many = len(named) - 1
    columns = (
        *named,
        Column("difference", "difference", ".3g"),
        Column("index", "index", spare=1),
        Column("used", "tolerance used"),
        Column("off", "values off"),
        *([Column("difference_in_std", "in std", ".3g", spare=2 * many)] if in_std else []),
        *([Column("std", "std of channel", ".3g", spare=3)] if in_std else []),
        Column("actual", sides[0], ".9g", spare=4),
        Column("expected", sides[1], ".9g", spare=4),
        Column("difference_in_ulp", "ulp", ".3g", spare=5),
    )
    cells = [
        {
            **row,
            "off": f"{row['mismatched']} of {row['total']}",
            "used": share(number(row["tolerance_used"])),
        }
        for row in shown
    ]
    elsewhere = any(number(row["max_mismatch"]) > number(row["difference"]) for row in shown)
    note = "; ".join(filter(None, (_rest_of_channels(rest), AT_WORST * elsewhere)))
    return Table("channels", title, columns, cells, note, lead=len(named))


def _rest_of_channels(rest: Sequence[Mapping[str, Value]]) -> str:
    """A line for the channels that are not shown; "" where there are none."""
    if not rest:
        return ""
    failed = [row for row in rest if not row["passed"]]
    parts = []
    if failed:
        furthest = max(number(row["max_mismatch"]) for row in failed)
        verb = "differs" if len(failed) == 1 else "differ"
        parts.append(f"{counted(len(failed), 'more channel')} {verb}, by at most {furthest:.3g}")
    if agreeing := len(rest) - len(failed):
        verb = "agrees" if agreeing == 1 else "agree"
        parts.append(f"{counted(agreeing, 'more channel')} {verb}")
    return f"{'; '.join(parts)} (-v lists them)"


def drawn(differences: Table, channels: Table) -> tuple[Shown, ...]:
    """The pictures of both forms of the command, made of the tables that both have."""
    from bncli.commands.diff.pictures import tolerance_pictures

    return tolerance_pictures(differences, channels)


def number(value: Value) -> float:
    """A cell that holds a number."""
    assert isinstance(value, int | float)
    return float(value)
