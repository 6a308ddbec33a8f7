"""The pass over a tensor: its tasks are done by workers and pooled in order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from bncli.dtypes import COMPUTE_DTYPES, DTYPES
from bncli.errors import TensorError
from bncli.light import dataclass
from bncli.model import ChannelStats, TensorRef
from bncli.moments.by_sample import BySample, only_sample
from bncli.moments.pooling import Moments, Pool, stats
from bncli.moments.small import small_stats
from bncli.moments.source import Source, are_many
from bncli.moments.team import TASKS_AHEAD, default_threads, in_order
from bncli.moments.values import keeps
from bncli.moments.worker import NOWHERE, Nonfinite, Wanted, Worker
from bncli.process.progress import Advance

if TYPE_CHECKING:
    from numpy.typing import NDArray


_MANY_CHANNELS = 1 << 14
"""The results of tasks of so many channels, a MiB and more each, do not wait for one another."""
_ADVANCE_BYTES = 1 << 26
"""Bytes between two calls of `advance`."""


def channel_stats(
    tensor: TensorRef | NDArray[Any],
    channel_axis: int = 1,
    *,
    dtype: str | None = None,
    kurtosis: bool = False,
    sample_axis: int | None = None,
    threads: int | None = None,
    advance: Advance | None = None,
) -> ChannelStats:
    """The statistics of each channel of `tensor`: all axes but `channel_axis` are reduced.

    `tensor` is an array or a tensor in a file, of any shape and layout; one whose bytes lie plain
    in a file is read in pieces, in memory that does not grow with it. `dtype` names the dtype, one
    of `bncli.dtypes.COMPUTE_DTYPES`, that values are rounded to first; integers and booleans need
    one. All sums are in float64 whatever the dtype.

    With `kurtosis`, `third` and `fourth` are there. With `sample_axis`, an axis other than the
    channel's, `samples` is there, but for a layout that would have too many samples begun at once
    (`bncli.moments.by_sample.MOST_OPEN`).
    `threads` is the number of threads that work, by default one for each processor the process
    may use, and at most 6; the result is the same, bit by bit, for any number. `advance` is
    called with the number of bytes done, in the calling thread.

    The variance is within 1e-12 of the exact one, relative to itself, and the mean within 1e-12,
    relative to the larger of itself and the standard deviation.

    Raises TensorError for a tensor without values, of complex numbers or of a dtype without
    arithmetic, whose values cannot be had, or without an axis `channel_axis`; FileError where
    reading fails.
    """
    if not isinstance(tensor, TensorRef):
        tensor = np.asarray(tensor)
        if dtype is None and not kurtosis and sample_axis is None:
            small = small_stats(tensor, channel_axis, extremes=True)
            if small is not None:
                if advance is not None:
                    advance(tensor.nbytes)
                return small
    source = _source(tensor, channel_axis, dtype, sample_axis, windows=not kurtosis)
    by_sample = None if sample_axis is None else BySample.of(source.layout)
    one_sample = sample_axis is not None and source.shape[sample_axis % len(source.shape)] == 1
    taken = _Pass(source, dtype, threads, one_sample)
    return taken.stats(Wanted(True, kurtosis, by_sample), advance)


def channel_moments(
    tensor: TensorRef | NDArray[Any],
    channel_axis: int = 1,
    *,
    kurtosis: bool = False,
    threads: int | None = None,
) -> ChannelStats:
    """`channel_stats` in less time, in which `min` and `max` are NaN."""
    if isinstance(tensor, np.ndarray) and not kurtosis:
        small = small_stats(tensor, channel_axis, extremes=False)
        if small is not None:
            return small
    source = _source(tensor, channel_axis, None, None, windows=not kurtosis)
    return _Pass(source, None, threads).stats(Wanted(False, kurtosis), None)


def _overflown(moments: Moments, pool: Pool) -> NDArray[np.bool_]:
    """The channels of finite values whose sums are not: the moments may fit in float64 yet."""
    overflown = ~(np.isfinite(moments.var) & np.isfinite(moments.offset))
    if moments.fourth is not None:
        overflown |= ~np.isfinite(moments.fourth)
    if pool.nonfinite is not None:
        overflown &= ~pool.nonfinite.dirty
    return overflown


def _source(
    tensor: TensorRef | NDArray[Any],
    channel_axis: int,
    dtype: str | None,
    sample_axis: int | None,
    *,
    windows: bool,
) -> Source:
    """Check that the statistics can be taken, and open the tensor.

    `windows` allows windows (see `Source`), which do not help where NumPy takes every value, too.
    """
    if isinstance(tensor, TensorRef):
        label, shape, stored = tensor.label, tensor.shape, tensor.dtype
        if tensor.storage is None:
            raise TensorError(f"{label}: its values cannot be read ({tensor.unreadable}).")
    else:
        label, shape, stored = "The array", tensor.shape, tensor.dtype.name
    if stored not in DTYPES or DTYPES[stored].kind == "complex":
        raise TensorError(f"{label}: values of dtype {stored} have no BatchNorm statistics.")
    if dtype is not None and dtype not in COMPUTE_DTYPES:
        raise TensorError(
            f"{label}: BatchNorm does not compute in {dtype}, but in {', '.join(COMPUTE_DTYPES)}."
        )
    if dtype is None and DTYPES[stored].kind != "float":
        raise TensorError(
            f"{label}: its dtype is {stored}; say which floating-point dtype to cast it to."
        )
    if not -len(shape) <= channel_axis < len(shape):
        raise TensorError(f"{label}: shape {shape} has no axis {channel_axis}.")
    channel_axis %= len(shape)
    if shape[channel_axis] == 0:
        raise TensorError(f"{label}: shape {shape} has no channels along axis {channel_axis}.")
    if 0 in shape:
        raise TensorError(f"{label}: shape {shape} has no values, so there are no statistics.")
    if sample_axis is not None:
        sample_axis %= len(shape)
    windows = windows and keeps(stored, dtype)
    return Source(tensor, channel_axis, stored, shape, sample_axis, windows=windows)


class FirstIndices(Sequence[tuple[int, ...] | None]):
    """The index of each channel's first NaN or Inf in a tensor of `shape`; None for a clean one.

    An index is made when it is asked for: a tuple for each of many channels would take more
    memory than all their statistics.
    """

    __slots__ = ("_found", "_shape")

    def __init__(self, found: Nonfinite, shape: Sequence[int]) -> None:
        self._found = found
        self._shape = shape

    def __len__(self) -> int:
        """The number of channels."""
        return len(self._found.first)

    @overload
    def __getitem__(self, channel: int) -> tuple[int, ...] | None: ...

    @overload
    def __getitem__(self, channel: slice) -> tuple[tuple[int, ...] | None, ...]: ...

    def __getitem__(self, channel: int | slice) -> Any:
        """The index of one channel, or a tuple of those of several."""
        if isinstance(channel, slice):
            return tuple(self[one] for one in range(*channel.indices(len(self))))
        index = int(self._found.first[channel])
        return None if index == NOWHERE else _unravel(index, self._shape)

    def __eq__(self, other: object) -> bool:
        """Whether another sequence holds the same indices."""
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]  # as what it stands on, arrays


def _unravel(index: int, shape: Sequence[int]) -> tuple[int, ...]:
    """The place in `shape` of a C-order index."""
    place = []
    for size in reversed(shape):
        index, at = divmod(index, size)
        place.append(at)
    return tuple(reversed(place))


@dataclass(frozen=True, slots=True)
class _Pass:
    """The passes over one tensor, whose values are rounded to `cast` first.

    `one_sample` says that its samples are wanted, and there is one.
    """

    source: Source
    cast: str | None
    threads: int | None
    one_sample: bool = False

    def stats(self, wanted: Wanted, advance: Advance | None) -> ChannelStats:
        """The statistics from one pass, and from two more where float64 overflows."""
        with np.errstate(all="ignore"):
            pool = self.scan(wanted, advance)
            moments = pool.moments()
            if (self.cast or self.source.dtype) == "float64":
                overflown = _overflown(moments, pool)
                if overflown.any():
                    moments = self._scaled(wanted, pool, overflown)
            found = pool.nonfinite or Nonfinite.none(len(moments.shift))
            samples = None if pool.samples is None else pool.samples.about(moments.offset)
            if self.one_sample:
                samples = only_sample(moments.var)
            return stats(
                moments,
                (pool.min, pool.max),
                (found.nan, found.posinf, found.neginf),
                FirstIndices(found, self.source.shape),
                samples,
                pool.engines,
            )

    def _scaled(self, wanted: Wanted, pool: Pool, overflown: NDArray[np.bool_]) -> Moments:
        """The moments again, with the channels `overflown` scaled to at most 1.

        By a power of two, which is exact.
        """
        seen = pool if wanted.extremes else self.scan(Wanted(True, wanted.kurtosis))
        largest = np.fmax(np.abs(seen.min), np.abs(seen.max))
        exponent = np.where(overflown, np.frexp(largest)[1], 0)
        scaled = Wanted(False, wanted.kurtosis, scale=np.ldexp(1.0, -exponent))
        return self.scan(scaled).moments().times_two_to(exponent)

    def scan(self, wanted: Wanted, advance: Advance | None = None) -> Pool:
        """One pass: the sums over all tasks."""
        layout = self.source.layout
        tasks = layout.tasks.count
        channels = layout.shape[layout.channel]
        by_sample = wanted.by_sample
        pool = Pool(
            channels,
            kurtosis=wanted.kurtosis,
            samples=None if by_sample is None else by_sample.pool(channels),
        )
        threads = self.threads or default_threads()
        with ExitStack() as stack:
            # The first task is done alone, for it decides how the others begin.
            workers = [Worker(self.source, self.cast, stack, wanted)]
            part = workers[0](0)
            pool.add(part)
            done = part.nbytes
            if tasks > 1:
                centre = are_many(part.recentred, len(part.shift))
                if not centre:
                    threads = min(threads, self.source.most_threads or threads)
                workers += [
                    Worker(self.source, self.cast, stack, wanted)
                    for _ in range(1, min(threads, tasks - 1))
                ]
                for worker in workers:
                    worker.centre = centre
                ahead = TASKS_AHEAD if len(part.shift) < _MANY_CHANNELS else 1
                with closing(in_order(workers, 1, tasks, ahead)) as parts:
                    for part in parts:
                        pool.add(part)
                        done += part.nbytes
                        if advance is not None and done >= _ADVANCE_BYTES:
                            advance(done)
                            done = 0
            if advance is not None:
                advance(done)
        pool.engines = tuple(sorted({name for worker in workers for name in worker.engines}))
        return pool
