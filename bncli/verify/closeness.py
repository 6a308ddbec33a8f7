"""What counts as close: tolerances by dtype, ULPs, NaN and infinities.

`bncli.verify.meter` measures with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from bncli.dtypes import DTYPES
from bncli.light import dataclass, np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray


GivenTolerance: TypeAlias = "tuple[float, float] | float | None"
"""What a user allows: (rtol, atol) for all quantities, or a factor on what follows from the
arithmetic, or None for that alone.
"""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """|actual - expected| <= atol + rtol * |expected|, both of shape (num_features,), float64."""

    rtol: FloatArray
    atol: FloatArray

    def times(self, factor: float) -> Tolerance:
        """The same, `factor` times as wide."""
        return self if factor == 1 else Tolerance(factor * self.rtol, factor * self.atol)


ASSERT_CLOSE = {
    "float16": (1e-3, 1e-5),
    "bfloat16": (1.6e-2, 1e-5),
    "float32": (1.3e-6, 1e-5),
    "float64": (1e-7, 1e-7),
}
"""rtol and atol of `torch.testing.assert_close` by dtype; every other dtype has to be equal."""


def default_tolerance(*dtypes: str) -> tuple[float, float]:
    """rtol and atol of `torch.testing.assert_close` for the looser of these dtypes."""
    pairs = [ASSERT_CLOSE.get(dtype, (0.0, 0.0)) for dtype in dtypes]
    return max(rtol for rtol, _ in pairs), max(atol for _, atol in pairs)


def spacing(sizes: FloatArray, dtype: str) -> FloatArray:
    """The distance between neighbouring values of `dtype` at these sizes: one ULP.

    NaN where a size is not finite, and for dtypes that are not floating point.
    """
    kind = DTYPES[dtype]
    if not kind.digits:
        return np.full(np.shape(sizes), np.nan)
    exponents = np.frexp(sizes)[1]
    with np.errstate(under="ignore"):
        steps = np.maximum(np.ldexp(1.0, exponents - kind.digits), kind.tiniest)
    return np.where(np.isfinite(sizes), np.where(sizes == 0, kind.tiniest, steps), np.nan)


def overflowed(values: FloatArray, dtype: str) -> FloatArray:
    """`values`, with those beyond the largest of `dtype` replaced by the infinity of a cast."""
    u = DTYPES[dtype].unit_roundoff
    limit = DTYPES[dtype].largest / (1 - u) * (1 - u / 2)  # half a step beyond the largest
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(values) >= limit, np.copysign(np.inf, values), values)


def without_infinities(values: FloatArray) -> FloatArray:
    """`values`, with 0 for what is not finite, which allows no rounding error."""
    return np.where(np.isfinite(values), values, 0.0)


def alike(
    actual: FloatArray, expected: NDArray[Any], lost: NDArray[Any]
) -> tuple[FloatArray, NDArray[Any]]:
    """Both, with NaN for an infinity that stands beside a NaN where the channel is `lost`.

    Which of the two arithmetic leaves there depends only on the order of its steps.
    """
    if not lost.any():
        return actual, expected
    beside = lost & ~np.isfinite(actual) & ~np.isfinite(expected)
    beside &= np.isnan(actual) | np.isnan(expected)
    return np.where(beside, np.nan, actual), np.where(beside, np.nan, expected)
