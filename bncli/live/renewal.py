"""Statistics found anew in the eval propagation, in all layers at once, pass by pass."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from bncli.light import dataclass, np
from bncli.live.batch import Statistics
from bncli.model.capture import InputSums, Propagation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.live.capture_run import CaptureRun

SETTLED = 0.1
"""Statistics found anew have come to rest when none moves by more of its standard error."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """What was found, layer by layer, after `rounds` passes; None where nothing was tried."""

    statistics: dict[str, Statistics] = field(default_factory=dict)
    rounds: int | None = None
    settled: bool = True

    @classmethod
    def of(cls, run: CaptureRun, names: Sequence[str]) -> Renewal:
        """The statistics of these layers, beginning with those of the training propagation.

        A layer can only rest after those before it, so that there are at most as many passes as
        layers, and one. What is returned is what the last pass ran with, so that the gap of that
        pass is theirs; what this pass saw differs by a tenth of its error at most.
        """
        seen = run.results(Propagation.TRAINING)
        current = {name: statistics_of(seen[name]) for name in names if name in seen}
        for rounds in range(1, len(current) + 2):
            sums = run.one(Propagation.RENEWED, current)
            if all(moved(current[name], sums[name]) <= SETTLED for name in current):
                return cls(current, rounds)
            if rounds <= len(current):
                current = {name: statistics_of(sums[name]) for name in current}
        return cls(current, len(current) + 1, settled=False)


def statistics_of(sums: InputSums) -> Statistics:
    """Mean and unbiased variance of all values, as running_mean and running_var are to hold them.

    The biased variance where there is one value.
    """
    return Statistics(sums.mean, sums.unbiased_var if sums.values > 1 else sums.var)


def moved(before: Statistics, sums: InputSums) -> float:
    """How far new statistics are from those before, in standard errors; the farthest channel.

    The error of a mean follows from the samples' scatter within their batches, and that of a
    variance from the batches' scatter, or from the number of samples if there are few batches.
    """
    after = statistics_of(sums)
    inner = sums.samples - sums.batches
    with np.errstate(invalid="ignore", divide="ignore"):
        by_sample = sums.sample_squares / inner if inner > 0 else after.var
        mean_error = np.sqrt(by_sample / sums.samples)
        var_error = after.var * np.sqrt(2 / max(sums.samples - 1, 1))
        if sums.batches_with_var > 2:
            scatter = sums.batch_var_squares / (sums.batches_with_var - 1)
            var_error = np.maximum(np.sqrt(scatter / sums.batches_with_var), 1e-12 * after.var)
        steps = [
            np.abs(new - old) / np.where(error > 0, error, np.inf)
            for new, old, error in zip(after, before, (mean_error, var_error), strict=True)
        ]
    finite = np.concatenate(steps)
    finite = finite[np.isfinite(finite)]
    return float(finite.max()) if finite.size else 0.0
