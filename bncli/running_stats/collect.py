"""Batches, one after the other, become the table that simulations start from."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.moments import channel_moments
from bncli.pytorch_cpu import float32, half
from bncli.running_stats.batch_table import BatchTable
from bncli.running_stats.scatter import Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import ChannelStats, FloatArray

KURTOSIS_BATCHES = 16
"""Batches whose kurtosis is measured; it costs more than the rest, and a few are enough."""
SAMPLES_VALUES = 1 << 22
"""Values whose samples' means are taken at a time, to avoid copying a large batch."""


@dataclass(slots=True)
class Collector:
    """Takes in batches and keeps their statistics; each is computed once.

    `number` is how many there will be, `dtype` that of the buffers. PyTorch's sums are repeated as
    `torch_threads` threads would add them.
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
    _fourth: FloatArray = field(init=False)
    _second: FloatArray = field(init=False)
    _done: int = 0

    def __post_init__(self) -> None:
        """Make room for all batches."""
        shape = (self.number, self.num_features)
        self._count = np.zeros(self.number, np.int64)
        self._mean, self._var = np.empty(shape), np.empty(shape)
        if self.dtype != "float64":
            self._held = np.empty((2, *shape), np.float32)
        self._samples = np.zeros(self.number)
        self._squares = np.zeros(self.num_features)
        self._fourth = np.zeros(self.num_features)
        self._second = np.zeros(self.num_features)

    def add(self, x: NDArray[Any]) -> None:
        """Take in a batch, of shape (N, C, ...) and with values that `dtype` represents.

        For float64 any dtype will do. For the others the strides say how PyTorch sums.
        """
        i = self._done
        stats = channel_moments(x, kurtosis=i < KURTOSIS_BATCHES, threads=self.threads)
        self._count[i], self._mean[i], self._var[i] = stats.count, stats.mean, stats.var
        if stats.fourth is not None:
            with np.errstate(invalid="ignore", over="ignore"):
                self._fourth += stats.count * stats.fourth
                self._second += stats.count * stats.var**2
        if self._held is not None:
            rows = float32.sums_by_rows(x)
            held = (
                float32.batch_statistics(x, rows=rows, threads=self.torch_threads)
                if self.dtype == "float32"
                else half.batch_statistics(
                    x, dtype=self.dtype, rows=rows, threads=self.torch_threads
                )
            )
            self._held[0, i], self._held[1, i] = held.mean, held.var_sum
        self._add_samples(x, stats)
        self._done += 1

    def _add_samples(self, x: NDArray[Any], stats: ChannelStats) -> None:
        """Add the squared distances of the samples' means from the batch's."""
        number = len(x)
        self._samples[self._done] = number
        step = max(1, SAMPLES_VALUES // max(1, x[0].size))
        with np.errstate(invalid="ignore", over="ignore"):
            for begin in range(0, number, step):
                part = x[begin : begin + step]
                means = part.mean(tuple(range(2, x.ndim)), dtype=np.float64)
                self._squares += ((means - stats.mean) ** 2).sum(0)

    def table(self) -> BatchTable:
        """The statistics of all batches."""
        held = (None, None) if self._held is None else (self._held[0], self._held[1])
        return BatchTable(self._count, self._mean, self._var, self.dtype, *held)

    def samples(self) -> Samples:
        """How the means of samples scatter within their batches."""
        return Samples(self._squares, self._samples)

    def kurtosis(self) -> FloatArray:
        """The excess kurtosis within the first batches, NaN for a constant channel."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._fourth / self._second - 3.0
