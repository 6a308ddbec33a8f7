"""How far another implementation's LayerNorm, InstanceNorm, GroupNorm or RMSNorm may lie off.

Their kernels add in an order of their own (PyTorch's: vector lanes of 16 values a piece, the
pieces by twos), so that what a sum loses is bounded and not recomputed. Each rounding is at most
u, the unit roundoff of the accumulator; those of a chain of k additions go either way, and leave
about sqrt(k) of them. `DEVIATIONS` times that is allowed for, and to first order the roundings of
every step behind it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.dtypes import DTYPES
from bncli.light import np
from bncli.verify.closeness import Tolerance, without_infinities

if TYPE_CHECKING:
    from bncli.backends.arithmetic import Arithmetic
    from bncli.norms import NormStatistics

DEVIATIONS = 2.0
"""Of a chain's error, in u * sqrt(k): roundings spread evenly leave 0.58 of that at most."""


def norm_tolerances(arithmetic: Arithmetic, statistics: NormStatistics) -> dict[str, Tolerance]:
    """The tolerance of each of `NORM_QUANTITIES`, arrays in the shape `Norm.kept`."""
    norm = statistics.norm
    u = arithmetic.u
    tiniest = arithmetic.tiniest
    added = DTYPES[arithmetic.accumulate_dtype].unit_roundoff
    walk = DEVIATIONS * added * math.sqrt(arithmetic.additions)
    if arithmetic.order == "any":
        walk = arithmetic.walk
    with np.errstate(invalid="ignore", over="ignore"):
        mean, var = np.abs(statistics.mean), statistics.var
        if norm.subtracts_mean:
            std = np.sqrt(var)
            mean_error = walk * (mean + std) + u * mean + 3 * tiniest
            # Squares are taken around a mean that is off, and that moves on as values come.
            var_error = 2 * walk * (var + mean * std) + mean_error**2 + 3 * u * var + 3 * tiniest
        else:
            mean_error = np.zeros_like(var)
            var_error = (walk + 3 * u) * var + 3 * tiniest
        exact = var + norm.eps
        least = np.maximum(var - var_error, 0) + norm.eps
        grown = np.sqrt((exact + var_error) / exact) - 1
        shrunk = 1 - np.sqrt(least / exact)
        invstd_error = np.maximum(grown, shrunk) + 3 * u
        # x * scale - mean * scale, folded or not: the mean is rounded again.
        atol = statistics.invstd * (mean_error + 2 * u * mean) + 2 * arithmetic.output_tiniest
        size = np.maximum(np.abs(statistics.max), np.abs(statistics.min)) + mean
        lost = 4 * arithmetic.underflow * (1 + without_infinities(statistics.invstd))
        atol += lost * (1 + without_infinities(size))
        rtol = invstd_error + (3 + arithmetic.own_steps) * u + arithmetic.output_u
    # A bound that is not a number allows nothing; there the values are not numbers either.
    mean_error, invstd_error, rtol, atol = (
        np.nan_to_num(values, nan=0.0, posinf=np.inf)
        for values in (mean_error, invstd_error, rtol, atol)
    )
    bounds = {
        "mean": Tolerance(np.zeros_like(mean_error), mean_error),
        "invstd": Tolerance(invstd_error, np.full_like(invstd_error, tiniest)),
        "output": Tolerance(rtol, atol),
    }
    return {name: bound.times(arithmetic.factor) for name, bound in bounds.items()}
