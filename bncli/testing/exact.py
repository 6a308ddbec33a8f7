"""The statistics of a batch in rational arithmetic."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from bncli.light import np
from bncli.model import ChannelStats
from bncli.verify.exact import exact_sum

if TYPE_CHECKING:
    from numpy.typing import NDArray


def exact_stats(x: NDArray[Any]) -> ChannelStats:
    """Mean and biased variance of each channel of `x`, (N, C, ...), each rounded once.

    A channel with a NaN or Inf has what IEEE arithmetic gives. Raises ValueError without values.
    """
    wide = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1).astype(np.float64)
    channels, count = wide.shape
    if not count:
        raise ValueError("an empty batch has no statistics")
    shift, offset, var = np.zeros((3, channels))
    for channel, values in enumerate(wide):
        if not np.isfinite(values).all():
            with np.errstate(all="ignore"):
                shift[channel], var[channel] = values.mean(), np.nan
            continue
        mean = exact_sum(values) / count
        shift[channel] = float(mean)
        offset[channel] = float(mean - Fraction(float(shift[channel])))
        var[channel] = float(_squares(values, x.dtype.itemsize > 4) / count - mean**2)
    finite = np.where(np.isfinite(wide), wide, np.nan)
    with np.errstate(all="ignore"):
        least, most = np.fmin.reduce(finite, axis=1), np.fmax.reduce(finite, axis=1)
    first = [None if np.isfinite(values).all() else () for values in wide]
    return ChannelStats(
        count=count,
        shift=shift,
        offset=offset,
        var=var,
        min=least,
        max=most,
        nan=np.isnan(wide).sum(1),
        posinf=np.isposinf(wide).sum(1),
        neginf=np.isneginf(wide).sum(1),
        first_nonfinite=first,
    )


def _squares(values: NDArray[Any], is_wide: bool) -> Fraction:
    """The sum of squares; those of float32 values are exact in float64."""
    if is_wide:
        return sum((Fraction(value) ** 2 for value in values.tolist()), Fraction(0))
    return exact_sum(values * values)
