"""What chance, and the running average's own memory, leave of a predicted error."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.light import np
from bncli.model.capture import InputSums, WatchedLayer
from bncli.running_stats.chance import f_quantile, t_quantile

if TYPE_CHECKING:
    from bncli.model import FloatArray

CHANCE_OF_NOISE = 0.001
"""The chance that a healthy layer, all of its channels together, goes beyond its noise."""


MOST_MEMORY = 1 / 3
"""m/(2 - m) at a momentum m of 0.5. What a larger one adds is a fault, and no noise."""


def expected_noise(
    layer: WatchedLayer,
    seen: InputSums,
    stored: FloatArray,
    weight: FloatArray,
    train_batch_size: float | None,
) -> tuple[float, float]:
    """The predicted error that chance reaches at most, and that with batches that differ as these.

    Inf where that is not known. The second is the first, unless the batches differ more than
    their samples explain, or the momentum is above 0.5.

    `stored` is running_var + eps. Two things scatter: the running average, by m/(2 - m) of what
    batches scatter, and the data's own mean and variance; the latter by their samples, unless the
    batches differ more than those explain. Student's t, with the degrees of freedom of the two
    together (Welch and Satterthwaite), says how far chance goes in all channels. Where there is
    one batch, its samples say how much batches would scatter.
    """
    batches, inner = seen.batches, seen.samples - seen.batches
    by_samples = np.zeros(len(stored))
    if inner > 0:
        by_samples = seen.sample_squares / inner * (batches / seen.samples)
    if batches > 1:
        means = seen.batch_mean_squares / (batches - 1)
        variances = seen.batch_var_squares / max(seen.batches_with_var - 1, 1)
    else:
        means = by_samples
        variances = 2 * np.square(seen.batch_var) / max(seen.samples, 2)
    first, second = max(batches - 1, 1), max(inner, 1)
    differ = inner < 1 or (
        batches > 1
        and _median_ratio(means, by_samples) > f_quantile(CHANCE_OF_NOISE, first, second)
    )
    relative = np.square(weight) / stored
    share = averaging(layer) * rescaled(seen, train_batch_size)
    usual = min(share, MOST_MEMORY * rescaled(seen, train_batch_size))

    def reach(
        share: float, means: FloatArray, own: FloatArray, variances: FloatArray, its: float
    ) -> float:
        # d sqrt(v / stored) = dv / (2 sqrt(v stored)), v being the data's variance.
        of_var = relative * variances / (4 * np.where(seen.batch_var > 0, seen.batch_var, np.inf))
        memory = _finite_mean(share * (relative * means + of_var))
        data = _finite_mean((relative * own + of_var) / batches)
        if not 0 <= memory + data < math.inf:  # a negative running_var makes it negative
            return math.inf
        freedom = _freedom(memory, first, data, its)
        return t_quantile(CHANCE_OF_NOISE / len(stored), freedom) * math.sqrt(memory + data)

    if not differ:
        most = max(first, second)
        reached = [reach(each, means, by_samples, variances, most) for each in (usual, share)]
        return reached[0], reached[1]
    bound = reach(share, means, means, variances, first)
    if inner < 1:
        return bound, bound
    alike = np.minimum(variances, 2 * np.square(seen.batch_var) * (batches / seen.samples))
    return min(bound, reach(usual, by_samples, by_samples, alike, second)), bound


def averaging(layer: WatchedLayer) -> float:
    """The variance of the running average over that of one batch: m/(2 - m).

    1/n of the n batches that were counted for the cumulative average, and 0 where nothing is known.
    """
    module = layer.state.module if layer.state is not None else None
    if module is None or not module.has_momentum:
        return 0.0
    if module.momentum is None:
        counted = layer.state.num_batches_tracked if layer.state is not None else None
        return 1 / counted if counted and counted >= 1 else 0.0
    momentum = module.momentum
    return momentum / (2 - momentum) if 0 <= momentum <= 1 else 1.0


def rescaled(seen: InputSums, train_batch_size: float | None) -> float:
    """How much more batches of the training's size scatter than those of the capture."""
    if train_batch_size is None or not train_batch_size > 0:
        return 1.0
    return seen.samples / seen.batches / train_batch_size


def _median_ratio(first: FloatArray, second: FloatArray) -> float:
    """The median ratio of two variances, of channels that vary."""
    known = (second > 0) & np.isfinite(first)
    return float(np.median(first[known] / second[known])) if known.any() else 0.0


def _freedom(first: float, its: float, second: float, other: float) -> float:
    """The degrees of freedom of the sum of two variances (Welch and Satterthwaite)."""
    total = first + second
    if not 0 < total < math.inf:
        return max(its, other)
    return 1 / ((first / total) ** 2 / its + (second / total) ** 2 / other)


def _finite_mean(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.inf
