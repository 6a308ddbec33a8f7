"""The means of the data that a model was trained on, from its checkpoint alone.

A convolution that reads the model's input and the BatchNorm layer behind it tie the two:
running_mean = (sums of the kernel over its places) @ (means of the input's channels) + bias. There
are more output channels than input ones, so that the weights and the statistics of one training fit
together, and those of two do not. A BatchNorm layer that reads the input itself has its means.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.light import dataclass, np

if TYPE_CHECKING:
    from bncli.model import FloatArray
    from bncli.model.capture import InputKernel, InputSums, WatchedLayer

MISFIT = 0.04
"""The residual of the first layer's means, in its standard deviations, above which weights and
statistics are not of one training. Trained nets reach 0.03, averaged weights have 0.03 to 0.13, and
statistics that are 200 steps older than the weights 0.06 to 0.14."""

FEWEST_OUTPUTS = 1.5
"""How many times as many output as input channels it takes."""


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a layer's stored means say of the data that the model was trained on.

    `means` (in_channels,) are the input's channel means that fit best. `residual` is the root mean
    square of what is left of the stored means, in the layer's standard deviations, corrected for
    the number of means that were fitted. Behind padding, whose share depends on the size of the
    images, it is that over what the means themselves have, if that is more than 1. `apart` is how
    far the means of the input that came are from them: the root mean square, in the input's
    standard deviations; None where that is not known.
    """

    means: FloatArray
    residual: float
    apart: float | None


def training_data(
    layer: WatchedLayer,
    seen: InputSums,
    mean: FloatArray,
    stored: FloatArray,
    record: InputSums | None,
) -> TrainingData | None:
    """The training data's means by a layer's `mean`; None where they do not follow from it.

    What the data at hand give has to follow from their means, or the stored ones say nothing.

    `seen` is what the layer saw, `stored` running_var + eps, and `record` what came in.
    """
    kernel = layer.kernel
    if not np.isfinite(mean).all():
        return None
    if record is not None and _same(seen, record):
        return TrainingData(mean, 0.0, _apart(record, mean))
    if kernel is None or not np.isfinite(kernel.sums).all():
        return None
    outputs, inputs = kernel.sums.shape
    if outputs < FEWEST_OUTPUTS * inputs or not (stored > 0).all():
        return None
    fitted = _fitted(kernel, mean, stored)
    if fitted is None or not _holds(kernel, seen):
        return None
    means, residual = fitted
    apart = None
    if record is not None and record.num_features == inputs:
        apart = _apart(record, means)
    return TrainingData(means, residual, apart)


def _fitted(
    kernel: InputKernel, mean: FloatArray, var: FloatArray
) -> tuple[FloatArray, float] | None:
    """The input's means that a layer's `mean` follows from best, and what is left of it.

    In the standard deviations of `var`; None where the kernel does not determine them.
    """
    outputs, inputs = kernel.sums.shape
    scale = 1 / np.sqrt(var)
    wanted = (mean if kernel.bias is None else mean - kernel.bias) * scale
    rows = kernel.sums * scale[:, np.newaxis]
    means, _, rank, _ = np.linalg.lstsq(rows, wanted, rcond=None)
    if rank < inputs:
        return None
    left = float(np.square(wanted - rows @ means).sum()) / (outputs - inputs)
    if kernel.padded:
        left /= max(1.0, float(np.square(wanted).mean()))
    return np.asarray(means), math.sqrt(left)


def _holds(kernel: InputKernel, seen: InputSums) -> bool:
    """Whether the means of the data themselves follow from the kernel.

    They do not where a stride meets a pattern of its own period, or borders differ from the rest.
    """
    if not ((seen.var > 0) & np.isfinite(seen.mean)).all():
        return True
    fitted = _fitted(kernel, seen.mean, seen.var)
    return fitted is None or fitted[1] <= MISFIT


def _same(seen: InputSums, record: InputSums) -> bool:
    """Whether a layer saw the input itself."""
    return seen.values == record.values and all(
        np.array_equal(first, second)
        for first, second in ((seen.min, record.min), (seen.max, record.max))
    )


def _apart(record: InputSums, means: FloatArray) -> float | None:
    """How far the input's means are from these, in its standard deviations."""
    with np.errstate(all="ignore"):
        squares = np.square(record.mean - means) / record.var
    return math.sqrt(float(squares.mean())) if np.isfinite(squares).all() else None
