"""NumKong's kernels, where it is installed: the sums and the extremes of long runs, without a copy.

`moments` sums float32 and float64 values and their squares in float64, `minmax` finds the extremes;
neither widens its input to memory first, and both on the same piece while it lies in a processor's
cache take one pass over memory. A kernel goes through one run of a channel after the other in C,
so a channel of short runs is one call, too. What it is not used for:

- Sums about 0 lose a factor K**2 of precision (see `worker`). Its float32 kernels add up without
  compensation, with as few as two sums side by side on some processors: a run of n values may be
  off by n/4 * 2**-53 of its squares' sum. `MAX_CANCELLATION` and `_PIECE_VALUES` together keep that
  below 1e-12 of the variance.
- float16 and bfloat16 are summed in float32 there, so they are widened to float32 first.
- Its kernels differ between processors in their last bits: nothing that repeats PyTorch's
  arithmetic is computed with it.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bncli.moments.layout import Sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from bncli.model import FloatArray

MAX_CANCELLATION = 8.0
"""The mean square over the variance, beyond which sums about 0 are not good enough."""
IN_MEMORY = {
    "float32": Sizes(1 << 23, 1 << 23),
    "float16": Sizes(1 << 23, 1 << 21),
    "bfloat16": Sizes(1 << 23, 1 << 21),
}
"""For the dtypes that the kernels are for: many samples at once, so that each call has many runs to
go through; halves are widened into a buffer of 8 MiB. NumPy takes float64 as fast as the kernels,
and on several threads."""
IN_FILE = Sizes(1 << 22, 1 << 21)
"""What is read at once is still in the cache when it is summed."""
_PIECE_VALUES = 4096
"""Values that are added up in one run."""
_CALL_VALUES = 1 << 16
"""Values that both kernels are called with while they are in the cache."""
_NOTHING = (np.inf, 0, -np.inf, 0)
"""The extremes of no values, and where they are."""
_SINCE = (7, 8, 6)
_BEFORE = (8,)
"""The versions whose kernels add up as described above, as the extra `fast` asks for them."""
_VALUES_A_CALL = 1600
_VALUES_A_RUN = 40
"""What a call, and each run in it, take beside the arithmetic: values that NumPy sums meanwhile."""


class Kernels(NamedTuple):
    """What is used of NumKong."""

    moments: Callable[[NDArray[Any]], tuple[float, float]]
    minmax: Callable[[NDArray[Any]], tuple[float, int, float, int] | None]
    astype: Callable[..., Any]
    engine: str
    """Its name, as `ChannelStats.engines` has it."""


@lru_cache(maxsize=1)
def kernels() -> Kernels | None:
    """NumKong's kernels; None where it is not installed, or another version than those known.

    How a version adds up decides how exact the sums are. An installation that is broken in any way
    is as good as none: NumPy sums everything, too.
    """
    try:
        import numkong

        version: str = numkong.__version__
        numbers = tuple(map(int, version.split(".")[:3]))
        if not _SINCE <= numbers < _BEFORE:
            return None
        return Kernels(numkong.moments, numkong.minmax, numkong.astype, f"numkong {version}")
    except Exception:  # noqa: BLE001  # whatever a broken installation raises
        return None


def pays(task: Sequence[int], channel: int, sample: int | None = None) -> bool:
    """Whether the kernels take tasks of this shape, `channel` being its axis, faster than NumPy.

    With the axis `sample` of samples, each run is a call of its own (`run_sums`).
    """
    runs, run = prod(task[:channel]), prod(task[channel + 1 :])
    if sample is not None:  # NumPy then sums twice, by channel and by sample
        return sample < channel and run > _VALUES_A_CALL // 2
    runs = min(runs, max(1, _CALL_VALUES // run))
    return runs * run > _VALUES_A_CALL + _VALUES_A_RUN * runs


def sums(
    use: Kernels, x: NDArray[Any], *, extremes: bool
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """The sums over axes 0 and 2 of x and of x squared, and x's extremes; each (channels,).

    x (runs, channels, values) is float32 or float64, its last axis contiguous. The extremes leave
    NaNs out, and are infinite where nothing else is there, or without `extremes`; they mean nothing
    for a channel with an infinity.
    """
    if x.shape[1] == 1:
        x = x.reshape(1, 1, -1)
    _, c, s = x.shape
    if s <= _CALL_VALUES:
        return _sums(use, x, extremes=extremes)
    calls = s // _CALL_VALUES
    done = calls * _CALL_VALUES
    parts = [
        _sums(use, one[:, :done].reshape(c, calls, -1).swapaxes(0, 1), extremes=extremes)
        for one in x
    ]
    if done < s:
        parts.append(_sums(use, x[:, :, done:], extremes=extremes))
    total, square, low, high = zip(*parts, strict=True)
    return sum(total), sum(square), np.minimum.reduce(low), np.maximum.reduce(high)


def run_sums(
    use: Kernels, x: NDArray[Any], *, extremes: bool
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """As `sums`, for a contiguous x, with the first two of each run by itself, (runs, channels)."""
    k, c, s = x.shape
    flat = sums(use, x.reshape(1, k * c, s), extremes=extremes)
    total, square, low, high = (each.reshape(k, c) for each in flat)
    return total, square, low.min(axis=0), high.max(axis=0)


def _sums(
    use: Kernels, x: NDArray[Any], *, extremes: bool
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """`sums` of x whose runs are short enough for one call each."""
    k, c, s = x.shape
    cut, rest = _in_pieces(x)
    channels = x.swapaxes(0, 1)
    height = max(1, _CALL_VALUES // s)
    moments, minmax = use.moments, use.minmax
    found: list[tuple[float, ...]] = []
    for top in range(0, k, height):
        some, whole = cut[:, top : top + height], channels[:, top : top + height]
        if extremes:
            pairs = zip(some, whole, strict=True)
            found += [moments(a) + (minmax(b) or _extremes(b)) for a, b in pairs]
        else:
            found += [(*moments(a), *_NOTHING) for a in some]
    table = np.array(found).reshape(-1, c, 6)
    total, square = np.add.reduce(table[:, :, :2], axis=0).T
    for few in rest:
        total += few.sum(axis=(0, *range(2, few.ndim)), dtype=np.float64)
        square += np.square(few, dtype=np.float64).sum(axis=(0, *range(2, few.ndim)))
    return total, square, table[:, :, 2].min(axis=0), table[:, :, 4].max(axis=0)


def _extremes(x: NDArray[Any]) -> tuple[float, ...]:
    """What `minmax` lacks where it gives None: for NaNs, but for its dtype's largest value, too."""
    low = np.fmin.reduce(x, axis=None, initial=np.inf)
    return low, 0, np.fmax.reduce(x, axis=None, initial=-np.inf), 0


def _in_pieces(x: NDArray[Any]) -> tuple[NDArray[Any], list[NDArray[Any]]]:
    """x with channels first and in pieces that are added up each for itself, and what they lack.

    A kernel joins neighbouring axes to one run where one stride walks through them. So that none
    does, each piece lacks its last value.
    """
    k, c, s = x.shape
    pieces = -(-s // _PIECE_VALUES)
    if pieces == 1:
        return x.swapaxes(0, 1), []
    length = s // pieces
    done = pieces * length
    cut = x[:, :, :done].reshape(k, c, pieces, length)
    return cut[..., :-1].swapaxes(0, 1), [cut[..., -1], x[:, :, done:]]
