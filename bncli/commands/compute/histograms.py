"""The normalised values of some channels, read once more and counted into bins of equal width."""

from __future__ import annotations

from contextlib import ExitStack
from math import prod
from typing import TYPE_CHECKING, Any

from bncli.batchnorm import blocks
from bncli.errors import TensorError
from bncli.light import dataclass, np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from bncli.arguments.input import Input
    from bncli.batchnorm import Normalization
    from bncli.model import ChannelStats, FloatArray, TensorRef
    from bncli.process.progress import Advance

    Block = tuple[slice, ...]
    Read = Callable[[Block], NDArray[Any]]

MOST_READ = 1 << 24
"""Values of an input that are read again; of larger ones, pieces at even distances are."""

PIECE = 1 << 16
"""Values that are read at a time; never less than all channels at one place."""

RUN = 256
"""Values of a channel side by side from which on the channels are read one by one."""

BINS = 32
"""Bins of a histogram."""


@dataclass(frozen=True, slots=True)
class Bins:
    """BINS bins of one width from `low` to `high`; the last one holds `high`, too."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """The width of a bin."""
        return (self.high - self.low) / BINS

    @property
    def centres(self) -> list[float]:
        """The middle of each bin."""
        return [self.low + (i + 0.5) * self.width for i in range(BINS)]


@dataclass(slots=True)
class Histogram:
    """How many normalised values of a channel lie in each of its `bins`; `counts` is (BINS,).

    `finite` is how many are finite, and `least` and `greatest` are the ends of the values
    themselves, NaN where none is finite.
    """

    bins: Bins
    counts: NDArray[Any]
    finite: int = 0
    least: float = float("nan")
    greatest: float = float("nan")

    @property
    def outside(self) -> int:
        """How many values lie in no bin."""
        return self.finite - int(self.counts.sum())

    @property
    def density(self) -> list[float]:
        """The share of the finite values in each bin, over its width: comparable with a density."""
        return (self.counts / (self.finite * self.bins.width)).tolist() if self.finite else []

    def add(self, x: FloatArray, x_hat: FloatArray) -> None:
        """Count values (n,) by what they are normalised to (n,)."""
        known = x[np.isfinite(x)]
        if known.size:
            self.least = float(np.fmin(self.least, known.min()))
            self.greatest = float(np.fmax(self.greatest, known.max()))
        x_hat = x_hat[np.isfinite(x_hat)]
        self.finite += x_hat.size
        self.counts += np.histogram(x_hat, BINS, (self.bins.low, self.bins.high))[0]


@dataclass(frozen=True, slots=True)
class Counted:
    """The histogram of each channel that was asked for, from `read` of its values.

    These are all, or come in so many `pieces` at even distances.
    """

    histograms: tuple[Histogram, ...]
    read: int
    pieces: int


def count_values(
    given: Input,
    norm: Normalization,
    stats: ChannelStats,
    channels: Sequence[int],
    bins: Sequence[Bins],
) -> Counted:
    """Count what `norm` makes of the input's values, before weight and bias, channel by channel.

    `stats` are those of the input. Memory does not grow with it. Raises TensorError where the
    values cannot be those that the statistics are of, FileError where a file cannot be read.
    """
    from bncli.process.progress import progress

    found = tuple(Histogram(each, np.zeros(BINS, np.int64)) for each in bins)
    plan = [
        (tensor, *_pieces(tensor.shape, given.channel_axis, len(channels)))
        for tensor in given.tensors
    ]
    total = sum(values for _, values, _ in plan)
    number = sum(len(pieces) for _, _, pieces in plan)
    most = number if total <= MOST_READ else max(1, number * MOST_READ // total)
    wanted = set(np.linspace(0, number - 1, most).round().astype(np.int64).tolist())
    first = read = 0
    with progress("histograms", min(total, MOST_READ) * given.itemsize) as advance:
        for tensor, _, pieces in plan:
            own = [each for n, each in enumerate(pieces, first) if n in wanted]
            first += len(pieces)
            if own:
                read += _count(given, tensor, own, norm, channels, found, advance)
            _check(tensor.label, found, stats, channels, whole=False)
    whole = most == number
    _check(given.tensors[0].label, found, stats, channels, whole=whole)
    return Counted(found, read, number if whole else len(wanted))


def _pieces(shape: tuple[int, ...], axis: int, channels: int) -> tuple[int, list[Block]]:
    """How many values are read of a tensor for so many channels, and in which pieces.

    A piece has a slice for each axis: that of the channels is empty where they are read one by one.
    """
    lead, rest = shape[:axis], shape[axis + 1 :]
    if prod(rest) >= RUN:
        own = [(*block[:axis], slice(0, 0), *block[axis:]) for block in blocks(lead + rest, PIECE)]
        return prod(lead + rest) * channels, own
    every = tuple(slice(0, size) for size in shape[axis:])
    if not lead:
        return prod(shape), [every]
    row = prod(shape[axis:])
    return prod(shape), [(*block, *every) for block in blocks(lead, max(1, PIECE // row))]


def _count(
    given: Input,
    tensor: TensorRef,
    pieces: list[Block],
    norm: Normalization,
    channels: Sequence[int],
    found: Sequence[Histogram],
    advance: Advance,
) -> int:
    """Count the values of some pieces of a tensor; gives how many there are a channel."""
    read = 0
    with ExitStack() as stack:
        reader = tensor.stored_reader(stack)
        for piece in pieces:
            for at, x in _by_channel(given, tensor, reader, piece, channels):
                channel = channels[at]
                with np.errstate(invalid="ignore", over="ignore"):
                    x_hat = x - norm.shift[channel]
                    x_hat -= norm.offset[channel]
                    x_hat *= norm.invstd[channel]
                found[at].add(x, x_hat)
                read += x.size if at == 0 else 0
                advance(x.size * given.itemsize)
    return read


def _by_channel(
    given: Input, tensor: TensorRef, reader: Read, piece: Block, channels: Sequence[int]
) -> Iterator[tuple[int, FloatArray]]:
    """The values (n,) of each of the `channels` in a piece, float64, with its place among them."""
    axis = given.channel_axis
    apart = piece[axis].stop == 0
    x = None if apart else given.decoded(reader(piece), tensor.dtype)
    for at, channel in enumerate(channels):
        if x is None:
            block = (*piece[:axis], slice(channel, channel + 1), *piece[axis + 1 :])
            own = given.decoded(reader(block), tensor.dtype)
        else:
            own = x.take(channel, axis)
        yield at, own.astype(np.float64).reshape(-1)


def _check(
    label: str,
    found: Sequence[Histogram],
    stats: ChannelStats,
    channels: Sequence[int],
    *,
    whole: bool,
) -> None:
    """Raise TensorError where values lie outside the range that all had when they were summed.

    Where the `whole` was read again, it has to reach the ends of that range.
    """
    for each, channel in zip(found, channels, strict=True):
        ends = float(stats.min[channel]), float(stats.max[channel])
        seen = each.least, each.greatest
        inside = not (seen[0] < ends[0] or seen[1] > ends[1])
        if not inside or (whole and not np.array_equal(ends, seen, equal_nan=True)):
            raise TensorError(
                f"{label}: the values of channel {channel} are no longer those that the "
                "statistics are of; run bncli again."
            )
