"""NumKong's kernels, where it is installed: the sums and the extremes of long runs, without a copy.

`moments` adds up float32 values and their squares in float64, and `minmax` finds the extremes.
Neither widens its input to memory first, and both on the same piece while it lies in a processor's
cache take one pass over memory. A kernel goes through one run of a channel after the other in C, so
that many short runs of a channel are one call. Its limits:

- Sums about 0 lose a factor K**2 of precision, K**2 being the mean square over the variance (see
  `worker`). The float32 kernels add up without compensation, with as few as two sums side by side
  on some processors: the sum of the squares of a run of n values may be off by n/4 * 2**-53 of
  itself. (The sum of the values is exact as long as they do not differ in size by more than 2**18,
  for 24 bits and 11 more for two thousand values fit in the 53 of float64.) `MAX_CANCELLATION` and
  `_PIECE_VALUES` together keep that below 1e-12 of the variance.
- float16 and bfloat16 would be summed in float32, so they are widened to float32 first.
- The last bits differ between processors. Nothing that repeats PyTorch's arithmetic is computed
  with it, but for the widening of float16, which is exact.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bncli.moments.layout import Sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from bncli.model import FloatArray

    Widen = Callable[[NDArray[Any], NDArray[np.float32]], None]

MAX_CANCELLATION = 8.0
"""The mean square over the variance, beyond which sums about 0 are not good enough."""
DTYPES = {"float32": 40, "float16": 150, "bfloat16": 150}
"""The dtypes that the kernels are for, and the overhead of each run in a call, as the number of
values that NumPy sums in that time. NumPy takes float64 as fast as the kernels, on several threads.
"""
IN_MEMORY = Sizes(1 << 23, 1 << 23)
"""Tasks and windows of an array: of many samples, so that each call has many runs to go through."""
IN_FILE = Sizes(1 << 22, 1 << 21)
"""Tasks and windows of a file: what is read at once is still in the cache when it is summed."""
_PIECE_VALUES = 4096
"""Values that are added up in one run."""
_CALL_VALUES = 1 << 16
"""Values that both kernels are called with while they are in the cache."""
_NOTHING = (np.inf, 0, -np.inf, 0)
"""The extremes of no values, and where they are."""
_SINCE = (7, 8, 6)
_BEFORE = (7, 9)
"""The versions whose kernels add up as described above, as the extra `fast` asks for them."""
_VALUES_A_CALL = 1600
"""The overhead of a call, as the number of values that NumPy sums in that time."""


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
        found = Kernels(numkong.moments, numkong.minmax, numkong.astype, f"numkong {version}")
        return found if _SINCE <= numbers < _BEFORE and _work(found) else None
    except (Exception, SystemExit):  # noqa: BLE001  # whatever a broken installation raises
        return None


def _work(found: Kernels) -> bool:
    """Whether the kernels do what they are known for, on a few values."""
    half, wide = np.array([[-1.5, 2.0], [0.25, 4.0]], np.float16), np.empty((2, 2), np.float32)
    found.astype(half, "float32", out=wide)
    sums, ends = found.moments(wide.T[1]), found.minmax(wide)
    return tuple(sums) == (6.0, 20.0) and ends is not None and ends[::2] == (-1.5, 4.0)


def pays(dtype: str, window: Sequence[int], channel: int, sample: int | None = None) -> bool:
    """Whether the kernels take windows of this shape, `channel` being its axis, faster than NumPy.

    `dtype`, one of `DTYPES`, is that in which the values come. With the axis `sample` of samples,
    each run is a call of its own (`run_sums`).
    """
    runs, run = prod(window[:channel]), prod(window[channel + 1 :])
    if sample is not None:  # NumPy then sums twice, by channel and by sample
        return sample < channel and run > _VALUES_A_CALL // 2
    runs = min(runs, max(1, _CALL_VALUES // run))
    return runs * run > _VALUES_A_CALL + DTYPES[dtype] * runs


def sums(
    use: Kernels, x: NDArray[Any], *, extremes: bool, widen: Widen | None = None
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """The sums over axes 0 and 2 of x and of x squared, and x's extremes; each (channels,).

    x (runs, channels, values) is float32, or of a dtype that `widen` turns into float32, and its
    last axis contiguous. The extremes leave NaNs out, and are infinite where nothing else is there,
    or without `extremes`; they mean nothing for a channel with an infinity.
    """
    if x.shape[1] == 1:
        x = x.reshape(1, 1, -1)
    _, c, s = x.shape
    if s <= _CALL_VALUES:
        return _sums(use, x, extremes, widen)
    calls = s // _CALL_VALUES
    done = calls * _CALL_VALUES
    parts = [
        _sums(use, one[:, :done].reshape(c, calls, -1).swapaxes(0, 1), extremes, widen) for one in x
    ]
    if done < s:
        parts.append(_sums(use, x[:, :, done:], extremes, widen))
    total, square, low, high = zip(*parts, strict=True)
    return sum(total), sum(square), np.minimum.reduce(low), np.maximum.reduce(high)


def run_sums(
    use: Kernels, x: NDArray[Any], *, extremes: bool, widen: Widen | None = None
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """As `sums`, for a contiguous x, with the first two of each run by itself, (runs, channels)."""
    k, c, s = x.shape
    flat = sums(use, x.reshape(1, k * c, s), extremes=extremes, widen=widen)
    total, square, low, high = (each.reshape(k, c) for each in flat)
    return total, square, low.min(axis=0), high.max(axis=0)


def _sums(
    use: Kernels, x: NDArray[Any], extremes: bool, widen: Widen | None
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """`sums` of x whose runs are short enough for one call each."""
    moments, minmax = use.moments, use.minmax
    calls = _calls(x, widen)
    found: list[tuple[float, ...]]
    if extremes:
        found = [moments(a) + (minmax(b) or _extremes(b)) for a, b in calls]
    else:
        found = [(*moments(a), *_NOTHING) for a, _ in calls]
    table = np.array(found).reshape(-1, x.shape[1], 6)
    total, square = np.add.reduce(table[:, :, :2], axis=0).T
    for few in _in_pieces(x)[1]:
        rest = few
        if widen is not None:
            widen(few, rest := np.empty(few.shape, np.float32))
        rest = rest.astype(np.float64)  # once, for they lie far apart
        total += rest.sum(axis=(0, *range(2, rest.ndim)))
        square += np.square(rest).sum(axis=(0, *range(2, rest.ndim)))
    return total, square, table[:, :, 2].min(axis=0), table[:, :, 4].max(axis=0)


def _calls(x: NDArray[Any], widen: Widen | None) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """What the kernels are called with, channel after channel: in pieces and whole.

    With `widen` it lives until the next call.
    """
    height = max(1, _CALL_VALUES // x.shape[2])
    channels, cut = x.swapaxes(0, 1), _in_pieces(x)[0]
    for top in range(0, len(x), height):
        stored = channels[:, top : top + height]
        if widen is None:
            yield from zip(cut[:, top : top + height], stored, strict=True)
            continue
        whole = np.empty((stored.shape[1], 1, stored.shape[2]), np.float32)
        # Runs that follow one another are joined, too, but not where the last comes first.
        pieces = _in_pieces(whole)[0][0, ::-1]
        for each in stored:
            widen(each, whole[:, 0])
            yield pieces, whole


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
    rest = [cut[..., -1], x[:, :, done:]] if done < s else [cut[..., -1]]
    return cut[..., :-1].swapaxes(0, 1), rest
