"""What a trace consists of."""

from __future__ import annotations

from bncli.light import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One quantity of one channel: how it is computed, in letters and in numbers, and its value.

    `value` is None where there are several. `brief` says in a few words how it is computed; it is
    "" where another step's says as much. `exact` is known where `value` was computed in another
    arithmetic, and `training` where evaluation computed it: what training would have.
    """

    quantity: str
    formula: str
    numbers: str
    value: float | int | None
    brief: str = ""
    exact: float | None = None
    training: float | None = None

    @property
    def apart(self) -> float | None:
        """Evaluation's value minus training's."""
        if self.value is None or self.training is None:
            return None
        return float(self.value) - self.training


@dataclass(frozen=True, slots=True)
class Identity:
    """Two sides that are equal in exact arithmetic: `quantity` and what it `equals`, in words.

    `scale` is the sum of the absolute terms of both.
    """

    quantity: str
    equals: str
    left: float
    right: float
    scale: float

    @property
    def holds(self) -> bool | None:
        """Whether float64 explains the difference; None where a side is not finite."""
        difference = abs(self.left - self.right)
        if not difference < float("inf"):
            return None
        return difference <= CLOSE * self.scale


CLOSE = 1e-12
"""The share of the sum of absolute terms by which an identity's sides may differ."""
