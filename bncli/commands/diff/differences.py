"""The tables of `bncli diff`: quantities as wholes, and channels with the worst of them first."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.light import dataclass, np
from bncli.report import Column
from bncli.sections.tables import closeness_row

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bncli.model import ChannelCloseness, ChannelStats
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


@dataclass(frozen=True, slots=True)
class ChannelFacts:
    """Mean, std and |mean|/std of each channel, None where a channel has none."""

    mean: list[float | None]
    std: list[float | None]
    condition: list[float | None]

    @classmethod
    def of(cls, stats: ChannelStats | None, channels: int) -> ChannelFacts:
        """Those of `stats`; without it nothing is known of so many `channels`."""
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
    standard deviation in this channel, None where it has none.
    """
    item = compared.channels[channel]
    return {
        **closeness_row(item),
        "actual": item.actual,
        "expected": item.expected,
        "ulp": in_ulps(item.max_abs_diff, compared.sizes[channel], dtype),
        "diff_over_std": item.max_abs_diff / unit if unit and math.isfinite(unit) else None,
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

    def badness(row: Mapping[str, Value]) -> tuple[float, float]:
        used, furthest = row["tolerance_used"], row["max_abs_diff"]
        assert isinstance(used, float)
        assert isinstance(furthest, float)
        return -used, -furthest

    return sorted(rows, key=badness)
