"""Medians and distinct values, without numpy.ma, which np.median and np.unique import."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from bncli.light import np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def median(values: NDArray[Any]) -> float:
    """The median of some values, none of them NaN."""
    half = (len(values) - 1) // 2
    middle = np.partition(values, [half, len(values) // 2])
    low, high = float(middle[half]), float(middle[len(values) // 2])
    return low if low == high else low + (high - low) / 2  # Inf - Inf is NaN


def middle_of(values: Iterable[float | None]) -> float | None:
    """The median of the known values, the upper one of two; None if none is known."""
    known = sorted(value for value in values if value is not None)
    return known[len(known) // 2] if known else None


def distinct(values: NDArray[Any]) -> NDArray[Any]:
    """The distinct values in ascending order, none of them NaN."""
    ordered = np.sort(values)
    new = np.ones(len(ordered), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return ordered[new]


def among(values: NDArray[Any], ordered: NDArray[Any]) -> NDArray[Any]:
    """Which of the values are among the `ordered` ones, as a mask of the same shape."""
    if not ordered.size:
        return np.zeros(values.shape, bool)
    at = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    result: NDArray[Any] = ordered[at] == values
    return result
