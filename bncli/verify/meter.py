"""Two arrays, block by block -> a `Closeness` of each channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

from bncli.model import Closeness
from bncli.values import dataclass
from bncli.verify.closeness import ClosenessMeter, Measured

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray, IntArray


@dataclass(slots=True)
class ChannelMeter:
    """Compares one quantity piece by piece and keeps a `Closeness` of each channel.

    `channel_axis` is the axis of the channels in the whole array, from the front. An infinity is
    close to the same infinity, NaN to NaN only with `equal_nan`.
    """

    quantity: str
    num_features: int
    channel_axis: int
    equal_nan: bool = False
    _channels: dict[str, FloatArray] = field(default_factory=dict)
    _total: IntArray = field(init=False)
    _mismatched: IntArray = field(init=False)
    _index: list[tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is measured yet."""
        import numpy as np

        names = ("max_abs", "max_rel", "passing_atol", "rtol", "atol", "actual", "expected")
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
        """Compare a block that begins at index `start`; rtol and atol broadcast against it."""
        import numpy as np

        if actual.shape != expected.shape:
            raise ValueError(f"{self.quantity}: {actual.shape} against {expected.shape}")
        if not actual.size:
            return
        found = Measured.of(actual, expected, rtol, atol, equal_nan=self.equal_nan)
        size = actual.shape[self.channel_axis]
        part = slice(start[self.channel_axis], start[self.channel_axis] + size)

        def rows(values: FloatArray) -> FloatArray:
            return np.moveaxis(values, self.channel_axis, 0).reshape(size, -1)

        mine = self._channels
        used = rows(found.used)
        self._total[part] += used.shape[1]
        self._mismatched[part] += (used > 1).sum(1)
        for name, values in (
            ("max_abs", found.diff),
            ("max_rel", found.rel),
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
        others = [n for axis, n in enumerate(actual.shape) if axis != self.channel_axis]
        where: list[list[int]] = [[] for _ in at]
        if others:
            where = np.stack(np.unravel_index(at, others), 1).tolist()
        for channel, index in zip(further.tolist(), where, strict=True):
            index.insert(self.channel_axis, channel)
            self._index[part.start + channel] = tuple(
                i + s for i, s in zip(index, start, strict=True)
            )

    def channels(self) -> tuple[Closeness, ...]:
        """What was measured of each channel so far."""
        columns = {name: values.tolist() for name, values in self._channels.items()}
        counts = zip(self._index, self._mismatched.tolist(), self._total.tolist(), strict=True)
        return tuple(
            Closeness(
                quantity=self.quantity,
                max_abs_diff=columns["max_abs"][c],
                max_rel_diff=columns["max_rel"][c],
                index=index,
                actual=columns["actual"][c],
                expected=columns["expected"][c],
                mismatched=mismatched,
                total=total,
                rtol=columns["rtol"][c],
                atol=columns["atol"][c],
                used=max(columns["used"][c], 0.0),
                passing_atol=columns["passing_atol"][c],
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
        return ClosenessMeter(quantity).closeness()
    used = max(item.used for item in seen)
    worst = min((item for item in seen if item.used == used), key=lambda item: item.index)
    return replace(
        worst,
        quantity=quantity,
        max_abs_diff=max(item.max_abs_diff for item in seen),
        max_rel_diff=max(item.max_rel_diff for item in seen),
        mismatched=sum(item.mismatched for item in seen),
        total=sum(item.total for item in seen),
        passing_atol=max(item.passing_atol for item in seen),
    )
