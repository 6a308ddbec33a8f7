"""Two stored tensors -> their `ChannelCloseness`, block by block."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.batchnorm import blocks
from bncli.dtypes import COMPUTE_DTYPES, DTYPES
from bncli.errors import TensorError
from bncli.light import np
from bncli.model import ChannelCloseness
from bncli.moments import channel_stats
from bncli.verify.meter import ClosenessMeter, pooled_closeness

if TYPE_CHECKING:
    from bncli.model import ChannelStats, TensorRef
    from bncli.process.progress import Advance


PIECE = 1 << 17
"""Values compared at a time; a comparison holds a dozen float64 arrays of this size."""

MOST_CHANNELS = 1 << 14
"""The most channels that are compared one by one; a tensor with more is compared as a whole."""


def check_pair(actual: TensorRef, expected: TensorRef) -> None:
    """Raise TensorError where the two cannot be compared value by value."""
    for tensor in (actual, expected):
        if tensor.unreadable:
            raise TensorError(f"{tensor.label}: its values cannot be read ({tensor.unreadable}).")
        if DTYPES[tensor.dtype].kind == "complex":
            raise TensorError(
                f"{tensor.label}: {tensor.dtype}; save its real and imaginary parts, and compare "
                "those."
            )
    if actual.shape != expected.shape:
        raise TensorError(
            f"{actual.label} has shape {list(actual.shape)} and {expected.label} "
            f"{list(expected.shape)}; only tensors of the same shape are compared, and nothing is "
            f"broadcast.{_moved(actual, expected)}"
        )


def _moved(actual: TensorRef, expected: TensorRef) -> str:
    """What to do where one shape is the other with its channels first or last; else ""."""
    shape, other = actual.shape, expected.shape
    for source, target in ((-1, 1), (1, -1)):
        moved = list(other)
        if len(other) < 3 or len(shape) != len(other):
            return ""
        moved.insert(target % len(other), moved.pop(source))
        if tuple(moved) == tuple(shape):
            return (
                " The channels seem to be on axis 1 of one and on the last axis of the other: "
                f"save np.moveaxis(EXPECTED, {source}, {target}) in the place of {expected.label}."
            )
    return ""


def looser(actual: TensorRef, expected: TensorRef) -> str:
    """The dtype that keeps fewer digits of the two."""

    def coarseness(dtype: str) -> float:
        return DTYPES[dtype].unit_roundoff if DTYPES[dtype].digits else 0.0

    return max(actual.dtype, expected.dtype, key=coarseness)


def compare_stored(
    actual: TensorRef,
    expected: TensorRef,
    quantity: str,
    channel_axis: int,
    tolerance: tuple[float, float],
    *,
    equal_nan: bool,
    advance: Advance | None = None,
) -> ChannelCloseness:
    """How close two tensors that passed `check_pair` are, in each channel of `channel_axis`.

    A scalar is one channel. `tolerance` is (rtol, atol); `advance` is called with the number of
    bytes done. The sizes are each channel's largest finite |expected|. A tensor of more than
    `MOST_CHANNELS` channels has one size, and no entry for each channel.
    """
    shape = expected.shape or (1,)
    whole = shape[channel_axis] > MOST_CHANNELS
    if whole:  # as one channel, on an axis of its own
        shape, channel_axis = (1, *shape), 0
    features = shape[channel_axis]
    meter = ClosenessMeter(quantity, features, channel_axis, equal_nan)
    rtol, atol = (np.full((1,) * len(shape), value) for value in tolerance)
    sizes = np.zeros(features)
    axes = tuple(axis for axis in range(len(shape)) if axis != channel_axis)
    if expected.numel:
        with ExitStack() as stack:
            readers = actual.block_reader(stack), expected.block_reader(stack)
            for block in blocks(shape, PIECE):
                given = block[len(shape) - expected.ndim :]
                ours, theirs = (
                    read(given).reshape([part.stop - part.start for part in block])
                    for read in readers
                )
                meter.add(ours, theirs, rtol, atol, tuple(part.start for part in block))
                with np.errstate(invalid="ignore"):
                    finite = np.where(np.isfinite(theirs), np.abs(theirs.astype(np.float64)), 0.0)
                part = block[channel_axis]
                sizes[part] = np.maximum(sizes[part], finite.max(axes))
                if advance is not None:
                    advance(ours.nbytes + theirs.nbytes)
    channels = meter.channels()
    if whole:
        found = pooled_closeness(quantity, channels)
        return ChannelCloseness(replace(found, index=found.index[1:]), (), tuple(sizes.tolist()))
    return ChannelCloseness(pooled_closeness(quantity, channels), channels, tuple(sizes.tolist()))


def expected_stats(expected: TensorRef, channel_axis: int) -> ChannelStats | None:
    """The statistics of each channel; None where a channel has one value or none."""
    if expected.ndim < 2 or not expected.numel:
        return None
    kind = DTYPES[expected.dtype].kind
    cast = None if expected.dtype in COMPUTE_DTYPES else "float32" if kind == "float" else "float64"
    return channel_stats(expected, channel_axis, dtype=cast)
