"""Statistics that lose digits, and NaN that spreads from one channel to others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.light import np
from bncli.verify.departures.cause import Cause
from bncli.verify.departures.output import known_of
from bncli.verify.identify.implied import Implied
from bncli.verify.identify.pair import ArraySource, View
from bncli.verify.identify.search import Seen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.backends.interface import BackendRun
    from bncli.model import ChannelCloseness, FloatArray
    from bncli.verify.batch_norm_pass import BatchNormPass

HARD = 8.0
"""|mean| / std from which the square of the mean hides the variance enough to be told."""

BY_DEVIATIONS = "Sum the squares of x - mean, or merge means and variances by Welford's algorithm."


def precision_cause(
    done: BatchNormPass, x: NDArray[Any], run: BackendRun, output: ChannelCloseness
) -> Cause | None:
    """What the batch's statistics lost, where that explains every channel that failed."""
    stats = done.stats
    failed = np.array([not channel.passed for channel in output.channels])
    if not len(failed) or not failed.any() or not done.settings.normalizes_with_batch:
        return None
    finite = (stats.nan + stats.inf) == 0
    theirs = np.moveaxis(run.quantities["output"], done.channel_axis, 0)
    broken = ~np.isfinite(theirs.reshape(len(failed), -1)).all(1)
    if (failed <= (broken & finite)).all() and not finite.all():
        return Cause(
            "NaN or Inf of one channel spreads to others",
            "Keep the channels apart: each has statistics of its own.",
        )
    with np.errstate(all="ignore"):
        ratio = np.abs(stats.mean) / np.sqrt(stats.var)
        mean_off, off = _off(done, x, run)
        wide = "float64" if done.dtype == "float64" else "float32"
        u, walk = DTYPES[wide].unit_roundoff, 4 * np.sqrt(stats.count)
        # A sum of squares loses about a rounding of itself, and seldom more than a walk of them;
        # the mean is as good as any.
        lost = np.isnan(off) | (off <= walk * u * (stats.mean**2 + stats.var))
        lost &= np.isnan(mean_off) | (mean_off <= walk * u * np.abs(stats.mean) + np.sqrt(off))
        hard = finite & (ratio >= HARD) & (broken | lost)
        if (failed <= hard).all():
            worst = float(np.where(failed, ratio, 0).max())
            relative = np.where(failed, np.nan_to_num(off / stats.var, nan=1.0), 0).max()
            digits = "all" if relative >= 0.5 else "most" if relative >= 1e-3 else "some"
            return Cause(
                f"one-pass variance, mean(x^2) - mean^2: it loses {digits} digits where |mean| is "
                f"{worst:.2g} std",
                BY_DEVIATIONS,
            )
        half = DTYPES[done.dtype].unit_roundoff
        if done.dtype in ("float16", "bfloat16"):
            summed = half * stats.count * (stats.mean**2 + stats.var)
            if (failed <= (finite & (broken | (off <= summed) | np.isnan(off)))).all():
                return Cause(
                    f"the statistics lose digits, as sums in {done.dtype} do",
                    "Sum in float32, whatever the input's dtype.",
                )
    return None


def _off(done: BatchNormPass, x: NDArray[Any], run: BackendRun) -> tuple[FloatArray, FloatArray]:
    """How far mean and variance that the output shows lie from the batch's; NaN for none shown."""
    source, output = ArraySource(x, done.dtype), ArraySource(run.quantities["output"], done.dtype)
    view = View(source, output, done.channel_axis)
    implied = Implied.of(Seen.of(view, known_of(done)))
    stats = done.stats
    return np.abs(implied.mean - stats.mean), np.abs(implied.var - stats.var)
