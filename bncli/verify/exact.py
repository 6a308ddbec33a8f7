"""BatchNorm of one channel in rational arithmetic: what is left of bncli's own roundings.

The values of a float32 tensor are exact in float64, and so are the products of two of them. Their
sums are taken exactly, as fractions; only the root is not rational, and is taken to `DIGITS`.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIGITS = 60
"""Decimal digits of the root."""


@dataclass(frozen=True, slots=True)
class ExactChannel:
    """The sums over one channel of `count` values, x the input and g the upstream gradient."""

    count: int
    x: Fraction
    x_squared: Fraction
    g: Fraction
    g_x: Fraction

    @property
    def mean(self) -> Fraction:
        """The batch mean."""
        return self.x / self.count

    @property
    def var(self) -> Fraction:
        """The biased batch variance."""
        return self.x_squared / self.count - self.mean**2


@dataclass(frozen=True, slots=True)
class ExactPass:
    """One channel of a pass: what is subtracted, what stands under the root, and the affine part.

    `with_batch` says that the batch normalised itself.
    """

    sums: ExactChannel
    center: Fraction
    var: Fraction
    eps: float
    weight: float
    bias: float
    with_batch: bool

    @property
    def invstd(self) -> Fraction:
        """1/sqrt(var + eps)."""
        return 1 / root(self.var + Fraction(self.eps))

    @property
    def grad_weight(self) -> Fraction:
        """sum(g * x_hat)."""
        return self.invstd * (self.sums.g_x - self.center * self.sums.g)

    def output(self, x: float) -> Fraction:
        """The output for one value of the input."""
        x_hat = (Fraction(x) - self.center) * self.invstd
        return x_hat * Fraction(self.weight) + Fraction(self.bias)

    def grad_input(self, x: float, g: float) -> Fraction:
        """The gradient for one value of the input and the upstream gradient there."""
        gradient = Fraction(g)
        if self.with_batch:
            x_hat = (Fraction(x) - self.center) * self.invstd
            gradient -= (self.sums.g + x_hat * self.grad_weight) / self.sums.count
        return Fraction(self.weight) * self.invstd * gradient


def exact_channel(x: NDArray[Any], g: NDArray[Any]) -> ExactChannel:
    """The sums of one channel's values, given as finite float32 (or narrower) arrays."""
    wide, upstream = (values.reshape(-1).astype(np.float64) for values in (x, g))
    return ExactChannel(
        count=wide.size,
        x=exact_sum(wide),
        x_squared=exact_sum(wide * wide),
        g=exact_sum(upstream),
        g_x=exact_sum(upstream * wide),
    )


def exact_sum(values: NDArray[Any]) -> Fraction:
    """The sum of finite float64 values, without any rounding.

    `math.fsum` rounds once; what it rounded off is the sum of the values and of minus its result.
    """
    terms = values.tolist()
    total = Fraction(0)
    while part := math.fsum(terms):
        total += Fraction(part)
        terms.append(-part)
    return total


def root(value: Fraction) -> Fraction:
    """The square root of a positive fraction, to `DIGITS` decimal digits."""
    with localcontext() as context:
        context.prec = DIGITS
        quotient = Decimal(value.numerator) / Decimal(value.denominator)
        return Fraction(quotient.sqrt())
