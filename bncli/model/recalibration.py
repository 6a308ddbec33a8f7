"""New running statistics for the layers of a model, and what they do to its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import Enum
from typing import TYPE_CHECKING

from bncli.light import dataclass, np
from bncli.model.capture import Capture

if TYPE_CHECKING:
    from bncli.model.arrays import FloatArray
    from bncli.model.layers import BatchNormState


class Average(str, Enum):
    """What becomes of many batches.

    POPULATION is the mean and variance of all values, within the batches and between them. BATCHES
    are the unweighted means of the batches' means and variances, as
    `torch.optim.swa_utils.update_bn` leaves them. EMA goes on from the stored statistics batch by
    batch, as training with a momentum does.
    """

    POPULATION = "population"
    BATCHES = "batches"
    EMA = "ema"


class Goal(str, Enum):
    """Which value of a metric is better: nearer to that of training, more, or less."""

    TRAINING = "training"
    MAX = "max"
    MIN = "min"


@dataclass(frozen=True, slots=True)
class LayerChange:
    """One layer's new running statistics beside its old ones; arrays of shape (num_features,).

    `mean` and `var` are float64, before they are rounded to the buffer's dtype; `state` is the
    layer as it was. `values` counts the values of a channel that they are from, `samples` the
    indices of the batch axis, `batches` the calls. `error` is the standard error of each new mean,
    as the samples scatter within their batches, in standard deviations of the channel (0 where the
    variance is 0). `average` is what became of the batches.
    """

    name: str
    state: BatchNormState
    mean: FloatArray
    var: FloatArray
    values: int
    samples: int
    batches: int
    error: FloatArray
    average: Average = Average.POPULATION

    @property
    def z(self) -> FloatArray:
        """(mean - running_mean) / sqrt(var + eps): how far the mean moves, in new std."""
        if self.state.running_mean is None:
            return np.full(len(self.mean), np.nan)
        old = np.asarray(self.state.running_mean, np.float64)
        with np.errstate(all="ignore"):
            return (self.mean - old) / np.sqrt(self.var + self.eps)

    @property
    def var_ratio(self) -> FloatArray:
        """(var + eps) / (running_var + eps): new over old."""
        if self.state.running_var is None:
            return np.full(len(self.var), np.nan)
        old = np.asarray(self.state.running_var, np.float64)
        with np.errstate(all="ignore"):
            return (self.var + self.eps) / (old + self.eps)

    @property
    def moved(self) -> FloatArray:
        """How far the statistics move, in standard deviations; doubling counts as halving.

        Half the logarithm of the variances' ratio is that of the standard deviations'.
        """
        with np.errstate(all="ignore"):
            moved: FloatArray = np.hypot(self.z, np.log(self.var_ratio) / 2)
        return moved

    @property
    def eps(self) -> float:
        """The layer's eps; 1e-5 where it is not known."""
        module = self.state.module
        return 1e-5 if module is None or module.eps is None else module.eps

    @property
    def standard_error(self) -> float:
        """The largest standard error of a channel's mean, in standard deviations."""
        finite = self.error[np.isfinite(self.error)]
        return float(finite.max()) if finite.size else float("nan")


@dataclass(frozen=True, slots=True)
class Recalibration:
    """New running statistics, layer by layer in the order of execution, and their effect.

    `left` says of every other BatchNorm layer why it stays as it is: "frozen", "not chosen", "no
    batch reaches it", "no running statistics". `rounds` is how many passes it took to find the
    statistics, and `settled` whether none moves any more. `capture` is what the model, or the
    statistics file, showed.

    The rest is measured on a running model, and None where that was not done or cannot be known:
    the outputs' gap between the training and the eval propagation with the old statistics, with
    the new ones, rounded as the buffers hold them, and with statistics found anew in all layers
    (the floor). `metrics` has the user's number as "training", "before" and "after"; and as
    "chance" that of outputs which are paired with the wrong samples, beside "right", that of the
    same outputs with their own, where these two differ clearly.
    """

    layers: tuple[LayerChange, ...]
    left: Mapping[str, str] = field(default_factory=dict)
    rounds: int = 1
    settled: bool = True
    capture: Capture = field(default_factory=lambda: Capture(()))
    gap_before: float | None = None
    gap_after: float | None = None
    gap_floor: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    checked: bool = False
