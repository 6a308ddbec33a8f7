"""How far the statistics of one layer move between files, as one distance and as people read it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from bncli.light import np
from bncli.rulebook.order import median

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.changes.pair import Side
    from bncli.model import FloatArray


class Move:
    """From the statistics of a layer in one file to those in another; shape (num_features,) each.

    Channels whose statistics are not finite, or whose variance is negative, are left out.
    """

    def __init__(self, mean: FloatArray, var: FloatArray, eps: float) -> None:
        """`mean` and `var` have shape (2, num_features): the two files."""
        with np.errstate(all="ignore"):
            std = np.sqrt(var + eps)
        with np.errstate(invalid="ignore"):
            usable = np.isfinite(mean + std) & (std > 0)
        self.known: NDArray[np.bool_] = usable[0] & usable[1]
        self.mean, self.std = mean[:, self.known], std[:, self.known]

    @cached_property
    def z(self) -> FloatArray:
        """The shift of each mean, in standard deviations of the first file, without a sign."""
        with np.errstate(over="ignore"):
            return np.asarray(np.abs(self.mean[1] - self.mean[0]) / self.std[0])

    @cached_property
    def var_ratio(self) -> FloatArray:
        """Each variance of the second file over that of the first, with eps added."""
        with np.errstate(over="ignore", under="ignore"):
            return np.asarray((self.std[1] / self.std[0]) ** 2)

    @property
    def backwards(self) -> Move:
        """The same way in the other direction."""
        return Move(self.mean[::-1], self.std[::-1] ** 2, 0.0)

    @cached_property
    def distance(self) -> float:
        """The median over the channels of the Fisher-Rao distance of two normal distributions.

        It is a metric: small moves come to sqrt(z^2 + 2 (ln s)^2) with s the ratio of the standard
        deviations, and a way there and back is as far in both directions. 0 without channels.
        """
        if not self.known.any():
            return 0.0
        with np.errstate(over="ignore"):
            apart = (self.mean[1] - self.mean[0]) ** 2 / 2 + (self.std[1] - self.std[0]) ** 2
            each = np.sqrt(2) * np.arccosh(1 + apart / (2 * self.std[0] * self.std[1]))
        return median(each)

    @property
    def furthest_ratio(self) -> float:
        """The ratio of the variances that is furthest from 1, either way."""
        if not self.var_ratio.size:
            return 1.0
        low, high = float(self.var_ratio.min()), float(self.var_ratio.max())
        return low if low * high < 1 else high


def stacked(sides: list[Side]) -> tuple[FloatArray, FloatArray] | None:
    """Means and variances of one layer in all files, shape (files, num_features); None without."""
    means = [side.layer.mean for side in sides]
    variances = [side.layer.var for side in sides]
    every = [values for values in (*means, *variances) if values is not None]
    if len(every) < 2 * len(sides) or len({values.shape for values in every}) > 1:
        return None
    count = len(sides)
    return np.stack(every[:count]), np.stack(every[count:])
