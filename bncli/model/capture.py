"""What the BatchNorm layers of a model saw while it ran, and how far its outputs are apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import Enum
from math import inf, isfinite, sqrt
from typing import TYPE_CHECKING

from bncli.light import dataclass, np
from bncli.model.layers import BatchNormState
from bncli.model.part import Part

if TYPE_CHECKING:
    from bncli.model.arrays import FloatArray, IntArray
    from bncli.report import Value


class Propagation(str, Enum):
    """How the BatchNorm layers normalise while the model runs; all else is in evaluation mode.

    TRAINING normalises with each batch, EVAL as evaluation does, AS_TRAINED as TRAINING with
    dropout on, and RENEWED as EVAL with statistics that were found anew in all layers.
    """

    TRAINING = "training"
    EVAL = "eval"
    AS_TRAINED = "as-trained"
    RENEWED = "renewed"


@dataclass(frozen=True, slots=True)
class InputSums:
    """What one layer's input was over some batches, in sums that merge; arrays (num_features,).

    `values` counts the values of a channel, `samples` the indices of the batch axis, and `batches`
    the calls. The mean is `shift` + `offset`, two float64 numbers. `within` is the sum of the
    squared deviations from the batch's mean, `between` that of the batches' means from the mean,
    each batch weighted by its values, and `sample_squares` that of the samples' means from their
    batch's mean, each sample counted once. `sample_mean` is the mean of the samples' means less
    `shift`, and `sample_between` the sum of the squared deviations of the batches' means from it,
    each batch weighted by its samples: what `offset` and `between` are where all samples have the
    same number of values, but for the weights.

    The batches themselves scatter by `batch_mean`, the unweighted mean of their means less `shift`,
    and `batch_mean_squares`, the squared deviations from it added up; `batch_var` and
    `batch_var_squares` say the same of their unbiased variances (of batches with more than one
    value a channel, `batches_with_var`).

    `min` and `max` are over the finite values, NaN where there are none; `at_min`, `at_max` and
    `at_zero` count the values that equal them, and 0. `nan`, `posinf` and `neginf` count what is
    not finite. A pass for the moments alone leaves `min` and `max` NaN, and those counts 0.
    """

    values: int
    samples: int
    batches: int
    batches_with_var: int
    shift: FloatArray
    offset: FloatArray
    within: FloatArray
    between: FloatArray
    sample_squares: FloatArray
    sample_mean: FloatArray
    sample_between: FloatArray
    batch_mean: FloatArray
    batch_mean_squares: FloatArray
    batch_var: FloatArray
    batch_var_squares: FloatArray
    min: FloatArray
    max: FloatArray
    at_min: IntArray
    at_max: IntArray
    at_zero: IntArray
    nan: IntArray
    posinf: IntArray
    neginf: IntArray

    @property
    def num_features(self) -> int:
        """The number of channels."""
        return len(self.shift)

    @property
    def mean(self) -> FloatArray:
        """The mean of all values, rounded to one float64."""
        return self.shift + self.offset

    @property
    def var(self) -> FloatArray:
        """The biased variance of all values: within the batches and between them."""
        return (self.within + self.between) / self.values

    @property
    def unbiased_var(self) -> FloatArray:
        """The variance of all values divided by their number less 1; NaN for one value."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return (self.within + self.between) / np.float64(self.values - 1)

    @property
    def mean_of_batches(self) -> FloatArray:
        """The unweighted mean of the batches' means, which running_mean estimates."""
        return self.shift + self.batch_mean


@dataclass(frozen=True, slots=True)
class InputKernel:
    """A convolution or linear layer that reads the model's input, just before a BatchNorm layer.

    `sums` (num_features, in_channels) adds up the kernel's weights over its places, each times the
    share of outputs that see data there and no zeros of padding, so that the mean of the output is
    `sums @ mean of the input` + `bias` where data are alike at the borders. Input channels outside
    an output channel's group have 0. `bias` (num_features,) is None where there is none.
    `padded` says that the convolution pads.
    """

    sums: FloatArray
    bias: FloatArray | None
    padded: bool = False


@dataclass(frozen=True, slots=True)
class WatchedLayer:
    """One layer, its own state and what its input was, propagation by propagation.

    `order` is its place in the order of execution; the model's input has 0, the name "input" and
    no `state`. `state.module` is always there for a layer. `calls` is how often a forward pass
    calls it at most. `frozen` says that it stays as it is in every propagation, and
    `in_training` that it is in training mode after `model.eval()` (or in a model that came in
    evaluation mode). `per_sample` marks InstanceNorm, whose batches are the samples.
    """

    name: str
    order: int
    num_features: int
    state: BatchNormState | None = None
    frozen: bool = False
    in_training: bool = False
    calls: int = 1
    per_sample: bool = False
    kernel: InputKernel | None = None
    seen: Mapping[Propagation, InputSums] = field(default_factory=dict)

    @property
    def eps(self) -> float:
        """The layer's eps; 1e-5 where its class has none."""
        module = self.state.module if self.state is not None else None
        return 1e-5 if module is None or module.eps is None else module.eps


