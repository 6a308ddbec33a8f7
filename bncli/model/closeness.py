"""How close two values of one quantity are."""

from __future__ import annotations

from math import isfinite

from bncli.light import dataclass


@dataclass(frozen=True, slots=True)
class Closeness:
    """How close `actual` is to `expected` in one quantity: |actual - expected| <= tolerance.

    The tolerance of an element is atol + rtol * |expected|; rtol and atol are those of the element
    at `index`, the one that uses most of its tolerance. `used` is that share: 1 just passes.
    `actual` and `expected` are the two values there.
    `passing_atol` is the least atol with which, at the same rtol, all elements would have passed.
    `max_rel_diff` is over the elements whose expected value is not 0.
    """

    quantity: str
    max_abs_diff: float
    max_rel_diff: float
    index: tuple[int, ...]
    actual: float
    expected: float
    mismatched: int
    total: int
    rtol: float
    atol: float
    used: float
    passing_atol: float

    @property
    def passed(self) -> bool:
        """Whether every element is within its tolerance, and there was one."""
        return self.mismatched == 0 and self.total > 0

    @property
    def badness(self) -> tuple[bool, int, float, float]:
        """A key that sorts the worst first.

        What mismatches comes before what does not. Differences that are not finite (NaN or Inf on
        one side) come first, then those that have a tolerance, by the share of it that they use.
        Values that have to be equal, such as counters, come last: any step of theirs is infinitely
        many times their tolerance.
        """
        kind = 0
        if isfinite(self.max_abs_diff):
            kind = 2 if self.rtol == self.atol == 0 else 1
        return not self.mismatched, kind, -self.used, -self.max_abs_diff


@dataclass(frozen=True, slots=True)
class ChannelCloseness:
    """How close one quantity is as a whole and in each channel.

    `channels` is empty for a quantity that has none, as a counter. `sizes` says how large the
    values are that were rounded on the way, channel by channel: an ULP is counted at that size.
    """

    whole: Closeness
    channels: tuple[Closeness, ...]
    sizes: tuple[float, ...]
