"""The tables of `bncli diff ACTUAL EXPECTED`: a row for each tensor, and for each channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.arguments.input import parse_channels
from bncli.commands.diff.differences import (
    AT_CHANNEL_INDEX,
    CHANNEL_COLUMNS,
    ChannelFacts,
    channel_row,
    in_ulps,
    worst_first,
)
from bncli.light import dataclass
from bncli.report import Column, Table
from bncli.sections.tables import AT_INDEX, DIFFERENCE_COLUMNS, closeness_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.model import ChannelCloseness, TensorRef
    from bncli.report import Value


@dataclass(frozen=True, slots=True)
class StoredPair:
    """Two tensors of one name, compared along `channel_axis`."""

    name: str
    actual: TensorRef
    expected: TensorRef
    channel_axis: int
    compared: ChannelCloseness


def worst_pairs_first(done: Sequence[StoredPair]) -> list[StoredPair]:
    """The pairs, those that differ first and the worst of them at the beginning."""
    return sorted(done, key=lambda pair: pair.compared.whole.badness)


def differences_table(done: list[StoredPair], labels: tuple[str, ...], *, nothing: bool) -> Table:
    """A row for each tensor."""
    from bncli.verify.stored_pair import looser

    rows: list[dict[str, Value]] = []
    for pair in [] if nothing else worst_pairs_first(done):
        item = pair.compared.whole
        dtype = looser(pair.actual, pair.expected)
        largest = max(pair.compared.sizes, default=0.0)
        rows.append(
            {
                "quantity": pair.name,
                **closeness_row(item),
                "ulp": in_ulps(item.max_abs_diff, largest, dtype),
            }
        )
    columns = (*DIFFERENCE_COLUMNS[:4], Column("ulp", "ulp", ".3g"), *DIFFERENCE_COLUMNS[4:])
    return Table("differences", f"{labels[0]} against {labels[1]}", columns, rows, AT_INDEX)


def channels_table(
    done: list[StoredPair], channel: list[str] | None, *, single: bool, nothing: bool
) -> Table:
    """A row for each channel, worst first: of the one pair, or of every pair that differs."""
    from bncli.verify.stored_pair import MOST_CHANNELS, expected_stats, looser

    rows: list[dict[str, Value]] = []
    left_out: list[str] = []
    for pair in [] if nothing else done:
        if not single and pair.compared.whole.passed:
            continue
        features = len(pair.compared.channels)
        if not features:
            left_out.append(pair.name)
            continue
        shown = parse_channels(channel, features) if single else range(features)
        facts = ChannelFacts.of(expected_stats(pair.expected, pair.channel_axis), features)
        dtype = looser(pair.actual, pair.expected)
        rows += [
            {
                "quantity": pair.name,
                "channel": c,
                **channel_row(pair.compared, c, dtype, facts, facts.std[c]),
            }
            for c in shown
        ]
    named: tuple[Column, ...] = (Column("channel", "channel"),)
    if not single:
        named = (Column("quantity", "quantity"), *named)
    title = "Channels, the worst first" if single else "Channels of what differs, the worst first"
    note = "mean, std and condition (|mean|/std) are EXPECTED's; of_std is max_abs over that std. "
    note += AT_CHANNEL_INDEX
    if left_out:
        names = f"{len(left_out)} tensors" if len(left_out) > 1 else left_out[0]
        note = f"Not channel by channel, above {MOST_CHANNELS} of them: {names}. {note}"
    return Table(
        "channels", title, (*named, *CHANNEL_COLUMNS), worst_first(rows), note, lead=len(named)
    )
