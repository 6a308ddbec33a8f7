"""Two arrays, block by block, under a tolerance of each channel's own -> `Closeness`.

`ClosenessMeter` measures a quantity as a whole; `bncli.verify.meter` does each of its channels.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.errors import UsageError
from bncli.model import Closeness
from bncli.values import dataclass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray


@dataclass(frozen=True, slots=True)
class Tolerance:
    """|actual - expected| <= atol + rtol * |expected|, both of shape (num_features,), float64."""

    rtol: FloatArray
    atol: FloatArray


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

    NaN where a size is not finite, and for dtypes that are no floats.
    """
    import numpy as np

    kind = DTYPES[dtype]
    if not kind.digits:
        return np.full(np.shape(sizes), np.nan)
    exponents = np.frexp(sizes)[1]
    with np.errstate(under="ignore"):
        steps = np.maximum(np.ldexp(1.0, exponents - kind.digits), kind.tiniest)
    return np.where(np.isfinite(sizes), np.where(sizes == 0, kind.tiniest, steps), np.nan)


@dataclass(frozen=True, slots=True)
class Measured:
    """Each element of a block: its difference, its share of the tolerance, and what was missing."""

    actual: FloatArray
    expected: FloatArray
    diff: FloatArray
    rel: FloatArray
    used: FloatArray
    missing: FloatArray
    rtol: FloatArray
    atol: FloatArray

    @classmethod
    def of(
        cls,
        actual: NDArray[Any],
        expected: NDArray[Any],
        rtol: NDArray[Any],
        atol: NDArray[Any],
        *,
        equal_nan: bool,
    ) -> Measured:
        """Measure arrays of one shape, against which rtol and atol broadcast."""
        import numpy as np

        integers = actual.dtype.kind in "iub" and expected.dtype.kind in "iub"
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            same = actual == expected
            actual = actual.astype(np.float64)
            expected = expected.astype(np.float64)
            if equal_nan:
                same |= np.isnan(actual) & np.isnan(expected)
            diff = np.where(same, 0.0, np.abs(actual - expected))
            diff = np.where(np.isnan(diff), np.inf, diff)
            if integers:  # beyond 2**53 different ones may meet in float64
                diff = np.where(~same & (diff == 0), 1.0, diff)
            magnitude = np.abs(expected)
            rtol = np.broadcast_to(rtol, diff.shape)
            atol = np.broadcast_to(atol, diff.shape)
            relative_part = np.where(rtol == 0, 0.0, rtol * magnitude)
            allowed = atol + relative_part
            # An infinite or missing expected value has no neighbourhood.
            used = np.where(diff == 0, 0.0, np.where(np.isinf(diff), np.inf, diff / allowed))
            used = np.where(np.isnan(used), np.inf, used)
            rel = np.where((diff == 0) | (magnitude == 0), 0.0, diff / magnitude)
            rel = np.where(np.isnan(rel), np.inf, rel)
            missing = np.where(np.isfinite(diff), diff - relative_part, np.inf)
            missing = np.where(diff == 0, 0.0, missing)  # rtol * NaN, and NaN close to NaN
        return cls(actual, expected, diff, rel, used, missing, rtol, atol)