@dataclass(frozen=True, slots=True)
class OutputSums:
    """One floating-point tensor of the model's output, in sums that merge; arrays (channels,).

    Channels are those of axis 1, or one where there is no such axis. `count` is the number of
    values of each. `mean` and `squares` (squared deviations from it, added up) are those of the
    training propagation, and `apart` adds up, for every other propagation, the squared differences
    from it.
    """

    name: str
    count: int
    mean: FloatArray
    squares: FloatArray
    apart: Mapping[Propagation, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Capture:
    """What a run of a model over some batches showed.

    `layers` are in the order of execution, the model's input first. `outputs` is empty where the
    output holds no floating-point tensor, or one of the propagations did not run.
    `still_training` names what else is in training mode after `model.eval()`, and `dropout` the
    active dropout layers. `rounds` is how many passes it took to find the statistics anew, None
    where that was not done, and `settled` whether they came to rest; `renewals` says in how many
    captures, of which this one was merged, that was done, each for its own batches. `weights_moved`
    says that weights changed during the capture. `refused_training` is the reason why the training
    propagation could not run, such as one value a channel, and `no_gap` the reason why the outputs
    cannot be compared; `uncalled` names BatchNorm layers that no batch reached, and `left_out` the
    batches of one sample that the training propagation refuses while others run. `source` says
    where all this is from, as a script reads it: model, checkpoint, data, versions, threads, flags.
    `fingerprint` holds CRC-32 sums by name, each missing where it is not known: `weights`, of all
    tensors but running statistics and counters; `running_statistics`; and `checkpoint`, of the
    weights as the checkpoint stores them that the model was loaded from (several, with a space
    between, where captures of the same weights were merged). `part` says which shard of which
    inputs it is. `per_batch` has, where it was asked for, every batch's `count` (batches,), `mean`
    and biased `var` (batches, num_features) of a layer.
    """

    layers: tuple[WatchedLayer, ...]
    outputs: tuple[OutputSums, ...] = ()
    still_training: tuple[str, ...] = ()
    dropout: tuple[str, ...] = ()
    rounds: int | None = None
    settled: bool = True
    renewals: int = 1
    weights_moved: bool = False
    refused_training: str = ""
    no_gap: str = ""
    uncalled: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    source: Mapping[str, Value | Mapping[str, Value]] = field(default_factory=dict)
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    part: Part = Part()
    per_batch: Mapping[tuple[str, Propagation], Mapping[str, FloatArray]] = field(
        default_factory=dict
    )

    @property
    def shard(self) -> tuple[int, int]:
        """(K, N), K from 0."""
        return self.part.k, self.part.n

    @property
    def input(self) -> WatchedLayer | None:
        """The model's input; None where it has no floating-point tensor."""
        return self.layers[0] if self.layers and self.layers[0].state is None else None

    @property
    def norms(self) -> tuple[WatchedLayer, ...]:
        """The layers without the model's input."""
        return tuple(layer for layer in self.layers if layer.state is not None)

    def gap(self, propagation: Propagation) -> float | None:
        """How far the outputs are from the training propagation's: relative, root mean square.

        The root of the squared differences over the training outputs' squared deviations from their
        channel's mean, over all tensors. None where that is not known, or nothing deviates.
        """
        if not self.outputs or any(propagation not in out.apart for out in self.outputs):
            return None
        spread = sum(float(out.squares.sum()) for out in self.outputs)
        apart = sum(out.apart[propagation] for out in self.outputs)
        return sqrt(apart / spread) if isfinite(apart) and 0 < spread < inf else None

    @property
    def gap_floor(self) -> float | None:
        """The gap that is left with statistics found anew in all layers."""
        return self.gap(Propagation.RENEWED)

    @property
    def ratio(self) -> float | None:
        """The gap over its floor; None where either is not known, or the floor is 0."""
        gap, floor = self.gap(Propagation.EVAL), self.gap_floor
        return gap / floor if gap is not None and floor else None

    def closes(self, trial: Trial) -> float | None:
        """The share of the gap above its floor that a trial closes; below 0 where the gap widens.

        What can close is the gap less its floor. None where a gap or the floor is not known, or
        nothing can close.
        """
        gap, floor = self.gap(Propagation.EVAL), self.gap_floor
        if gap is None or floor is None or trial.gap is None or gap <= floor:
            return None
        return (gap - trial.gap) / (gap - floor)


@dataclass(frozen=True, slots=True)
class Trial:
    """One repair, tried on the running model.

    `kind` is "one" (statistics found anew in one layer), "all but one", "first" (in the first k
    layers in order), "all", or "input" (the input mapped, such as divided by 255). `what` says it
    for people, to stand behind "with the data's statistics in" or, of an input, "with the":
    "b3 alone", "all but b3", "the first 2 of 5 layers", "all 5 layers", "input divided by 255".
    `layers` names the layers that had new statistics, `gap` is the gap then, and `metric` the
    user's number, if there is one. `numbers` holds an input's map, one number for each channel:
    the new input is `scale` times the old one plus `shift`; or `order`, the channels' new order.
    """

    kind: str
    what: str
    layers: tuple[str, ...]
    gap: float | None
    metric: float | None = None
    numbers: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trials:
    """What was tried, and the user's metric in the propagations, if there is one.

    `metrics` has "training", "eval" and "renewed" (found anew in all layers), as far as they ran.
    """

    trials: tuple[Trial, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def input_map(self) -> Trial | None:
        """The simplest map of the input among those that close most: a gap within 10% of the least.

        None where no map was tried. Whether it closes the gap, `Capture.closes` says.
        """
        known = [each for each in self.trials if each.kind == "input" and each.gap is not None]
        least = min((each.gap for each in known if each.gap is not None), default=0.0)
        return next((each for each in known if (each.gap or 0.0) <= 1.1 * least), None)
