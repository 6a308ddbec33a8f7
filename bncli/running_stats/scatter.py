"""The population that batches are cut from: its variance within them and between them.

The law of total variance: var = sum(n_i * var_i)/N + sum(n_i * (mean_i - mean)**2)/N. A running
variance averages the batches' own, and so misses the second part, which shuffled batches have
next to nothing of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bncli.model import FloatArray
    from bncli.running_stats.batch_table import BatchTable


@dataclass(frozen=True, slots=True)
class Samples:
    """How much the means of samples differ within their batches.

    A sample is an index of the batch axis: values of one image go together, so that images and
    not pixels are what shuffling mixes. `squares` (num_features,) is the sum of squared deviations
    of the samples' means from their batch's, `number` (batches,) the samples of each batch.
    """

    squares: FloatArray
    number: FloatArray


@dataclass(frozen=True, slots=True)
class Population:
    """All values of all batches; each array has shape (num_features,).

    `var` is the biased variance of the population, the sum of `within` and `between`.
    `shuffled_between` is what `between` would be, on average, had the samples been shuffled; and
    `f_ratio` compares the two by their degrees of freedom, `freedom`: about 1 for shuffled
    batches. Both are NaN where there is one batch, or one sample a batch.
    `kurtosis` is the excess kurtosis within batches, NaN where it was not measured.
    `mean_std` and `var_std` are the standard deviations of the batches' means and of their
    unbiased variances, NaN for one batch.
    """

    batches: int
    count: int
    mean: FloatArray
    var: FloatArray
    within: FloatArray
    between: FloatArray
    shuffled_between: FloatArray
    f_ratio: FloatArray
    freedom: tuple[float, float]
    kurtosis: FloatArray
    mean_std: FloatArray
    var_std: FloatArray


def population(table: BatchTable, samples: Samples | None, kurtosis: FloatArray) -> Population:
    """The population of these batches. Without `samples`, each value is one."""
    import numpy as np

    n = table.count[:, np.newaxis].astype(np.float64)
    total = int(table.count.sum())
    share = n / total
    batches = len(n)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        origin = table.mean[
            0
        ]  # near all of them, so that nothing is lost where they are far from 0
        apart = table.mean - origin
        mean = (share * apart).sum(0)
        within = (share * table.var).sum(0)
        between = (share * (apart - mean) ** 2).sum(0)
        if samples is None:
            number, squares = n[:, 0], (n * table.var).sum(0)
        else:
            number, squares = samples.number, samples.squares
        inner = float(number.sum() - batches)
        spread = squares / inner if inner > 0 else np.full_like(mean, np.nan)
        between_samples = (number[:, np.newaxis] * (apart - _mean(apart, number)) ** 2).sum(0)
        freedom = (float(batches - 1), inner)
        f_ratio = between_samples / (batches - 1) / spread if batches > 1 else spread * np.nan
        shuffled = spread * (batches - 1) / number.sum() if batches > 1 else spread * np.nan
        ones = table.count > 1
        unbiased = table.var[ones] * (n[ones] / (n[ones] - 1))
        return Population(
            batches=batches,
            count=total,
            mean=origin + mean,
            var=within + between,
            within=within,
            between=between,
            shuffled_between=shuffled,
            f_ratio=f_ratio,
            freedom=freedom,
            kurtosis=kurtosis,
            mean_std=_std(table.mean),
            var_std=_std(unbiased),
        )


def _mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    """The weighted mean over the first axis."""
    result: FloatArray = weights @ values / weights.sum()
    return result


def _std(values: FloatArray) -> FloatArray:
    """The standard deviation over the first axis, of a sample."""
    import numpy as np

    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)
    return np.asarray(values.std(0, ddof=1))


def beyond_chance(f_ratio: FloatArray, freedom: tuple[float, float]) -> FloatArray:
    """How many standard deviations an F ratio lies above what shuffled batches show.

    An infinite ratio, of batches whose samples all have the same mean, has the score that ever
    larger ones come to. Paulson's normal approximation to the F distribution ("An approximate
    normalization of the analysis of variance distribution", Annals of Mathematical Statistics 13,
    1942).
    """
    import numpy as np

    first, second = freedom
    if first < 1 or second < 1:
        return np.full_like(f_ratio, -np.inf)
    a, b = 2 / (9 * first), 2 / (9 * second)
    with np.errstate(invalid="ignore"):
        root = np.cbrt(f_ratio)
        score = ((1 - b) * root - (1 - a)) / np.sqrt(b * root**2 + a)
        return np.where(np.isposinf(f_ratio), (1 - b) / np.sqrt(b), score)
