"""Batches, one after the other, become the table that simulations start from."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.moments import channel_moments, merge
from bncli.pytorch_cpu import float32, half
from bncli.running_stats.batch_table import BatchTable
from bncli.running_stats.scatter import Samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bncli.model import ChannelStats, FloatArray

KURTOSIS_BATCHES = 16
"""Batches whose kurtosis is measured; it costs more than the rest, and a few are enough."""
KURTOSIS_VALUES = 1 << 14
"""Values of each channel whose kurtosis is measured, in as many more batches as that takes."""
KURTOSIS_COUNT = 4
"""Values of a channel that a batch needs for an unbiased fourth cumulant."""
SAMPLES_VALUES = 1 << 22
"""Values whose samples' means are taken at a time, to avoid copying a large batch."""


@dataclass(slots=True)
class Kurtosis:
    """Estimates the excess kurtosis of the values from batches, however small.

    Fisher's k-statistics k2 and k4 of a batch are unbiased estimates of the second and the fourth
    cumulant (Fisher, "Moments and Product Moments of Sampling Distributions", Proceedings of the
    London Mathematical Society 30, 1930). Their means over the batches give k4/k2**2, which for one
    batch is G2 (Joanes and Gill, "Comparing measures of sample skewness and kurtosis", The
    Statistician 47, 1998), and approaches the true kurtosis with the number of batches. The ratio
    m4/m2**2 - 3 of central moments does not: for n normal values it is -6/(n + 1) on average.
    """

    num_features: int
    values: int = 0
    _weight: int = 0
    _k2: FloatArray = field(init=False)
    _k4: FloatArray = field(init=False)
    _small: list[ChannelStats] = field(init=False)

    def __post_init__(self) -> None:
        """Begin without batches."""
        self._k2, self._k4 = np.zeros(self.num_features), np.zeros(self.num_features)
        self._small = []

    def wants(self, number: int) -> bool:
        """Whether to take in batch `number`, from 0; those before it have been asked for."""
        return number < KURTOSIS_BATCHES or self.values < KURTOSIS_VALUES

    def add(self, count: int, fourth: FloatArray | ChannelStats | None) -> None:
        """Take in a batch of `count` values a channel.

        `fourth` is what `fourth_of` has of it.
        """
        self.values += count
        if isinstance(fourth, np.ndarray):
            k2, k4 = fourth
            self._weight += count
            self._k2 += count * k2
            self._k4 += count * k4
        elif fourth is not None:
            self._small.append(fourth)

    def estimate(self) -> FloatArray:
        """The excess kurtosis within batches, (num_features,), NaN for a constant channel.

        Where every batch has fewer than four values, none has a fourth cumulant: then it is that
        of all values taken together, about their common mean. NaN where those are too few as well,
        or where every batch has one value. It is at least -2, as that of any distribution.
        """
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            if self._weight:
                k2, k4 = self._k2 / self._weight, self._k4 / self._weight
            elif sum(stats.count for stats in self._small) >= KURTOSIS_COUNT:
                k2, k4 = _cumulants(merge(self._small))
            else:
                return np.full(self.num_features, np.nan)
            return np.maximum(k4 / k2**2, -2.0)


def fourth_of(stats: ChannelStats) -> FloatArray | ChannelStats | None:
    """What a batch says of the kurtosis, where its fourth moments are known.

    Fisher's k2 and k4, (2, num_features), or the statistics themselves where it has too few values
    for those, and None where it has one value a channel.
    """
    if stats.count >= KURTOSIS_COUNT:
        return np.stack(_cumulants(stats))
    return stats if stats.count > 1 else None


def _cumulants(stats: ChannelStats) -> tuple[FloatArray, FloatArray]:
    """Fisher's k2 and k4, the unbiased estimates of the cumulants, from four values or more."""
    assert stats.fourth is not None
    n, m2, m4 = stats.count, stats.var, stats.fourth
    with np.errstate(invalid="ignore", over="ignore"):
        k4 = n / (n - 1) * n * ((n + 1) * m4 - 3 * (n - 1) * m2**2) / ((n - 2) * (n - 3))
        return m2 * (n / (n - 1)), k4


@dataclass(frozen=True, slots=True)
class BatchNumbers:
    """What a `Collector` keeps of one batch, which follows from this batch alone.

    `count` is the number of values of a channel and `samples` that of the batch axis. `mean`, the
    biased `var` and `squares`, the sum of the squared distances of the samples' means from the
    batch's, are float64 (num_features,). `held`, float32 (2, num_features), has the mean and the
    sum of squared deviations in the buffers' dtype, None where that is float64. `fourth` is as
    `fourth_of` has it, None where it is not wanted.
    """

    count: int
    samples: int
    mean: FloatArray
    var: FloatArray
    squares: FloatArray
    held: NDArray[Any] | None
    fourth: FloatArray | ChannelStats | None
    engines: tuple[str, ...] = ()


