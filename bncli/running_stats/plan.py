"""What a momentum means in steps and in noise: closed forms of the update.

With a the weight of the new batch and q = 1 - a, after N steps
running_N = q**N * running_0 + sum over i of a * q**(N - i) * batch_i. Batches that are independent
leave running_N with a variance of sum of their squared weights times theirs, which is
a/(2 - a) * (1 - q**(2N)). The variance of a batch mean is var/m, and that of a batch's unbiased
variance var**2 * (2/(m - 1) + g/m), for m values with excess kurtosis g (Kenney and Keeping,
"Mathematics of Statistics", part 2, 1951).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.light import dataclass, np

if TYPE_CHECKING:
    from bncli.model import FloatArray, IntArray

FADED = 0.01
"""The weight of the initial value that counts as gone."""


@dataclass(frozen=True, slots=True)
class Memory:
    """How long the update remembers, at a weight `new` of the new batch; None for the cumulative
    average of all batches.
    """

    new: float | None

    @property
    def half_life(self) -> float | None:
        """Steps after which a batch has half of its weight; None where it never fades."""
        return self._steps_to(0.5)

    @property
    def steps_to_1_percent(self) -> int | None:
        """Whole steps until 1% of the initial value is left, or less."""
        if self.new is None or self.new == 1:
            return 1
        steps = self._steps_to(FADED)
        if steps is None:
            return None
        whole = math.ceil(steps - 1e-9)
        return max(whole, 1)

    @property
    def mean_age(self) -> float | None:
        """Steps since the average batch in the buffers: (1 - a)/a."""
        if self.new is None or not 0 < self.new <= 1:
            return None
        return (1 - self.new) / self.new

    @property
    def effective_batches(self) -> float | None:
        """Equally weighted batches that would be as noisy: (2 - a)/a."""
        if self.new is None or not 0 < self.new < 2:
            return None
        return (2 - self.new) / self.new

    def _steps_to(self, weight: float) -> float | None:
        """Steps until the initial value has this weight; None if it never has."""
        if self.new is None or not 0 < self.new < 2:
            return None
        if self.new == 1:
            return 0.0
        # log1p keeps the digits of a small momentum.
        rate = math.log1p(-self.new) if self.new < 1 else math.log(self.new - 1)
        steps = math.log(weight) / rate
        return steps if math.isfinite(steps) else None  # at a momentum below any normal number


def new_weight_for_steps(steps: int) -> float:
    """The weight of the new batch that leaves 1% of the initial value after `steps`."""
    return -math.expm1(math.log(FADED) / steps)


def new_weight_for_noise(noise: float, counts: IntArray, kurtosis: float) -> float:
    """The weight at which the settled buffers have this standard error; 1 if even that has less.

    It is that of running_mean in standard deviations, or that of running_var relative to itself,
    whichever is larger. noise**2 = a/(2 - a) * r, so a = 2 * noise**2/(r + noise**2), where r is
    the relative variance of a batch (see `relative_mean_variance` and `relative_variance`). 0 where
    that is infinite, in batches of one value.
    """
    worst = max(relative_mean_variance(counts), relative_variance(counts, kurtosis))
    return min(2 * noise**2 / (worst + noise**2), 1.0)


def relative_errors(
    counts: IntArray, kurtosis: float, squared_weights: float
) -> tuple[float, float]:
    """The standard errors of running_mean, in standard deviations, and of running_var, relative.

    Inf for running_var where no batch has a variance.
    """
    return (
        math.sqrt(squared_weights * relative_mean_variance(counts)),
        math.sqrt(squared_weights) * math.sqrt(relative_variance(counts, kurtosis)),
    )


def relative_mean_variance(counts: IntArray) -> float:
    """The variance of a batch's mean, relative to that of its values: 1/n on average.

    `counts` (batches,) are the values per channel in each batch.
    """
    return float((1 / np.asarray(counts)).mean())


def relative_variance(counts: IntArray, kurtosis: float) -> float:
    """The variance of a batch's unbiased variance, relative to its square, on average.

    `counts` (batches,) are the values per channel in each batch. Batches of one value do not
    count: Inf where there are no others.
    """
    normal, excess = _terms(counts)
    return math.inf if math.isnan(normal) else max(normal + excess * kurtosis, 0.0)


def _terms(counts: IntArray) -> tuple[float, float]:
    """2/(n - 1) and 1/n on average over the batches of several values, NaN if there are none."""
    several = np.asarray(counts, np.float64)
    several = several[several > 1]
    if not several.size:
        return math.nan, math.nan
    return float((2 / (several - 1)).mean()), float((1 / several).mean())


def standard_errors(
    var: FloatArray, kurtosis: FloatArray, counts: IntArray, squared_weights: float
) -> tuple[FloatArray, FloatArray]:
    """The standard errors of running_mean and running_var over independent batches.

    `var` is the unbiased variance of the values, `kurtosis` their excess kurtosis, and `counts`
    (batches,) the values per channel in each batch. NaN for running_var where no batch has a
    variance.
    """
    normal, excess = _terms(counts)
    with np.errstate(invalid="ignore"):
        mean = np.sqrt(squared_weights * relative_mean_variance(counts) * var)
        spread = np.maximum(normal + excess * kurtosis, 0.0)
        return mean, var * np.sqrt(squared_weights * spread)
