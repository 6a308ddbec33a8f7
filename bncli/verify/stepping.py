"""Running statistics of every step, taken here and by a backend, compared quantity by quantity."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from bncli.dtypes import DTYPES
from bncli.light import dataclass, np
from bncli.running_stats.simulation import Walk
from bncli.verify.closeness import Tolerance
from bncli.verify.meter import ClosenessMeter, closeness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bncli.model import Closeness, FloatArray, RunningStats
    from bncli.running_stats.batch_table import BatchTable

BUFFERS = ("running_mean", "running_var")


@dataclass(frozen=True, slots=True)
class Allowed:
    """The tolerances of running_mean and running_var, per channel."""

    mean: Tolerance
    var: Tolerance


def compare_steps(walk: Walk, theirs: Iterator[RunningStats], allowed: Allowed) -> list[Closeness]:
    """Every step's buffers against those of `theirs`; an index is (step from 1, channel)."""
    meters = {name: ClosenessMeter(name) for name in (*BUFFERS, "num_batches_tracked")}
    zero = np.zeros(1)
    for piece in walk.pieces():
        part = list(islice(theirs, len(piece.steps)))
        start = (int(piece.steps[0]), 0)
        for name, tolerance in zip(BUFFERS, (allowed.mean, allowed.var), strict=True):
            meters[name].add(
                getattr(piece, name),
                np.stack([getattr(each, name) for each in part]),
                tolerance.rtol,
                tolerance.atol,
                start,
            )
        meters["num_batches_tracked"].add(
            piece.tracked.astype(np.float64),
            np.array([each.num_batches_tracked for each in part], np.float64),
            zero,
            zero,
            start[:1],
        )
    return [meter.closeness() for meter in meters.values()]


def compare_average(
    ours: RunningStats, theirs: RunningStats, allowed: Allowed, name: str
) -> list[Closeness]:
    """The buffers in the end against those of a recomputation called `name`."""
    return [
        closeness(f"{name} {each}", getattr(ours, each), getattr(theirs, each), tolerance)
        for each, tolerance in zip(BUFFERS, (allowed.mean, allowed.var), strict=True)
    ]


def derived(table: BatchTable, first: RunningStats, new: float | None, steps: int) -> Allowed:
    """The tolerances that follow from PyTorch's roundings, where its order of sums is not repeated.

    A sum of n terms loses at most n roundings of its precision; the mean is within n*u of the root
    mean square, the variance within that of itself and a few roundings of the mean. A step adds
    three roundings of the buffers, which fade with the weight of the old value.
    """
    u = DTYPES[table.dtype].unit_roundoff
    summed = 2.0**-53 if table.dtype == "float64" else 2.0**-24  # rows are summed in float32
    n = float(table.count.max())
    with np.errstate(invalid="ignore", over="ignore"):
        std = np.sqrt(table.var)
        size = np.sqrt(table.mean**2 + table.var)
        lost = n * summed
        mean = ((lost + 4 * u) * size).max(0)
        var = (2 * (lost + 8 * u) * table.var + 8 * u * size * std + (lost * size) ** 2).max(0)
        bessel = n / (n - 1) if n > 1 else 1.0
        rounds = float(steps)
        if new is not None and 0 < new < 2:
            rounds = min(rounds, 1 / (1 - abs(1 - new)))
        largest_mean = np.maximum(np.abs(first.running_mean), np.abs(table.mean).max(0))
        largest_var = np.maximum(np.abs(first.running_var), bessel * table.var.max(0))
        grown = _growth(new, steps)
        tiny = 8 * DTYPES[table.dtype].smallest_normal * rounds  # below it digits are lost
        return Allowed(
            _absolute(grown * (mean + 4 * u * rounds * largest_mean + tiny)),
            _absolute(grown * (bessel * var + 4 * u * rounds * largest_var + tiny)),
        )


def widened(allowed: Allowed, factor: float) -> Allowed:
    """The same tolerances, `factor` times as wide."""
    return Allowed(allowed.mean.times(factor), allowed.var.times(factor))


def exactly(num_features: int) -> Allowed:
    """No tolerance at all."""
    none = _absolute(np.zeros(num_features))
    return Allowed(none, none)


def _growth(new: float | None, steps: int) -> float:
    """What errors grow to where the update extrapolates, at a momentum outside 0 to 1."""
    if new is None or 0 <= new <= 1:
        return 1.0
    try:
        return (abs(new) + abs(1 - new)) ** min(steps, 1000)
    except OverflowError:
        return float("inf")


def _absolute(atol: FloatArray) -> Tolerance:
    atol = np.where(np.isfinite(atol), atol, 0.0)  # where nothing is finite, both sides say so
    return Tolerance(np.zeros_like(atol), atol)