@dataclass(slots=True)
class ClosenessMeter:
    """Compares one quantity piece by piece and keeps what `Closeness` reports.

    NaN is close to NaN, an infinity to the same infinity: both sides computed the same thing,
    and a finding of its own speaks of the NaN. Everything else that is not finite mismatches.
    """

    quantity: str
    mismatched: int = 0
    total: int = 0
    _max_abs: float = 0.0
    _max_rel: float = 0.0
    _used: float = -1.0
    _passing_atol: float = 0.0
    _index: tuple[int, ...] = field(default=())
    _rtol: float = 0.0
    _atol: float = 0.0
    _actual: float = 0.0
    _expected: float = 0.0

    def add(
        self,
        actual: NDArray[Any],
        expected: NDArray[Any],
        rtol: NDArray[Any],
        atol: NDArray[Any],
        start: tuple[int, ...],
    ) -> None:
        """Compare a block that begins at index `start`; rtol and atol broadcast against it."""
        import numpy as np

        if actual.shape != expected.shape:
            raise ValueError(f"{self.quantity}: {actual.shape} against {expected.shape}")
        if not actual.size:
            return
        found = Measured.of(actual, expected, rtol, atol, equal_nan=True)
        self.total += found.diff.size
        self.mismatched += int((found.used > 1).sum())
        self._max_abs = max(self._max_abs, float(found.diff.max()))
        self._max_rel = max(self._max_rel, float(found.rel.max()))
        self._passing_atol = max(self._passing_atol, float(found.missing.max()))
        worst = int(found.used.argmax())
        if float(found.used.flat[worst]) > self._used:
            self._used = float(found.used.flat[worst])
            where = np.unravel_index(worst, found.diff.shape)
            self._index = tuple(int(i) + s for i, s in zip(where, start, strict=True))
            self._rtol, self._atol = float(found.rtol.flat[worst]), float(found.atol.flat[worst])
            self._actual = float(found.actual.flat[worst])
            self._expected = float(found.expected.flat[worst])

    def closeness(self) -> Closeness:
        """What was measured so far."""
        return Closeness(
            quantity=self.quantity,
            max_abs_diff=self._max_abs,
            max_rel_diff=self._max_rel,
            index=self._index,
            actual=self._actual,
            expected=self._expected,
            mismatched=self.mismatched,
            total=self.total,
            rtol=self._rtol,
            atol=self._atol,
            used=max(self._used, 0.0),
            passing_atol=self._passing_atol,
        )


def closeness(
    quantity: str, actual: FloatArray, expected: NDArray[Any], tolerance: Tolerance
) -> Closeness:
    """Compare two per-channel arrays of shape (num_features,)."""
    meter = ClosenessMeter(quantity)
    meter.add(actual, expected, tolerance.rtol, tolerance.atol, (0,))
    return meter.closeness()


def overflowed(values: FloatArray, dtype: str) -> FloatArray:
    """`values`, but those beyond the largest of `dtype` as the infinities that a cast makes."""
    import numpy as np

    u = DTYPES[dtype].unit_roundoff
    limit = DTYPES[dtype].largest / (1 - u) * (1 - u / 2)  # half a step beyond the largest
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(values) >= limit, np.copysign(np.inf, values), values)


def without_infinities(values: FloatArray) -> FloatArray:
    """`values`, but 0 for what is not finite: it has no rounding that others would be allowed."""
    import numpy as np

    return np.where(np.isfinite(values), values, 0.0)


def alike(
    actual: FloatArray, expected: NDArray[Any], lost: NDArray[Any]
) -> tuple[FloatArray, NDArray[Any]]:
    """Both, but NaN for an infinity beside a NaN where the channel is `lost`.

    Which of the two arithmetic makes there hangs on the order of its steps alone.
    """
    import numpy as np

    if not lost.any():
        return actual, expected
    beside = lost & ~np.isfinite(actual) & ~np.isfinite(expected)
    beside &= np.isnan(actual) | np.isnan(expected)
    return np.where(beside, np.nan, actual), np.where(beside, np.nan, expected)


def tolerance_pair(
    rtol: float | None, atol: float | None, *, compared: bool = True
) -> tuple[float, float] | None:
    """The tolerance that a user chose, or None for the one that follows from the arithmetic.

    Raises UsageError where only one is given, or one is negative or not a number, or where nothing
    is to be `compared`.
    """
    if rtol is None and atol is None:
        return None
    if rtol is None or atol is None:
        raise UsageError("--rtol and --atol go together: give both or neither.")
    for flag, value in (("--rtol", rtol), ("--atol", atol)):
        if not value >= 0:
            raise UsageError(f"{flag} {value:g}: a tolerance is 0 or more.")
    if not compared:
        raise UsageError("--rtol and --atol are for a comparison: add --against torch.")
    return rtol, atol
