"""Statistics of the channels of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bncli.light import dataclass, np

if TYPE_CHECKING:
    from bncli.model.arrays import FloatArray, IntArray
    from bncli.model.samples import SampleSums


@dataclass(frozen=True, slots=True)
class ChannelStats:
    """Statistics of each channel of a tensor; every array has shape (num_features,).

    `count` is the number of values per channel. The mean is `shift + offset`, two float64 numbers
    because one has too few digits where the mean is far from 0. `var` is the biased variance
    (divided by count). A channel with a NaN or Inf has the mean and var that IEEE arithmetic
    gives. `min` and `max` are over the finite values, NaN where there are none.
    `first_nonfinite` is the index of the channel's first NaN or Inf in the tensor (C order).
    `third` and `fourth` are central moments (divided by count), and `samples` says how the samples
    scatter, where they were asked for. `engines` names the libraries that summed the values, each
    with its version, in alphabetical order; it is empty for those from a statistics file.
    """

    count: int
    shift: FloatArray
    offset: FloatArray
    var: FloatArray
    min: FloatArray
    max: FloatArray
    nan: IntArray
    posinf: IntArray
    neginf: IntArray
    first_nonfinite: Sequence[tuple[int, ...] | None]
    third: FloatArray | None = None
    fourth: FloatArray | None = None
    samples: SampleSums | None = None
    engines: tuple[str, ...] = ()

    @property
    def num_features(self) -> int:
        """The number of channels."""
        return len(self.shift)

    @property
    def mean(self) -> FloatArray:
        """The mean, rounded to one float64."""
        return self.shift + self.offset

    @property
    def inf(self) -> IntArray:
        """The number of infinities of either sign."""
        return self.posinf + self.neginf

    @property
    def unbiased_var(self) -> FloatArray:
        """The variance divided by count - 1; NaN for one value, as 0/0 is."""
        if self.count == 1:
            return np.full(self.num_features, np.nan)
        with np.errstate(over="ignore"):
            squares = self.var * self.count
        divided = squares / (self.count - 1)
        # The sum of squares may overflow where the variance does not.
        return np.where(np.isinf(squares), self.var * (self.count / (self.count - 1)), divided)
