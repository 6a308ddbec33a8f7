"""What becomes of each value of a channel, as columns; the first and the last where it has many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.light import dataclass, np
from bncli.verify.trace.forward import deviations, normalized

if TYPE_CHECKING:
    from bncli.batchnorm import Normalization
    from bncli.model import FloatArray
    from bncli.verify.trace.channel import ChannelView

MOST_ELEMENTS = 100_000
"""Elements of all channels that a trace lists."""


@dataclass(frozen=True, slots=True)
class Elements:
    """Some values of a channel, at `positions`; every array has their length."""

    positions: list[int]
    x: FloatArray
    deviation: FloatArray
    squared: FloatArray
    x_hat: FloatArray
    output: FloatArray


def elements(norm: Normalization, view: ChannelView, positions: list[int] | int) -> Elements:
    """The values at `positions`, or at most this many: the first half and the last."""
    if isinstance(positions, int):
        first, last = view.ends(positions)
        x = np.concatenate([first, last])
        count = view.count
        chosen = [*range(len(first)), *range(count - len(last), count)]
    else:
        chosen = positions
        x = np.concatenate([np.empty(0), *(view.read(p, p + 1) for p in chosen)])
    deviation = deviations(norm, view.channel, x)
    with np.errstate(invalid="ignore", over="ignore"):
        squares = deviation**2
    x_hat, output = normalized(norm, view.channel, x)
    return Elements(chosen, x, deviation, squares, x_hat, output)
