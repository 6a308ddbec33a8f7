"""What chance alone shows: how large a ratio of two variances becomes once in a million.

The F distribution's tail is an incomplete beta function, taken from its continued fraction
(Didonato and Morris, "Algorithm 708", ACM Transactions on Mathematical Software 18, 1992, give it;
Lentz, "Generating Bessel functions in Mie scattering calculations using continued fractions",
Applied Optics 15, 1976, how to evaluate one).
"""

from __future__ import annotations

import math
from functools import lru_cache

MOST_FREEDOM = 1e6
"""Degrees of freedom that are told apart; with more, the quantile is only a little lower."""

_TINY = 1e-300
_CLOSE = 1e-15
_LOG_LARGEST = 700.0


def f_tail(ratio: float, first: float, second: float) -> float:
    """The chance that an F ratio with `first` and `second` degrees of freedom is above `ratio`.

    Relative accuracy about 1e-11; raises ValueError for degrees of freedom that are not positive.
    """
    if not (first > 0 and second > 0):
        raise ValueError(f"{first} and {second} degrees of freedom: they must be positive")
    if ratio <= 0:
        return 1.0
    a, b = second / 2, first / 2
    # x = second / (second + first * ratio) and 1 - x, neither by subtraction.
    odds = first * ratio / second
    x, rest = 1 / (1 + odds), 1 / (1 + 1 / odds)
    log_scale = (
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
        - a * math.log1p(odds) - b * math.log1p(1 / odds)
    )  # fmt: skip
    scale = math.exp(log_scale) if log_scale > -_LOG_LARGEST else 0.0
    if x < (a + 1) / (a + b + 2):
        return scale * _continued_fraction(x, a, b) / a
    return 1 - scale * _continued_fraction(rest, b, a) / b


def _continued_fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method."""
    c = 1.0
    d = 1 / _away(1 - (a + b) * x / (a + 1))
    result = d
    # It takes about the root of the larger parameter; the bound is only against a loop for ever.
    for m in range(1, 1000 + 10 * math.isqrt(int(max(a, b)))):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / _away(1 + even * d)
        c = _away(1 + even / c)
        result *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / _away(1 + odd * d)
        c = _away(1 + odd / c)
        result *= d * c
        if abs(d * c - 1) < _CLOSE:
            break
    return result


def _away(value: float) -> float:
    """The value, away from 0."""
    return value if abs(value) > _TINY else _TINY


@lru_cache(maxsize=256)
def f_quantile(tail: float, first: float, second: float) -> float:
    """The F ratio that is exceeded with chance `tail`; Inf if a double cannot hold it.

    More than `MOST_FREEDOM` degrees of freedom count as `MOST_FREEDOM`.
    """
    first, second = min(first, MOST_FREEDOM), min(second, MOST_FREEDOM)
    low, high = -_LOG_LARGEST, _LOG_LARGEST  # of the logarithm
    if f_tail(math.exp(high), first, second) > tail:
        return math.inf
    while high - low > 1e-13 * max(1.0, abs(high)):
        middle = (low + high) / 2
        if f_tail(math.exp(middle), first, second) > tail:
            low = middle
        else:
            high = middle
    return math.exp(high)


def t_quantile(tail: float, freedom: float) -> float:
    """The |t| that is exceeded with chance `tail`, both sides together."""
    return math.sqrt(f_quantile(tail, 1, freedom))
