"""How close two values of one quantity are."""

from __future__ import annotations

from math import inf, isfinite, isnan

from bncli.light import dataclass


@dataclass(frozen=True, slots=True)
class Closeness:
    """How close `actual` is to `expected` in one quantity: |actual - expected| <= tolerance.

    The tolerance of an element is atol + rtol * |expected|; rtol and atol are those of the element
    at `index`, the one that uses most of its tolerance. `used` is that share: 1 just passes.
    `actual` and `expected` are the two values there. `max_abs_diff` is over all elements and
    `max_mismatch` over those that mismatch, 0 where none does: both may be of other elements.
    `passing_atol` is the least atol with which, at the same rtol, all elements would have passed.
    `max_rel_diff` is over the elements whose expected value is not 0. `explained` says that what
    fails here is within the tolerance that follows from the arithmetic: a narrower one was given.
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
    max_mismatch: float
    explained: bool = False

    @property
    def difference(self) -> float:
        """|actual - expected| at `index`: 0 for equal infinities, or NaN that counts as equal.

        Infinite where one side is NaN. Integers that differ beyond 2**53 differ by 1.
        """
        if self.used == 0:
            return 0.0
        apart = abs(self.actual - self.expected)
        return inf if isnan(apart) else apart or 1.0

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
