"""What of its input `trace` follows: channels, and one element or all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.errors import UsageError
from bncli.light import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.arguments.input import Input
    from bncli.report import Table

MOST_CHANNELS = 5000
"""Channels that are traced: each has up to 20 steps, and a table up to 100,000 rows."""

FEW_CHANNELS = 3
"""Channels that are traced where none are chosen, and told by default where some are."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The channels `shown`, of those `wanted`; the element at `followed`, or all for None.

    `followed` is an index without the channel axis. `named` says that the user named the channels.
    """

    wanted: Sequence[int]
    shown: list[int]
    followed: tuple[int, ...] | None
    named: bool

    @property
    def told(self) -> int:
        """Of how many channels shown the answer tells: the first, or the first few named."""
        return FEW_CHANNELS if self.named else 1

    def with_rest(self, tables: tuple[Table, ...]) -> tuple[Table, ...]:
        """The tables, which count the rows of the channels that were asked for and left out."""
        more = len(self.wanted) - len(self.shown) if self.named else 0
        if not more:
            return tables
        return tuple(
            replace(table, left_out=more * (len(table.rows) // len(self.shown))) for table in tables
        )


def choose(channel: list[str] | None, at: str | None, given: Input) -> Chosen:
    """What `--channel` and `--at` choose. Raises UsageError for what is not in the input."""
    from bncli.arguments.input import parse_channels

    wanted = parse_channels(channel, given.num_features)
    shown = list(wanted[:MOST_CHANNELS])
    followed = None
    named = bool(channel)
    if at is not None:
        followed, own = parse_at(at, given.tensors[0].shape, given.channel_axis)
        if own is not None:
            if channel and list(wanted) != [own]:
                raise UsageError(
                    f"--at {at} names channel {own}, --channel {','.join(channel)} other channels: "
                    "leave one of the flags out."
                )
            wanted = shown = [own]
            named = True
    return Chosen(wanted, shown if named else shown[:FEW_CHANNELS], followed, named)


def parse_at(
    text: str, shape: tuple[int, ...], channel_axis: int
) -> tuple[tuple[int, ...], int | None]:
    """(index without the channel axis, channel or None) of the element that `--at` names.

    Raises UsageError where a tensor of this shape has no such element.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UsageError(f"--at {text}: write an index of numbers from 0, such as 0,1,1.")
    index = [int(part) for part in parts]
    others = len(shape) - 1
    if len(index) == others:
        index.insert(channel_axis, 0)
        channel = None
    elif len(index) == len(shape):
        channel = index[channel_axis]
    else:
        raise UsageError(
            f"--at {text}: {len(index)} number{'s' * (len(index) > 1)}, but the input has "
            f"{len(shape)} axes: give {others} without the channel, or {len(shape)} with it."
        )
    for axis, (place, size) in enumerate(zip(index, shape, strict=True)):
        if place >= size:
            raise UsageError(
                f"--at {text}: axis {axis} has {size} element{'s' * (size > 1)}, "
                f"{'0' if size == 1 else f'0 to {size - 1}'}; {place} is outside."
            )
    return (*index[:channel_axis], *index[channel_axis + 1 :]), channel
