"""Partial results become one: task by task within a tensor, and part by part across tensors.

The formulas are those of Chan, Golub and LeVeque ("Updating Formulae and a Pairwise Algorithm for
Computing Sample Variances", Stanford STAN-CS-79-773, 1979) for the second moment, and of Pébay
("Formulas for Robust, One-Pass Parallel Computation of Covariances and Arbitrary-Order
Statistical Moments", Sandia SAND2008-6212, 2008) for the third and fourth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bncli.errors import TensorError
from bncli.light import dataclass
from bncli.model import ChannelStats
from bncli.model.samples import SampleSums, pooled
from bncli.moments.by_sample import SamplePool
from bncli.moments.worker import Nonfinite, Partial

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray, IntArray


class Sum:
    """A sum of many terms, with what each addition loses kept aside (Knuth's two-sum)."""

    def __init__(self, size: int) -> None:
        self.high = np.zeros(size)
        self.low = np.zeros(size)

    def add(self, channels: slice, term: FloatArray) -> None:
        """Add `term` to the entries `channels`."""
        high = self.high[channels]
        new = high + term
        back = new - high
        self.low[channels] += (high - (new - back)) + (term - back)
        self.high[channels] = new

    def value(self, channels: slice = slice(None)) -> FloatArray:
        """The sum so far."""
        low = self.low[channels]
        # After an overflow the part kept aside is NaN, the sum itself is right.
        return self.high[channels] + np.where(np.isfinite(low), low, 0.0)


@dataclass(frozen=True, slots=True)
class Moments:
    """Central moments divided by `count`; each array of shape (num_features,).

    The mean is `shift` + `offset`.
    """

    count: int
    shift: FloatArray
    offset: FloatArray
    var: FloatArray
    third: FloatArray | None
    fourth: FloatArray | None

    def times_two_to(self, exponent: NDArray[np.integer[Any]]) -> Moments:
        """The moments of the values times 2**exponent, an integer for each channel."""
        return Moments(
            self.count,
            np.ldexp(self.shift, exponent),
            np.ldexp(self.offset, exponent),
            np.ldexp(self.var, 2 * exponent),
            None if self.third is None else np.ldexp(self.third, 3 * exponent),
            None if self.fourth is None else np.ldexp(self.fourth, 4 * exponent),
        )


class Pool:
    """The tasks of one tensor, pooled in the order of their numbers.

    Every array has shape (num_features,). `sum` is that of value - `shift`, `shift` being that
    of the first task that has the channel.
    """

    def __init__(
        self, num_features: int, *, kurtosis: bool, samples: SamplePool | None = None
    ) -> None:
        self.count = np.zeros(num_features, np.int64)
        self.shift = np.zeros(num_features)
        self.min = np.full(num_features, np.nan)
        self.max = np.full(num_features, np.nan)
        self.nonfinite: Nonfinite | None = None
        self.samples = samples
        self.engines: tuple[str, ...] = ()
        self.m3 = np.zeros(num_features) if kurtosis else None
        self.m4 = np.zeros(num_features) if kurtosis else None
        self._sum = Sum(num_features)
        self._m2 = Sum(num_features)

    def add(self, part: Partial) -> None:
        """Take in a task."""
        channels = part.channels
        n_a = int(self.count[channels.start])
        n_b = part.count
        n = n_a + n_b
        if n_a == 0:
            self.shift[channels] = part.shift
        moved = part.sum + (part.shift - self.shift[channels]) * n_b
        m2 = part.m2
        if n_a:
            mean_a = self._sum.value(channels) / n_a
            delta = moved / n_b - mean_a
            if self.m3 is not None and self.m4 is not None:
                self._pool_higher(part, delta, n_a)
            m2 = m2 + np.square(delta * np.sqrt(n_a / n * n_b))
        elif self.m3 is not None and self.m4 is not None:
            assert part.m3 is not None
            assert part.m4 is not None
            self.m3[channels] = part.m3
            self.m4[channels] = part.m4
        self._sum.add(channels, moved)
        self._m2.add(channels, m2)
        self.count[channels] = n
        if part.min is not None and part.max is not None:
            self.min[channels] = np.fmin(self.min[channels], part.min)
            self.max[channels] = np.fmax(self.max[channels], part.max)
        if part.nonfinite is not None:
            self._add_nonfinite(channels, part.nonfinite)
        if self.samples is not None and part.samples is not None:
            self.samples.add(channels, part.samples, self.shift[channels])

    def _pool_higher(self, part: Partial, delta: FloatArray, n_a: int) -> None:
        """Pool the third and fourth moments, before the second is."""
        assert self.m3 is not None
        assert self.m4 is not None
        assert part.m3 is not None
        assert part.m4 is not None
        channels = part.channels
        n_b = part.count
        n = n_a + n_b
        a, b = n_a / n, n_b / n
        m2_a, m3_a = self._m2.value(channels), self.m3[channels]
        self.m4[channels] += (
            part.m4
            + delta**4 * (n_b * a * (a * a - a * b + b * b))
            + 6 * delta**2 * (a * a * part.m2 + b * b * m2_a)
            + 4 * delta * (a * part.m3 - b * m3_a)
        )
        self.m3[channels] += (
            part.m3 + delta**3 * (n_b * a * (a - b)) + 3 * delta * (a * part.m2 - b * m2_a)
        )

    def _add_nonfinite(self, channels: slice, part: Nonfinite) -> None:
        """Take in a task's counts of NaN and Inf."""
        found = self.nonfinite
        if found is None:
            found = self.nonfinite = Nonfinite.none(len(self.shift))
        found.nan[channels] += part.nan
        found.posinf[channels] += part.posinf
        found.neginf[channels] += part.neginf
        found.first[channels] = np.minimum(found.first[channels], part.first)

    def moments(self) -> Moments:
        """What the tasks so far come to."""
        n = int(self.count[0])
        return Moments(
            n,
            self.shift,
            self._sum.value() / n,
            self._m2.value() / n,
            None if self.m3 is None else self.m3 / n,
            None if self.m4 is None else self.m4 / n,
        )


def stats(
    moments: Moments,
    extremes: tuple[FloatArray, FloatArray],
    nonfinite: tuple[IntArray, IntArray, IntArray],
    first: Sequence[tuple[int, ...] | None],
    samples: SampleSums | None = None,
    engines: tuple[str, ...] = (),
) -> ChannelStats:
    """A `ChannelStats` in which channels with a NaN or Inf have what IEEE arithmetic gives."""
    shift, offset, var = moments.shift, moments.offset, moments.var
    third, fourth = moments.third, moments.fourth
    nan, posinf, neginf = nonfinite
    dirty = (nan + posinf + neginf) > 0
    if dirty.any():
        mean = np.where(
            (nan > 0) | ((posinf > 0) & (neginf > 0)),
            np.nan,
            np.where(posinf > 0, np.inf, -np.inf),
        )
        shift = np.where(dirty, mean, shift)
        offset = np.where(dirty, 0.0, offset)
        var = np.where(dirty, np.nan, var)
        third = None if third is None else np.where(dirty, np.nan, third)
        fourth = None if fourth is None else np.where(dirty, np.nan, fourth)
    return ChannelStats(
        count=moments.count,
        shift=shift,
        offset=offset,
        var=var,
        min=extremes[0],
        max=extremes[1],
        nan=nan,
        posinf=posinf,
        neginf=neginf,
        first_nonfinite=first,
        third=third,
        fourth=fourth,
        samples=samples,
        engines=engines,
    )


def merge(parts: Sequence[ChannelStats]) -> ChannelStats:
    """The statistics of several tensors' values taken together, channel by channel.

    Exact but for rounding: that of parts of one tensor is that of the whole, to about 1e-15.
    The third and fourth moments and the samples are there if every part has them; min and max are
    over the parts that have them. `first_nonfinite` is an index in the first part that has one.
    Raises TensorError for no parts, or parts that differ in their number of channels.
    """
    if not parts:
        raise TensorError("There are no statistics to merge.")
    channels = parts[0].num_features
    for part in parts:
        if part.num_features != channels:
            raise TensorError(
                f"Statistics of {channels} and of {part.num_features} channels cannot be merged."
            )
    with np.errstate(all="ignore"):
        moments, deltas = _pooled_moments(parts)
        return stats(
            moments,
            (
                np.fmin.reduce([part.min for part in parts]),
                np.fmax.reduce([part.max for part in parts]),
            ),
            (
                np.add.reduce([part.nan for part in parts]),
                np.add.reduce([part.posinf for part in parts]),
                np.add.reduce([part.neginf for part in parts]),
            ),
            tuple(
                next((index for index in indices if index is not None), None)
                for indices in zip(*(part.first_nonfinite for part in parts), strict=True)
            ),
            _pooled_samples(parts, deltas),
            tuple(sorted({engine for part in parts for engine in part.engines})),
        )


def _pooled_moments(parts: Sequence[ChannelStats]) -> tuple[Moments, list[FloatArray]]:
    """The moments of all parts, and each part's mean less that of all."""
    channels = parts[0].num_features
    count = sum(part.count for part in parts)
    weights = [part.count / count for part in parts]
    shift = np.where(np.isfinite(parts[0].shift), parts[0].shift, 0.0)
    offsets = [(part.shift - shift) + part.offset for part in parts]
    total = Sum(channels)
    for weight, offset in zip(weights, offsets, strict=True):
        total.add(slice(None), weight * offset)
    offset = total.value()
    deltas = [each - offset for each in offsets]
    m2, m3, m4 = Sum(channels), Sum(channels), Sum(channels)
    higher = all(part.third is not None and part.fourth is not None for part in parts)
    for part, weight, delta in zip(parts, weights, deltas, strict=True):
        # The root keeps the square of a small part's large delta from overflowing.
        m2.add(slice(None), weight * part.var)
        m2.add(slice(None), np.square(np.sqrt(weight) * delta))
        if higher:
            assert part.third is not None
            assert part.fourth is not None
            m3.add(slice(None), weight * (part.third + delta * (3 * part.var + delta**2)))
            m4.add(
                slice(None),
                weight
                * (part.fourth + delta * (4 * part.third + delta * (6 * part.var + delta**2))),
            )
    third, fourth = (m3.value(), m4.value()) if higher else (None, None)
    return Moments(count, shift, offset, m2.value(), third, fourth), deltas


def _pooled_samples(parts: Sequence[ChannelStats], deltas: list[FloatArray]) -> SampleSums | None:
    """The samples of all parts, `deltas` being the parts' means less that of all."""
    samples = [(part.count, part.samples) for part in parts if part.samples is not None]
    return pooled(samples, deltas) if len(samples) == len(parts) else None
