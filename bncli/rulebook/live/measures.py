"""How far each layer's stored statistics are from the data's, and what chance would give.

All of it is judged in the training propagation, in which every layer normalises with its batch: in
evaluation, every layer behind the first wrong one sees a wrong input.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.light import dataclass, np
from bncli.model.capture import InputSums, Propagation, WatchedLayer
from bncli.rulebook.live.noise import expected_noise, rescaled
from bncli.rulebook.live.scatter import (
    BatchScatter,
    DropoutEffect,
    batch_scatter,
    dropout_effect,
    first_seen,
)
from bncli.rulebook.live.training_data import TrainingData, training_data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.model import FloatArray
    from bncli.model.capture import Capture

BLAMED = 0.1
"""The predicted error of the output, in its standard deviations, above which a layer is blamed."""

LEAST_SCATTER = 0.003
"""The least standard deviation of batches' means that a distance is measured by, in that of all
values. Behind a BatchNorm and a linear layer the means of a training pass do not vary at all."""

JUDGED_IN = (Propagation.TRAINING, Propagation.AS_TRAINED, Propagation.EVAL)
"""Where a layer is judged: the first of these that ran."""

EVALUATED = (Propagation.EVAL, *JUDGED_IN)
"""Where batches are compared: in evaluation nothing normalises their differences away."""


@dataclass(frozen=True, slots=True)
class LayerMeasure:
    """One layer's numbers; arrays of shape (num_features,).

    `var` is the biased variance of all values, `stored_var` running_var.
    `z` is (mean - running_mean) / sqrt(running_var + eps), and `var_ratio` (var + eps) /
    (running_var + eps), in the propagation `judged_in`;
    `channel_error` is |weight| * sqrt(z^2 + (sqrt(var_ratio) - 1)^2), and `predicted_error` its
    root mean square: how far off the layer's output is, in the standard deviations of a layer of
    weight 1. `chance` is what chance and the running average's own memory give it at most in
    shuffled batches, and `bound` in batches that differ as these do, Inf where nothing is known of
    them. `right_error` is the predicted error against the numbers that
    running statistics estimate: the means of the batches' means and of their unbiased variances.

    `training` and `evaluation` say how far the batches are from each other. `memory` is
    (running_mean - mean)^2 over the variance of the batches' means, less what the data add:
    about m/(2 - m), the median channel's. What is not known, or not finite, is None.
    """

    name: str
    order: int
    num_features: int
    values: int
    batches: int
    samples: int
    judged_in: Propagation
    frozen: bool
    per_sample: bool
    var: FloatArray
    stored_var: FloatArray
    z: FloatArray
    var_ratio: FloatArray
    channel_error: FloatArray
    predicted_error: float | None
    chance: float
    bound: float
    right_error: float | None
    training: BatchScatter
    evaluation: BatchScatter
    dropout: DropoutEffect | None
    memory: float | None
    origin: TrainingData | None

    @property
    def noise(self) -> float | None:
        """What chance gives the predicted error at most; None for one batch, or if not known."""
        return self.chance if self.batches > 1 and math.isfinite(self.chance) else None

    @property
    def z_max(self) -> float | None:
        """The largest |z| of the channels."""
        return _known(np.abs(self.z).max())

    @property
    def z_median(self) -> float | None:
        """The median |z| of the channels."""
        return _known(np.median(np.abs(self.z)))

    @property
    def var_ratio_min(self) -> float | None:
        """The least ratio of variances."""
        return _known(self.var_ratio.min())

    @property
    def var_ratio_max(self) -> float | None:
        """The largest ratio of variances."""
        return _known(self.var_ratio.max())

    @property
    def worst_channel(self) -> int:
        """The channel whose output is furthest off; a NaN counts as nothing."""
        return int(np.argmax(np.nan_to_num(self.channel_error, nan=-1.0)))

    @property
    def error(self) -> float:
        """The predicted error; 0 where it is not known."""
        return self.predicted_error or 0.0

    @property
    def blamed(self) -> bool:
        """Whether the predicted error is beyond noise, and large enough to matter."""
        return self.error > max(BLAMED, self.chance)

    @property
    def stored_wrong(self) -> bool:
        """Whether the stored numbers are not those that running statistics estimate."""
        return (self.right_error or 0.0) > max(BLAMED, self.bound)


def measures(capture: Capture, train_batch_size: float | None = None) -> tuple[LayerMeasure, ...]:
    """The measures of all layers that have statistics and saw data, in their order."""
    source = capture.input
    record = None if source is None else first_seen(source, EVALUATED)
    return tuple(
        layer_measure(layer, train_batch_size, record)
        for layer in capture.norms
        if layer.num_features and has_statistics(layer) and first_seen(layer, JUDGED_IN) is not None
    )


def has_statistics(layer: WatchedLayer) -> bool:
    """Whether a layer has running statistics, of as many channels as it has."""
    state = layer.state
    if state is None or state.running_mean is None or state.running_var is None:
        return False
    return len(state.running_mean) == len(state.running_var) == layer.num_features


def layer_measure(
    layer: WatchedLayer, train_batch_size: float | None = None, record: InputSums | None = None
) -> LayerMeasure:
    """The measures of a layer with statistics; `record` is what came into the model."""
    state, seen, evaluated = layer.state, first_seen(layer, JUDGED_IN), first_seen(layer, EVALUATED)
    assert state is not None
    assert state.running_mean is not None
    assert state.running_var is not None
    assert seen is not None
    assert evaluated is not None
    mean = np.asarray(state.running_mean, np.float64)
    stored = np.asarray(state.running_var, np.float64) + layer.eps
    weight = np.ones(len(mean)) if state.weight is None else np.abs(state.weight.astype(np.float64))
    with np.errstate(all="ignore"):
        # InstanceNorm normalises every sample by itself: how they differ is no part of it.
        var = seen.within / seen.values if layer.per_sample else seen.var
        z = (seen.mean - mean) / np.sqrt(stored)
        ratio = (var + layer.eps) / stored
        error = _channel_error(weight, z, ratio)
        right = _channel_error(
            weight,
            (seen.mean_of_batches - mean) / np.sqrt(stored),
            (seen.batch_var + layer.eps) / stored,
        )
        chance, bound = expected_noise(layer, seen, stored, weight, train_batch_size)
        return LayerMeasure(
            name=layer.name,
            order=layer.order,
            num_features=layer.num_features,
            values=seen.values,
            batches=seen.batches,
            samples=seen.samples,
            judged_in=next(each for each in JUDGED_IN if each in layer.seen),
            frozen=layer.frozen,
            per_sample=layer.per_sample,
            var=var,
            stored_var=stored - layer.eps,
            z=z,
            var_ratio=ratio,
            channel_error=error,
            predicted_error=_rms(error),
            chance=chance,
            bound=bound,
            right_error=_rms(right),
            training=batch_scatter(seen),
            evaluation=batch_scatter(evaluated),
            dropout=dropout_effect(layer, stored),
            memory=_memory(seen, mean, train_batch_size),
            origin=training_data(layer, seen, mean, stored, record),
        )


def worst(found: Sequence[LayerMeasure]) -> LayerMeasure | None:
    """The layer with the largest predicted error; None where none is known."""
    known = [each for each in found if each.predicted_error is not None]
    return max(known, key=lambda each: each.error, default=None)


def _channel_error(weight: FloatArray, z: FloatArray, ratio: FloatArray) -> FloatArray:
    """How far off each channel's output is."""
    error: FloatArray = weight * np.sqrt(np.square(z) + np.square(np.sqrt(ratio) - 1))
    return error


def _memory(seen: InputSums, mean: FloatArray, train_batch_size: float | None) -> float | None:
    """The stored mean's squared distance over the batch means' variance, the median channel's."""
    if seen.batches < 2:
        return None
    scatter = seen.batch_mean_squares / (seen.batches - 1) * rescaled(seen, train_batch_size)
    scatter = np.maximum(scatter, LEAST_SCATTER**2 * seen.var)
    ratio = np.square(seen.mean_of_batches - mean) / scatter
    known = ratio[np.isfinite(ratio)]
    if not len(known):
        return None
    median_of_chi_square = 0.455  # with one degree of freedom
    return max(0.0, float(np.median(known)) / median_of_chi_square - 1 / seen.batches)


def _rms(values: FloatArray) -> float | None:
    """The root mean square; None where any of the values is not finite."""
    return _known(np.sqrt(np.square(values).mean()))


def _known(value: np.floating) -> float | None:
    return float(value) if np.isfinite(value) else None
