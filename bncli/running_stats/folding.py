"""How many inputs lie apart, in sums that do not grow with their number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.light import dataclass, np
from bncli.model.samples import SampleSums, moved, power_sums
from bncli.running_stats.scatter import FRatio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.model import ChannelStats, FloatArray

ONE_VALUE = 1e-12
"""A variance, over the square of the mean, of values that are all the same but for rounding."""


@dataclass(frozen=True, slots=True)
class Folded:
    """What inputs come to, one by one and not as one; the arrays have shape (num_features,).

    `within` is the variance within the inputs and `between` that of their means. `units` are the
    inputs, each as if it were one sample. `f_ratio` is that by samples, None where these are not
    known.
    """

    within: FloatArray
    between: FloatArray
    units: SampleSums
    f_ratio: FRatio | None


class Folding:
    """Takes in inputs, in groups, and keeps their sums.

    Of the means themselves it keeps those in channels in which every input so far has one value:
    only there may shuffling have left each input with its own, which no sum tells.
    """

    def __init__(self, first: ChannelStats) -> None:
        channels = first.num_features
        self._origin = np.where(np.isfinite(first.shift), first.shift, 0.0)
        self._count = self._count_squares = self._inputs = 0
        self._within = np.zeros(channels)
        self._powers = np.zeros((8, channels))
        self._by_count = _Scatter(channels)
        self._by_samples: _Scatter | None = _Scatter(channels)
        self._squares = np.zeros(channels)
        self._numbers: list[float] = []
        self._one_value = np.ones(channels, bool)
        self._means = np.zeros((0, channels))

    def add(self, parts: Sequence[ChannelStats]) -> None:
        """Take in the next inputs, which have as many channels as the first."""
        with np.errstate(all="ignore"):
            counts = np.array([part.count for part in parts])
            var = np.array([part.var for part in parts])
            means = np.array([(part.shift - self._origin) + part.offset for part in parts])
            before, number = self._by_count.mean, self._inputs
            self._by_count.add(means, counts.astype(np.float64))
            centre = self._by_count.mean
            self._powers = moved(self._powers, number, before - centre)
            self._powers += power_sums(means - centre, var)
            self._within += counts @ var
            whole = np.array([part.mean for part in parts])
            same = self._one_value & (var <= ONE_VALUE * np.square(whole)).all(0)
        self._inputs += len(parts)
        self._count += int(counts.sum())
        self._count_squares += sum(part.count**2 for part in parts)
        self._means = np.concatenate((self._means[:, same[self._one_value]], means[:, same]))
        self._one_value = same
        samples = [part.samples for part in parts if part.samples is not None]
        if len(samples) < len(parts) or self._by_samples is None:
            self._by_samples = None
            return
        numbers = [float(each.number) for each in samples]
        self._numbers += numbers
        with np.errstate(all="ignore"):
            self._squares += np.sum([each.mean_squares for each in samples], axis=0)
            self._by_samples.add(means, np.array(numbers))

    def result(self) -> Folded:
        """What the inputs so far come to."""
        with np.errstate(all="ignore"):
            within = self._within / self._count
            between = self._by_count.squares / self._count
            effective = self._count**2 / self._count_squares
            units = SampleSums(self._inputs, effective, self._powers)
            found = None
            if self._by_samples is not None:
                number = np.array(self._numbers)
                least = within * (number.sum() / self._count)
                channels = np.flatnonzero(self._one_value).tolist()
                means = dict(zip(channels, self._means.T, strict=True))
                found = FRatio.of_folded(
                    self._by_samples.squares, self._squares, least, number, means
                )
        return Folded(within, between, units, found)


class _Scatter:
    """The weighted mean of rows, and the weighted squares of what these lie apart from it."""

    def __init__(self, channels: int) -> None:
        self.weight = 0.0
        self.mean = np.zeros(channels)
        self.squares = np.zeros(channels)

    def add(self, rows: FloatArray, weights: FloatArray) -> None:
        """Take in rows of shape (rows, channels)."""
        weight = self.weight + float(weights.sum())
        mean = self.mean + weights @ (rows - self.mean) / weight
        self.squares = (
            self.squares
            + self.weight * np.square(self.mean - mean)
            + weights @ np.square(rows - mean)
        )
        self.mean, self.weight = mean, weight
