"""The input and the output, read block by block, and seen in another way where a view says so."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from bncli.batchnorm import along, blocks
from bncli.dtypes import DTYPES, decode, encode
from bncli.light import dataclass, np
from bncli.moments import channel_stats

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from bncli.model import ChannelStats, FloatArray, TensorRef
    from bncli.verify.identify.hypotheses import ChannelMap

Block = tuple[slice, ...]

PIECE = 1 << 18
"""Values that are looked at together."""

FEW = 1 << 14
"""Values of a block; the first mostly has one that a narrower dtype cannot hold, if any has."""


class Source(Protocol):
    """A tensor of floating point values; `dtype` is the one they were computed in."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    @property
    def dtype(self) -> str:
        """Its dtype, PyTorch's name."""

    def read(self, block: Block) -> NDArray[Any]:
        """The values of a block, bfloat16 as float32."""

    def stats(self, channel_axis: int, dtype: str | None) -> ChannelStats:
        """The statistics of each channel, of the values rounded to `dtype` first."""

    def moved(self, source: int, destination: int) -> Source:
        """The tensor with one axis in another place, as `numpy.moveaxis`."""

    def stride(self, axis: int) -> int:
        """How far neighbours along an axis lie apart, in elements."""


@dataclass(frozen=True, slots=True)
class ArraySource:
    """Values in memory; `dtype` may be narrower than the array's."""

    values: NDArray[Any]
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Source`."""
        return self.values.shape

    def read(self, block: Block) -> NDArray[Any]:
        """See `Source`."""
        return self.values[block]

    def stats(self, channel_axis: int, dtype: str | None) -> ChannelStats:
        """See `Source`."""
        return channel_stats(self.values, channel_axis, dtype=dtype)

    def moved(self, source: int, destination: int) -> Source:
        """See `Source`."""
        return replace(self, values=np.moveaxis(self.values, source, destination))

    def stride(self, axis: int) -> int:
        """See `Source`."""
        return self.values.strides[axis] // self.values.itemsize


@dataclass(frozen=True, slots=True)
class FileSource:
    """A tensor in a file, its values rounded to `dtype` where that is not the stored one."""

    tensor: TensorRef
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Source`."""
        return self.tensor.shape

    def read(self, block: Block) -> NDArray[Any]:
        """See `Source`."""
        with ExitStack() as stack:
            values = self.tensor.block_reader(stack)(block)
        return values if self.tensor.dtype == self.dtype else _rounded(values, self.dtype)

    def stats(self, channel_axis: int, dtype: str | None) -> ChannelStats:
        """See `Source`."""
        cast = self.dtype if self.dtype != self.tensor.dtype else None
        return channel_stats(self.tensor, channel_axis, dtype=dtype or cast)

    def moved(self, source: int, destination: int) -> Source:
        """See `Source`."""
        axes = list(range(self.tensor.ndim))
        axes.insert(destination % len(axes), axes.pop(source))
        tensor = replace(
            self.tensor,
            shape=tuple(self.tensor.shape[axis] for axis in axes),
            strides=tuple(self.tensor.strides[axis] for axis in axes),
        )
        return replace(self, tensor=tensor)

    def stride(self, axis: int) -> int:
        """See `Source`."""
        return self.tensor.strides[axis]


@dataclass(frozen=True, slots=True)
class View:
    """Input and output of one shape, and their channels.

    `name` says what is odd about it, "" for nothing. `channels` takes the input's channels in
    another order; `x_dtype` is what the input is rounded to first, `y_dtype` what the output was
    rounded to, both "" for nothing. `relu` says that the output is the layer's after a ReLU.
    """

    x: Source
    y: Source
    channel_axis: int
    name: str = ""
    channels: tuple[int, ...] = ()
    x_dtype: str = ""
    y_dtype: str = ""
    relu: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of both."""
        return self.x.shape

    @property
    def num_features(self) -> int:
        """The number of channels."""
        return self.shape[self.channel_axis]

    @property
    def count(self) -> int:
        """The number of values per channel."""
        total = 1
        for size in self.shape:
            total *= size
        return total // self.num_features

    @property
    def sums_by_rows(self) -> bool:
        """Whether a framework would sum row by row: no spatial axes, or channels last."""
        rows = self.count == self.shape[0] or self.channel_axis == len(self.shape) - 1
        return rows or (self.num_features > 1 and self.x.stride(self.channel_axis) == 1)

    def stats(self) -> ChannelStats:
        """The statistics of the input as it is seen."""
        found = self.x.stats(self.channel_axis, self.x_dtype or None)
        if not self.channels:
            return found
        order = list(self.channels)
        return replace(
            found,
            **{
                name: getattr(found, name)[order]
                for name in ("shift", "offset", "var", "min", "max", "nan", "posinf", "neginf")
            },
            first_nonfinite=tuple(found.first_nonfinite[channel] for channel in order),
        )

    def read(self) -> Iterator[tuple[Block, NDArray[Any], NDArray[Any]]]:
        """Each block with the values of the input and the output there."""
        for block in blocks(self.shape, PIECE):
            if self.channels:
                part = block[self.channel_axis]
                picked = [
                    self.x.read(self._one(block, channel))
                    for channel in self.channels[part.start : part.stop]
                ]
                x = np.concatenate(picked, axis=self.channel_axis)
            else:
                x = self.x.read(block)
            yield block, _rounded(x, self.x_dtype) if self.x_dtype else x, self.y.read(block)

    def _one(self, block: Block, channel: int) -> Block:
        parts = list(block)
        parts[self.channel_axis] = slice(channel, channel + 1)
        return tuple(parts)

    def at(self, values: FloatArray, block: Block) -> FloatArray:
        """A per-channel array as it broadcasts against a block."""
        return along(values[block[self.channel_axis]], len(self.shape), self.channel_axis)