@dataclass(slots=True)
class Collector:
    """Takes in batches and keeps their statistics; each is computed once.

    `number` is how many there will be, `dtype` that of the buffers. PyTorch's sums are repeated as
    `torch_threads` threads would add them. `engines` has what summed the batches so far.
    """

    number: int
    num_features: int
    dtype: str
    threads: int | None = None
    torch_threads: int = 1
    _count: NDArray[Any] = field(init=False)
    _mean: FloatArray = field(init=False)
    _var: FloatArray = field(init=False)
    _held: NDArray[Any] | None = field(init=False, default=None)
    _samples: FloatArray = field(init=False)
    _squares: FloatArray = field(init=False)
    _kurtosis: Kurtosis = field(init=False)
    _done: int = 0
    engines: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        """Make room for all batches."""
        shape = (self.number, self.num_features)
        self._count = np.zeros(self.number, np.int64)
        self._mean, self._var = np.empty(shape), np.empty(shape)
        if self.dtype != "float64":
            self._held = np.empty((2, *shape), np.float32)
        self._samples = np.zeros(self.number)
        self._squares = np.zeros(self.num_features)
        self._kurtosis = Kurtosis(self.num_features)

    def add(self, x: NDArray[Any]) -> None:
        """Take in the next batch; `x` is as for `measure`."""
        self.take(self.measure(x, wanted=self._kurtosis.wants(self._done)))

    def wanted(self, counts: Sequence[int]) -> list[bool]:
        """Of which batches `add` would measure the kurtosis, by their numbers of values a channel.

        For a collector that has taken in none.
        """
        kurtosis, wanted = Kurtosis(self.num_features), []
        for number, count in enumerate(counts):
            wanted.append(kurtosis.wants(number))
            if wanted[-1]:
                kurtosis.add(count, None)
        return wanted

    def measure(self, x: NDArray[Any], *, wanted: bool) -> BatchNumbers:
        """The statistics of a batch, of shape (N, C, ...) and with values that `dtype` represents.

        For float64 any dtype will do. For the others the strides say how PyTorch sums. `wanted`
        says that the kurtosis is.
        """
        stats = channel_moments(x, kurtosis=wanted, threads=self.threads)
        held = None
        if self._held is not None:
            rows = float32.sums_by_rows(x)
            sums = (
                float32.batch_statistics(x, rows=rows, threads=self.torch_threads)
                if self.dtype == "float32"
                else half.batch_statistics(
                    x, dtype=self.dtype, rows=rows, threads=self.torch_threads
                )
            )
            held = np.stack((sums.mean, sums.var_sum))
        return BatchNumbers(
            count=stats.count,
            samples=len(x),
            mean=stats.mean,
            var=stats.var,
            squares=_squares_of_samples(x, stats),
            held=held,
            fourth=fourth_of(stats) if wanted else None,
            engines=stats.engines,
        )

    def take(self, batch: BatchNumbers) -> None:
        """Keep the statistics of the next batch."""
        i = self._done
        self._count[i], self._mean[i], self._var[i] = batch.count, batch.mean, batch.var
        self.engines.update(batch.engines)
        if self._kurtosis.wants(i):
            self._kurtosis.add(batch.count, batch.fourth)
        if self._held is not None:
            self._held[:, i] = batch.held
        self._samples[i] = batch.samples
        with np.errstate(invalid="ignore", over="ignore"):
            self._squares += batch.squares
        self._done += 1

    def table(self) -> BatchTable:
        """The statistics of all batches."""
        held = (None, None) if self._held is None else (self._held[0], self._held[1])
        return BatchTable(self._count, self._mean, self._var, self.dtype, *held)

    def samples(self) -> Samples:
        """How the means of samples scatter within their batches."""
        return Samples(self._squares, self._samples)

    def kurtosis(self) -> FloatArray:
        """The excess kurtosis of the first batches; see `Kurtosis.estimate`."""
        return self._kurtosis.estimate()


def _squares_of_samples(x: NDArray[Any], stats: ChannelStats) -> FloatArray:
    """The sum of the squared distances of the samples' means from the batch's, (num_features,)."""
    squares = np.zeros(stats.num_features)
    step = max(1, SAMPLES_VALUES // max(1, x[0].size))
    with np.errstate(invalid="ignore", over="ignore"):
        for begin in range(0, len(x), step):
            part = x[begin : begin + step]
            means = part.mean(tuple(range(2, x.ndim)), dtype=np.float64)
            squares += ((means - stats.mean) ** 2).sum(0)
    return squares
