"""Oracles for the statistics: exact rational arithmetic on float64 values, rounded once."""

import math
from fractions import Fraction

import numpy as np

TOLERANCE = 1e-12


def integers(values):
    """The values as exact integers, in units of 2**exponent."""
    mantissa, exponent = np.frexp(np.asarray(values, np.float64).ravel())
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    exponent = np.where(whole == 0, 0, exponent.astype(int) - 53)
    lowest = int(exponent.min())
    return [int(m) << int(e - lowest) for m, e in zip(whole, exponent, strict=True)], lowest


def rounded(fraction, exponent=0):
    """The float64 nearest to fraction * 2**exponent; an infinity where it is too large."""
    exact = fraction * Fraction(2) ** exponent
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


def moments(values, orders=(2,)):
    """The mean as a Fraction, and central moments divided by the count as float64."""
    whole, exponent = integers(values)
    n = len(whole)
    mean = Fraction(sum(whole), n)
    total = sum(whole)
    out = []
    for order in orders:
        if order == 2:
            central = Fraction(n * sum(w * w for w in whole) - total * total, n * n)
        else:
            central = Fraction(sum((n * w - total) ** order for w in whole), n ** (order + 1))
        out.append(rounded(central, order * exponent))
    return mean * Fraction(2) ** exponent, *out


def channels(x, axis=1):
    """The values of each channel as float64 rows."""
    x = np.asarray(x)
    return np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1).astype(np.float64)


def check(stats, x, axis=1, *, tolerance=TOLERANCE, kurtosis=False):
    """Assert that `stats` are those of the finite array `x`, channel by channel."""
    rows = channels(x, axis)
    assert stats.count == rows.shape[1]
    assert stats.num_features == len(rows)
    assert not stats.nan.any()
    assert not stats.inf.any()
    assert stats.first_nonfinite == (None,) * len(rows)
    for c, row in enumerate(rows):
        mean, var = moments(row)
        got = Fraction(float(stats.shift[c])) + Fraction(float(stats.offset[c]))
        # Tighter than promised: shift and offset together have the digits for it.
        room = tolerance * math.sqrt(var) + 2.0**-51 * abs(float(mean)) + 5e-324
        assert abs(got - mean) <= room, (c, float(got - mean))
        if var in {0.0, math.inf}:
            assert stats.var[c] == var, c
        else:
            room = max(tolerance * var, 1e-323)  # the last two places of a subnormal
            assert abs(stats.var[c] - var) <= room, (c, stats.var[c] / var - 1)
        assert stats.min[c] == row.min()
        assert stats.max[c] == row.max()
        if kurtosis:
            _, third, fourth = moments(row, (3, 4))
            spread = var**1.5
            assert abs(stats.third[c] - third) <= 1e-11 * max(abs(third), spread)
            assert abs(stats.fourth[c] - fourth) <= 1e-11 * fourth


def same_bits(one, other):
    """Whether two `ChannelStats` are the same to the last bit."""
    for name in ("shift", "offset", "var", "min", "max", "nan", "posinf", "neginf"):
        if getattr(one, name).tobytes() != getattr(other, name).tobytes():
            return False
    return one.count == other.count and one.first_nonfinite == other.first_nonfinite