@dataclass(frozen=True, slots=True)
class Fit:
    """The best affine map of the input's channels to the output's, and both their statistics.

    `ok` tells the channels in which all values are finite; the arrays are (num_features,).
    """

    stats: ChannelStats
    y_stats: ChannelStats
    slope: FloatArray
    ok: NDArray[Any]


def fit(view: View) -> Fit:
    """Least squares of y on x in each channel; a constant input has the slope 0."""
    stats = view.stats()
    y_stats = view.y.stats(view.channel_axis, None)
    ok = np.isfinite(stats.mean) & np.isfinite(stats.var)
    ok &= np.isfinite(y_stats.mean) & np.isfinite(y_stats.var)
    product = np.zeros(view.num_features)
    axes = tuple(axis for axis in range(len(view.shape)) if axis != view.channel_axis)
    with np.errstate(all="ignore"):
        for block, x, y in view.read():
            from_mean = x.astype(np.float64) - view.at(stats.mean, block)
            y_from_mean = y.astype(np.float64) - view.at(y_stats.mean, block)
            product[block[view.channel_axis]] += (from_mean * y_from_mean).sum(axes)
        slope = np.where(stats.var > 0, product / view.count / stats.var, 0.0)
    return Fit(stats, y_stats, slope, ok)


def furthest(view: View, maps: list[ChannelMap], ok: NDArray[Any]) -> FloatArray:
    """max |y - map(x)| of each map in each channel, shape (len(maps), num_features).

    Channels that are not `ok` count as 0. Where the view's output was rounded, the map's is too.
    """
    found = np.zeros((len(maps), view.num_features))
    axes = tuple(axis for axis in range(len(view.shape)) if axis != view.channel_axis)
    with np.errstate(all="ignore"):
        for block, x, y in view.read():
            part = block[view.channel_axis]
            values, wanted = x.astype(np.float64), y.astype(np.float64)
            for row, chosen in enumerate(maps):
                made = (values - view.at(chosen.center, block)) * view.at(chosen.scale, block)
                made += view.at(chosen.bias, block)
                if view.relu:
                    made = np.maximum(made, 0.0)
                if view.y_dtype:
                    made = _rounded(made, view.y_dtype)
                apart = np.abs(made - wanted).max(axes)
                apart = np.where(np.isnan(apart), np.inf, apart)
                found[row, part] = np.maximum(found[row, part], apart)
    found[:, ~ok] = 0.0
    return found


def representable(source: Source, dtype: str) -> bool:
    """Whether every value of a tensor is one of `dtype`, though its own dtype is wider."""
    if DTYPES[source.dtype].unit_roundoff >= DTYPES[dtype].unit_roundoff:
        return False
    for block in blocks(source.shape, FEW):
        values = source.read(block)
        with np.errstate(all="ignore"):
            rounded = _rounded(values, dtype)
            if not ((rounded == values) | np.isnan(values)).all():
                return False
    return True


def _rounded(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    return decode(encode(values, dtype), dtype)
