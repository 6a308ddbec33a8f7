"""The scale of an axis: from where to where it goes, and what is written along it."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from bncli.light import dataclass, np
from bncli.renderers.drawing.pictures.names import LINE, every, text_width, told_apart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.pictures import Axis
    from bncli.renderers.drawing.pictures.thinning import Floats

HUGE = 1e290
"""Numbers beyond it are drawn there: a picture needs room to add to them."""

TINY = 1e-290
"""Positive numbers below it are drawn there on a log axis, for the same reason."""

LONG = 1e7
"""Numbers below it are written out along an axis where all of them are: 1000, not 1e+03."""

ROOM = 0.05
"""The share of an axis that is left free at each end."""


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high`, with `labels` at `ticks`; `turned` ones are written upwards."""

    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    turned: bool = False

    def placed(self, values: Floats) -> Floats:
        """The values where they are drawn: what a log axis cannot show is at its lower edge."""
        if not self.log:
            return np.clip(values, -HUGE, HUGE)
        shown = np.clip(values, TINY, HUGE)
        return np.where(values <= 0, self.low, shown)

    def share(self, placed: Floats) -> Floats:
        """Where placed values are between the ends of the axis, from 0 to 1."""
        if self.log:
            span = math.log(self.high) - math.log(self.low)
            return (np.log(placed) - math.log(self.low)) / span
        return (placed - self.low) / (self.high - self.low)

    @property
    def breadth(self) -> float:
        """Pixels of the widest label."""
        return max(map(text_width, self.labels), default=0.0)


def scale_of(
    axis: Axis, values: Floats, length: float, *, longest: int, flat: bool, from_zero: bool = False
) -> Scale:
    """The scale of an axis of `length` pixels for these values, which may not all be finite.

    `longest` is how many characters of a name are shown; `flat` is an axis from left to right.
    """
    values = values[np.isfinite(values)]
    if axis.names:
        return _named(axis.names, values, length, longest=longest, flat=flat)
    if axis.log:
        return _log(values, length, flat=flat)
    low, high = _ends(values, from_zero=from_zero)
    return _ticked(low, high, length, log=False, flat=flat, whole=_are_whole(values))


def _ends(values: Floats, *, from_zero: bool) -> tuple[float, float]:
    """Where a linear axis begins and ends."""
    if not len(values):
        return 0.0, 1.0
    values = np.clip(values, -HUGE, HUGE)
    low, high = float(values.min()), float(values.max())
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    span = high - low
    greatest = max(abs(low), abs(high))
    if span <= max(greatest * 1e-9, TINY):
        half = greatest / 20 if greatest > TINY else 1.0
        return low - half, high + half
    room = ROOM * span
    return low - room * (not from_zero or low < 0), high + room * (not from_zero or high > 0)


def _log(values: Floats, length: float, *, flat: bool) -> Scale:
    """A log axis for the positive values, with room below them if there are others."""
    positive = np.clip(values[values > 0], TINY, HUGE)
    if not len(positive):
        return _ticked(0.1, 10.0, length, log=True, flat=flat)
    low, high = math.log10(positive.min()), math.log10(positive.max())
    room = min(max(ROOM * (high - low), 0.06), 1.0)
    below = room * (3 if (values <= 0).any() else 1)
    return _ticked(10 ** (low - below), 10 ** (high + room), length, log=True, flat=flat)


def _named(
    names: Sequence[str], values: Floats, length: float, *, longest: int, flat: bool
) -> Scale:
    """An axis with names at 0, 1, 2, ...; as many of them as can be read."""
    low, high = -0.6, len(names) - 0.4
    if len(values):
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    texts = told_apart(names, longest)
    turned = flat and max(map(text_width, texts)) + 8 > length / len(names)
    step = every(len(names), length) if turned or not flat else 1
    places = range(0, len(names), step)
    ticks, labels = tuple(map(float, places)), tuple(texts[place] for place in places)
    return Scale(low, high, log=False, ticks=ticks, labels=labels, turned=turned)


def _ticked(
    low: float, high: float, length: float, *, log: bool, flat: bool, whole: bool = False
) -> Scale:
    """An axis of numbers; as many of them as can be read."""
    most = max(2, int(length // (72 if flat else 36)))
    while True:
        ticks = _log_ticks(low, high, most) if log else _linear_ticks(low, high, most, whole=whole)
        made = Scale(low, high, log, tuple(ticks), tuple(_labels(ticks)))
        kept = _apart(made, length, flat=flat)
        if len(kept) == len(ticks) or most <= 2:
            labels = tuple(made.labels[at] for at in kept)
            return Scale(low, high, log, tuple(ticks[at] for at in kept), labels)
        most -= 1


def _apart(scale: Scale, length: float, *, flat: bool) -> list[int]:
    """Which of the ticks have labels that do not touch the one before."""
    kept: list[int] = []
    free = -length
    for at, place in enumerate(scale.share(np.array(scale.ticks)) * length):
        half = (text_width(scale.labels[at]) + 6 if flat else LINE) / 2
        if place - half >= free:
            kept.append(at)
            free = place + half
    return kept


def _linear_ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    locator = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10], integer=whole)
    return [float(tick) for tick in locator.tick_values(low, high) if low <= tick <= high]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    """Powers of ten, with what is between them where these are few."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    decades = last - first + 1
    if decades >= 2:
        step = -(-decades // most)
        begin = -(-first // step) * step  # so that 1 is among them
        if begin + step > last:
            begin = first  # so that there are two
        powers = [10.0**power for power in range(begin, last + 1, step)]
        if len(powers) >= 2 and (decades > 2 or most < 6):
            return powers
    for digits in ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
        parts = [digit * 10.0**power for power in range(first - 1, last + 1) for digit in digits]
        between = [part for part in parts if low <= part <= high]
        if 2 < len(between) <= most or len(between) == 2 == decades:
            return between
    return _linear_ticks(low, high, most)


def _are_whole(values: Floats) -> bool:
    """Whether all are integers, which ticks between them would make look like something else."""
    return bool(len(values)) and bool((np.floor(values) == values).all())


def _labels(ticks: Sequence[float]) -> list[str]:
    """The ticks in as few digits as say each of them."""
    step = min((b - a for a, b in pairwise(ticks)), default=0.0)
    labels: list[str] = []
    for digits in range(3, 17):
        labels = [format(tick, f".{digits}g") for tick in ticks]
        if max(map(abs, ticks), default=0.0) < LONG:
            labels = [f"{float(label):.0f}" if "e+" in label else label for label in labels]
        said = (abs(float(label) - tick) for label, tick in zip(labels, ticks, strict=True))
        if all(error <= step * 1e-3 for error in said):
            break
    return ["0" if float(label) == 0 else label for label in labels]
