"""The population that batches are cut from: its variance within them and between them.

The law of total variance: var = sum(n_i * var_i)/N + sum(n_i * (mean_i - mean)**2)/N. A running
variance averages the batches' own variances, and so misses the second part, which is next to
nothing in shuffled batches.

What chance leaves between batches follows from the samples: an F ratio compares the scatter of the
batches' means with that of the samples' means within them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.running_stats.chance import f_quantile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from bncli.model import ChannelStats, FloatArray
    from bncli.model.capture import InputSums
    from bncli.running_stats.batch_table import BatchTable

CHANCE = 1e-6
"""The chance that shuffled batches reach an F ratio that is reported."""

MOST_APART = 3.0
"""The least F ratio that is reported, however sure it is."""

_ROUNDING = 1e-10
"""A share of the variance that may come from float32's rounding alone."""

_NOTHING = 1e-14
"""A variance within batches, over that between them, that may come from rounding alone."""


@dataclass(frozen=True, slots=True)
class FRatio:
    """The variance between batches over the one that their samples leave to chance.

    `ratio` is of shape (num_features,): about 1 for shuffled batches, NaN where there is one batch
    or one sample a batch, Inf where the samples of each batch have one mean. `sure` is the
    ratio that coincidence cannot explain: it takes samples to scatter at least as much as
    independent values, and is NaN where few samples of few different values may have fallen into
    batches of one value each. `freedom` are the degrees of freedom
    of the two variances.
    """

    ratio: FloatArray
    sure: FloatArray
    freedom: tuple[float, float]

    @property
    def border(self) -> float:
        """The ratio above which chance does not explain it, and a finding is made."""
        first, second = self.freedom
        if first < 1 or second < 1:
            return float("inf")
        return max(MOST_APART, f_quantile(CHANCE, first, second))

    @classmethod
    def of(
        cls, apart: FloatArray, number: FloatArray, squares: FloatArray, least: FloatArray
    ) -> FRatio:
        """From the batches' means less any one value, `apart` (batches, num_features).

        `number` (batches,) are the samples of each, and `squares` (num_features,) the sum of the
        squared deviations of the samples' means from their batch's. `least` (num_features,) is the
        variance that a sample's mean would have if its values were independent.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            between = (number[:, np.newaxis] * (apart - _mean(apart, number)) ** 2).sum(0)
        found = cls._of_squares(between, squares, least, (len(number), float(number.sum())))
        for channel in np.flatnonzero(np.isposinf(found.sure)):
            if _chance_of_one_value_each(apart[:, channel], number) > CHANCE:
                found.sure[channel] = np.nan
        return found

    @classmethod
    def of_sums(cls, sums: InputSums) -> FRatio:
        """From what all batches come to. Where each has one value, some are taken to be alike."""
        share = sums.samples / sums.values
        with np.errstate(invalid="ignore", over="ignore"):
            least = sums.within * (share / sums.values)
        number = sums.batches, float(sums.samples)
        found = cls._of_squares(sums.sample_between, sums.sample_squares, least, number)
        for channel in np.flatnonzero(np.isposinf(found.sure)):
            chances = [
                _chance_of_two_kinds(*number, float(count[channel]) * share)
                for count in (sums.at_min, sums.at_max)
            ]
            if min(chances) > CHANCE:
                found.sure[channel] = np.nan
        return found

    @classmethod
    def of_folded(
        cls,
        between: FloatArray,
        squares: FloatArray,
        least: FloatArray,
        number: FloatArray,
        means: Mapping[int, FloatArray],
    ) -> FRatio:
        """As `of`, from `between`, the squared deviations of the batches' means, added up.

        `means` has the means themselves for the channels in which each batch may have one value.
        """
        found = cls._of_squares(between, squares, least, (len(number), float(number.sum())))
        for channel in np.flatnonzero(np.isposinf(found.sure)).tolist():
            apart = means.get(channel)
            if apart is not None and _chance_of_one_value_each(apart, number) > CHANCE:
                found.sure[channel] = np.nan
        return found

    @classmethod
    def _of_squares(
        cls, between: FloatArray, squares: FloatArray, least: FloatArray, number: tuple[int, float]
    ) -> FRatio:
        """From squares between and within batches, added up, and how many these and samples are."""
        batches, samples = number
        inner = samples - batches
        if batches < 2 or inner < 1:
            unknown = np.full(len(squares), np.nan)
            return cls(unknown, unknown, (float(batches - 1), inner))
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            between = between / (batches - 1)
            within = squares / inner
            ratio = between / np.where(within > _NOTHING * between, within, 0.0)
            sure = between / np.where(
                np.maximum(within, least) > _NOTHING * between, np.maximum(within, least), 0.0
            )
        return cls(ratio, sure, (float(batches - 1), inner))

    def beyond_chance(self, between: FloatArray, var: FloatArray, mean: FloatArray) -> NDArray[Any]:
        """The channels whose batches are further apart than shuffled ones would be.

        `between` is the variance between the batches, `var` and `mean` those of all values: a
        difference that rounding may have made does not count.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            real = between > _ROUNDING * var + (2.0**-50 * mean) ** 2
            return np.asarray((self.sure > self.border) & real)


