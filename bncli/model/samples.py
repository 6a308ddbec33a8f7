"""How the samples of a tensor scatter, channel by channel, in sums that pool.

Values of one sample go together, as the pixels of an image do, so that samples and not values are
what chance is reckoned from. Of each sample two numbers count: its mean and its variance. A table
of them would grow with the number of samples; the sums of their powers and products do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.light import dataclass, np

if TYPE_CHECKING:
    from bncli.model.arrays import FloatArray

D1, D2, D3, D4, V1, V2, DV, D2V = range(8)
"""The rows of the sums: of d, d**2, d**3, d**4, v, v**2, d * v and d**2 * v over the samples."""

_CHUNK = 1 << 16
"""Pairs of a sample and a channel whose powers are taken at a time."""


@dataclass(frozen=True, slots=True)
class SampleSums:
    """Sums over `number` samples; `sums` is float64 of shape (8, num_features).

    d is a sample's mean less that of the channel's values, and v its biased variance. `effective`
    is the number of samples that count as much: less than `number` where some have more values.
    """

    number: int
    effective: float
    sums: FloatArray

    @property
    def mean_squares(self) -> FloatArray:
        """The squared deviations of the samples' means from their own mean, added up."""
        return np.asarray(np.maximum(self.sums[D2] - self.sums[D1] ** 2 / self.number, 0.0))

    @property
    def mean_variance(self) -> FloatArray:
        """The unbiased variance of the samples' means, of shape (num_features,).

        NaN for one sample, as 0/0 is.
        """
        return self._unbiased(self.sums[D2], self.sums[D1])

    @property
    def inner_variance(self) -> FloatArray:
        """The unbiased variance of the samples' variances."""
        return self._unbiased(self.sums[V2], self.sums[V1])

    @property
    def square_variance(self) -> FloatArray:
        """The unbiased variance of v + d**2, each sample's part in the variance of the channel."""
        sums = self.sums
        return self._unbiased(sums[V2] + 2 * sums[D2V] + sums[D4], sums[V1] + sums[D2])

    def _unbiased(self, squares: FloatArray, total: FloatArray) -> FloatArray:
        """The variance from a sum of squares and a sum; rounding makes none of them negative."""
        if self.number < 2:
            return np.full(len(total), np.nan)
        with np.errstate(invalid="ignore", over="ignore"):
            left = squares - total * (total / self.number)
            return np.maximum(left, 0.0) / (self.number - 1)


def power_sums(mean: FloatArray, var: FloatArray | None) -> FloatArray:
    """The sums over samples of `mean` and `var`, both of shape (samples, channels).

    `var` None stands for zeros, of samples with one value per channel.
    """
    number, channels = mean.shape
    sums = np.zeros((8, channels))
    step = max(1, _CHUNK // max(1, channels))
    for begin in range(0, number, step):
        d = mean[begin : begin + step]
        square = np.square(d)
        sums[D1] += d.sum(0)
        sums[D2] += square.sum(0)
        sums[D3] += np.einsum("sc,sc->c", square, d)
        sums[D4] += np.einsum("sc,sc->c", square, square)
        if var is None:
            continue
        v = var[begin : begin + step]
        sums[V1] += v.sum(0)
        sums[V2] += np.einsum("sc,sc->c", v, v)
        sums[DV] += np.einsum("sc,sc->c", d, v)
        sums[D2V] += np.einsum("sc,sc->c", square, v)
    return sums


def moved(sums: FloatArray, number: int, by: FloatArray) -> FloatArray:
    """The sums of as many samples whose d are larger `by` so much, channel by channel."""
    d1, d2, d3, d4, v1, v2, dv, d2v = sums
    return np.stack(
        (
            d1 + number * by,
            d2 + by * (2 * d1 + number * by),
            d3 + by * (3 * d2 + by * (3 * d1 + number * by)),
            d4 + by * (4 * d3 + by * (6 * d2 + by * (4 * d1 + number * by))),
            v1,
            v2,
            dv + by * v1,
            d2v + by * (2 * dv + by * v1),
        )
    )


def pooled(parts: list[tuple[int, SampleSums]], deltas: list[FloatArray]) -> SampleSums:
    """The samples of several tensors; each part comes with its number of values per channel.

    `deltas` are the parts' means less that of all values.
    """
    sums = np.zeros_like(parts[0][1].sums)
    for (_, part), delta in zip(parts, deltas, strict=True):
        sums += moved(part.sums, part.number, delta)
    count = sum(values for values, _ in parts)
    # Every sample of a part has count/number values: the sum of their squares over all samples.
    squares = sum(values * (values / part.effective) for values, part in parts)
    return SampleSums(sum(part.number for _, part in parts), count * (count / squares), sums)
