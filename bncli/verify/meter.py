"""Two arrays, block by block -> a `Closeness` of each channel, and of all together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.model import Closeness

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray, IntArray
    from bncli.verify.closeness import Tolerance


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
    """Compares one quantity piece by piece and keeps a `Closeness` of each channel.

    `channel_axis` is the axis of the channels in the whole array, from the front; None makes one
    channel of the whole. An infinity is close to the same infinity, and with `equal_nan` NaN to
    NaN: both sides computed the same thing, and a finding of its own speaks of the NaN. Everything
    else that is not finite mismatches.
    """

    quantity: str
    num_features: int = 1
    channel_axis: int | None = None
    equal_nan: bool = True
    _channels: dict[str, FloatArray] = field(default_factory=dict)
    _total: IntArray = field(init=False)
    _mismatched: IntArray = field(init=False)
    _index: list[tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is measured yet."""
        names = (
            "max_abs_diff",
            "max_rel_diff",
            "max_mismatch",
            "passing_atol",
            "rtol",
            "atol",
            "actual",
            "expected",
        )
        self._channels = {name: np.zeros(self.num_features) for name in names}
        self._channels["used"] = np.full(self.num_features, -1.0)
        self._total, self._mismatched = np.zeros((2, self.num_features), np.int64)
        self._index = [()] * self.num_features

    def add(
        self,
        actual: NDArray[Any],
        expected: NDArray[Any],
        rtol: NDArray[Any],
        atol: NDArray[Any],
        start: tuple[int, ...],
    ) -> None:
        """Compare a block that begins at index `start`; rtol and atol broadcast against it.

        Raises ValueError where the shapes differ.
        """
        if actual.shape != expected.shape:
            raise ValueError(f"{self.quantity}: {actual.shape} against {expected.shape}")
        if not actual.size:
            return
        found = Measured.of(actual, expected, rtol, atol, equal_nan=self.equal_nan)
        axis = self.channel_axis
        size, first = (1, 0) if axis is None else (actual.shape[axis], start[axis])
        part = slice(first, first + size)

        def rows(values: FloatArray) -> FloatArray:
            return (values if axis is None else np.moveaxis(values, axis, 0)).reshape(size, -1)

        mine = self._channels
        used = rows(found.used)
        self._total[part] += used.shape[1]
        self._mismatched[part] += (used > 1).sum(1)
        for name, values in (
            ("max_abs_diff", found.diff),
            ("max_rel_diff", found.rel),
            ("max_mismatch", np.where(found.used > 1, found.diff, 0.0)),
            ("passing_atol", found.missing),
        ):
            mine[name][part] = np.maximum(mine[name][part], rows(values).max(1))
        worst = used.argmax(1)
        most = used[np.arange(size), worst]
        further = np.flatnonzero(most > mine["used"][part])
        at = worst[further]
        for name, values in (
            ("used", found.used),
            ("rtol", found.rtol),
            ("atol", found.atol),
            ("actual", found.actual),
            ("expected", found.expected),
        ):
            mine[name][part][further] = rows(values)[further, at]
        self._place(further, at, actual.shape, start)

    def _place(
        self, channels: IntArray, at: IntArray, shape: tuple[int, ...], start: tuple[int, ...]
    ) -> None:
        """Keep where in a block of this shape each of its `channels` has its worst element.

        `at` counts the elements of a channel in C order.
        """
        axis = self.channel_axis
        others = [size for other, size in enumerate(shape) if other != axis]
        where: list[list[int]] = [[] for _ in at]
        if others:
            where = np.stack(np.unravel_index(at, others), 1).tolist()
        for channel, index in zip(channels.tolist(), where, strict=True):
            if axis is not None:
                index.insert(axis, channel)
            kept = channel + (0 if axis is None else start[axis])
            self._index[kept] = tuple(i + s for i, s in zip(index, start, strict=True))

    def channels(self) -> tuple[Closeness, ...]:
        """What was measured of each channel so far."""
        columns = {name: values.tolist() for name, values in self._channels.items()}
        columns["used"] = self._channels["used"].clip(0.0).tolist()
        counts = zip(self._index, self._mismatched.tolist(), self._total.tolist(), strict=True)
        return tuple(
            Closeness(
                quantity=self.quantity,
                index=index,
                mismatched=mismatched,
                total=total,
                **{name: values[c] for name, values in columns.items()},
            )
            for c, (index, mismatched, total) in enumerate(counts)
        )

    def closeness(self) -> Closeness:
        """What was measured of all channels together."""
        return pooled_closeness(self.quantity, self.channels())


def pooled_closeness(quantity: str, channels: Sequence[Closeness]) -> Closeness:
    """The closeness of all channels together; the first in C order of those that are worst."""
    seen = [item for item in channels if item.total]
    if not seen:
        return ClosenessMeter(quantity).channels()[0]
    used = max(item.used for item in seen)
    worst = min((item for item in seen if item.used == used), key=lambda item: item.index)
    return replace(
        worst,
        quantity=quantity,
        max_abs_diff=max(item.max_abs_diff for item in seen),
        max_rel_diff=max(item.max_rel_diff for item in seen),
        max_mismatch=max(item.max_mismatch for item in seen),
        mismatched=sum(item.mismatched for item in seen),
        total=sum(item.total for item in seen),
        passing_atol=max(item.passing_atol for item in seen),
    )


def closeness(
    quantity: str, actual: FloatArray, expected: NDArray[Any], tolerance: Tolerance
) -> Closeness:
    """Compare two per-channel arrays of shape (num_features,), as a whole."""
    meter = ClosenessMeter(quantity)
    meter.add(actual, expected, tolerance.rtol, tolerance.atol, (0,))
    return meter.closeness()


def with_explained(given: Closeness, derived: Closeness) -> Closeness:
    """The closeness at the tolerance that was `given`, beside that at the `derived` one.

    What fails the one alone is within what the arithmetic explains.
    """
    return replace(given, explained=not given.passed and derived.passed)
