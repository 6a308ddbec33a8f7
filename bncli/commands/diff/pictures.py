"""What a comparison shows: how much of its tolerance each quantity, and each channel, uses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.pictures import Axis, Kind, Panel, Picture, Series
from bncli.sections.answer import MOST_SHARE, share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bncli.report import Table, Value

    Row = Mapping[str, Value]

MOST_QUANTITIES = 24
"""Quantities that are drawn, or tensors of two files."""

MOST_CHANNELS = 200
"""Channels that are drawn."""

USED = Axis("share of the tolerance used", log=True)


def tolerance_pictures(differences: Table, channels: Table) -> tuple[Picture, ...]:
    """The shares of the tolerance in the rows of the two tables; of many rows, the largest.

    Not drawn are a single row, rows that are all equal or differ without measure, and channels of
    several tensors.
    """
    made = []
    if _tells(differences.rows):
        made.append(_by_quantity(differences.rows))
    places = {(row.get("mode"), row["channel"]) for row in channels.rows}
    if len(places) == len(channels.rows) and _tells(channels.rows):
        made.append(_by_channel(channels.rows))
    return tuple(made)


def _tells(rows: Sequence[Row]) -> bool:
    """Whether several rows have a share, and one of them more than 0."""
    return len(rows) > 1 and any(_used(row) for row in rows)


def _by_mode(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each mode; those that name none are of the mode ""."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row.get("mode", "")), []).append(row)
    return found


def _used(row: Row) -> float | None:
    """The share that a row has; None where it is not a finite number."""
    used = row["tolerance_used"]
    return used if isinstance(used, (int, float)) and math.isfinite(used) else None


def _limit() -> Series:
    """The line that what passes stays below."""
    return Series("the tolerance", Kind.LEVEL, (), [1.0])


def _by_quantity(rows: Sequence[Row]) -> Picture:
    """A point for each quantity, and for each mode where there are two."""
    worst: dict[str, float] = {}
    for row in rows:
        name, used = str(row["quantity"]), _used(row)
        worst[name] = max(worst.get(name, 0.0), math.inf if used is None else used)
    names = list(worst)
    if len(names) > MOST_QUANTITIES:
        names = sorted(names, key=lambda name: -worst[name])[:MOST_QUANTITIES]
    place = {name: float(number) for number, name in enumerate(names)}
    series = []
    for mode, own in _by_mode(rows).items():
        drawn = [row for row in own if row["quantity"] in place]
        x = [place[str(row["quantity"])] for row in drawn]
        series.append(Series(mode, Kind.POINTS, x, [_used(row) for row in drawn]))
    panel = Panel("", Axis("", names=names), USED, (*series, _limit()))
    text = _said(rows, "quantities" if rows[0].get("mode") else "tensors")
    if len(names) < len(worst):
        text += f" {len(names)} of {len(worst)} are drawn, those that use most."
    return Picture("tolerances", "Tolerance used by quantity", (panel,), text)


def _by_channel(rows: Sequence[Row]) -> Picture:
    """A point for each channel, and for each mode where there are two."""
    series, most = [], 0
    for mode, own in _by_mode(rows).items():
        most = max(most, len(own))
        drawn = sorted(own[:MOST_CHANNELS], key=_channel)  # the rows come the worst first
        x = [_channel(row) for row in drawn]
        series.append(Series(mode, Kind.POINTS, x, [_used(row) for row in drawn]))
    panel = Panel("", Axis("channel"), USED, (*series, _limit()))
    text = _said(rows, "channels")
    if most > MOST_CHANNELS:
        text += f" {MOST_CHANNELS} of {most} channels are drawn, those that use most."
    return Picture("tolerances_by_channel", "Tolerance used by channel", (panel,), text)


def _channel(row: Row) -> float:
    """The number of a row's channel."""
    channel = row["channel"]
    assert isinstance(channel, int)
    return float(channel)


def _said(rows: Sequence[Row], what: str) -> str:
    """What passes, and what uses most of its tolerance, in sentences; `what` are the rows."""
    counts = []
    for mode, own in _by_mode(rows).items():
        failed = sum(row["passed"] is False for row in own)
        where = f" in {mode} mode" if mode else ""
        counts.append(f"{failed or 'none'} of the {len(own)} {what}{where}")
    known = [(used, row) for row in rows if (used := _used(row)) is not None]
    used, row = max(known, key=lambda pair: pair[0])
    name = f"channel {row['channel']}" if what == "channels" else str(row["quantity"])
    where = f" in {row['mode']} mode" if row.get("mode") else ""
    size = f"{share(used)}{' of' * (used < MOST_SHARE)} the tolerance"
    said = [
        "Each point is the largest difference, as a share of the tolerance that it has.",
        f"The line at 1 is exceeded by {' and '.join(counts)}.",
        f"The largest share is that of {name}{where}: {size}.",
    ]
    if left := len(rows) - len(known):
        said.append(
            f"{left} {'has' if left == 1 else 'have'} no point: the difference is not finite, or "
            "none is tolerated."
        )
    return " ".join(said)