def _chance_of_one_value_each(values: FloatArray, number: FloatArray) -> float:
    """The chance that shuffling leaves each batch with one value, of the values they have now.

    `values` (batches,) are the batches' values and `number` (batches,) their samples. Of all ways
    to deal the samples, those count in which batches have changed places; for batches of different
    sizes these are more than there are.
    """
    apart = values - values.min()
    _, which = np.unique(np.round(apart / apart.max(), 9), return_inverse=True)
    batches, samples = np.bincount(which), np.bincount(which, number)
    favourable = math.lgamma(len(values) + 1) - sum(math.lgamma(n + 1) for n in batches)
    ways = math.lgamma(number.sum() + 1) - sum(math.lgamma(n + 1) for n in samples)
    return math.exp(favourable - ways)


def _chance_of_two_kinds(batches: int, samples: float, odd: float) -> float:
    """The chance that shuffling leaves each batch with samples of one kind, `odd` being of the one.

    The batches are taken to be of one size. Where there are more than two kinds, the chance that
    each stays by itself is less.
    """
    kind = min(max(round(batches * odd / samples), 1), batches - 1)
    favourable = math.lgamma(batches + 1) - math.lgamma(kind + 1) - math.lgamma(batches - kind + 1)
    odd = samples * (kind / batches)
    ways = math.lgamma(samples + 1) - math.lgamma(odd + 1) - math.lgamma(samples - odd + 1)
    return math.exp(favourable - ways)


def f_ratio_of_parts(parts: Sequence[ChannelStats], whole: ChannelStats) -> FRatio | None:
    """The F ratio of parts of a population by their samples; None where those are not known."""
    samples = [part.samples for part in parts if part.samples is not None]
    if len(samples) < len(parts):
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        apart = [(part.shift - whole.shift) + (part.offset - whole.offset) for part in parts]
        squares = np.sum([each.mean_squares for each in samples], axis=0)
        within = np.sum([part.var * (part.count / whole.count) for part in parts], axis=0)
    number = np.array([float(each.number) for each in samples])
    return FRatio.of(np.array(apart), number, squares, within * (number.sum() / whole.count))


@dataclass(frozen=True, slots=True)
class Samples:
    """How much the means of samples differ within their batches.

    A sample is an index of the batch axis: shuffling mixes images, not their pixels. `squares`
    (num_features,) is the sum of squared deviations of the samples' means from their batch's,
    `number` (batches,) the samples of each batch.
    """

    squares: FloatArray
    number: FloatArray


@dataclass(frozen=True, slots=True)
class Population:
    """All values of all batches; each array has shape (num_features,).

    `var` is the biased variance of the population, the sum of `within` and `between`.
    `shuffled_between` is what `between` would be, on average, had the samples been shuffled, NaN
    where there is one batch or one sample a batch; and `f_ratio` compares the two. `by_samples`
    says that the samples are known; each value counts as one otherwise.
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
    f_ratio: FRatio
    by_samples: bool
    kurtosis: FloatArray
    mean_std: FloatArray
    var_std: FloatArray


def population(table: BatchTable, samples: Samples | None, kurtosis: FloatArray) -> Population:
    """The population of these batches. Without `samples`, each value is one."""
    n = table.count[:, np.newaxis].astype(np.float64)
    total = int(table.count.sum())
    share = n / total
    batches = len(n)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        origin = table.mean[0]  # near all of them: nothing is lost where they are far from 0
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
            f_ratio=FRatio.of(
                apart, np.asarray(number, np.float64), squares, within * (number.sum() / total)
            ),
            by_samples=samples is not None,
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
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)
    return np.asarray(values.std(0, ddof=1))
