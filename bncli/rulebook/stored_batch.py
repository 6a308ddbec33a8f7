"""BN013: whether a batch is one that the stored statistics describe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.report import Finding, Severity
from bncli.rulebook.interface import Rule, name_channels
from bncli.running_stats.chance import t_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bncli.model import BatchNormSettings, ChannelStats, FloatArray, RunningStats
    from bncli.model.samples import SampleSums

OFF_STORED = Rule(
    "BN013",
    "off-stored-statistics",
    Severity.WARNING,
    "the batch differs from the stored statistics by more than chance would explain",
    "Check that the batch comes from the data the layer is meant for. If it does, re-estimate the "
    "running statistics over such batches.",
    symptom="The model is good in training and bad in evaluation, or good on one data set only.",
    arithmetic="Evaluation's output is off by (mean - running_mean)/sqrt(running_var + eps) in its "
    "mean, and by the factor sqrt((var + eps)/(running_var + eps)) in its scale. The standard "
    "errors come from the means and variances of the samples (axis 0), not from single values, "
    "which are alike within a sample. To allow for noise in the running statistics themselves, "
    "momentum/(2 - momentum) times the variance of a batch's statistics is added, for a batch of "
    "this size or of 32 samples, whichever is smaller. A channel is reported if its Student's t "
    "exceeds the level that chance exceeds once in a million (less often if there are many "
    "channels) and the output is off by more than 10% of the layer's scale.",
    certainty="Certain, apart from rare coincidences, that the stored statistics do not describe "
    "the data in this batch. The numbers do not show which of the two is wrong; comparing "
    "checkpoints of the same run shows when the statistics changed.",
    lookalike="A batch of one class, one video or one scanner differs too, and so do a batch with "
    "different preprocessing, and a channel that only a few samples activate, if none of those is "
    "in this batch. Padding that took part in the statistics, a few outlier batches in training, "
    "and statistics that were scaled in a conversion look the same.",
)

CHANCE = 1e-6
"""The probability, at most, that a channel of a healthy batch is reported."""

CHANCE_OF_ALL = 1e-5
"""The same for any of the layer's channels."""

WORST_ERROR = 0.1
"""The predicted error of the output above which it is reported, as a share of the layer's scale."""

LARGEST_BATCH = 32
"""How many samples a batch in training is taken to have had at most."""

HEAVY = 2.2
"""From here on samples are heavy-tailed, and a batch may miss those that make the variance: the
standard deviation of their squares over the mean of these, 1.4 for normal samples of one value."""

MOST_SHOWN = 0.6
"""The same for a few samples, over the root of their number, which is the most they can show."""

FEWEST_BEARERS = 3.0
"""How many samples must bear a variance above the stored one: a single one may be an outlier."""

SURE_TO_BE_SEEN = 14.0
"""How many such samples a batch must be expected to hold, not to miss all: exp(-14) is 1e-6."""


@dataclass(frozen=True, slots=True)
class _Noise:
    """What chance leaves; every array is of shape (num_features,).

    `mean` is the standard error of the batch's mean, and `var` that of its variance, divided by
    that variance; both include the noise of the running statistics. `var_below` takes the place of
    `var` where the variance is below the stored one. Either is Inf where chance may explain a
    difference of any size. `border` is the multiple of them that chance leaves.
    """

    mean: FloatArray
    var: FloatArray
    var_below: FloatArray
    border: FloatArray

    @classmethod
    def of(
        cls, stats: ChannelStats, running_var: FloatArray, units: SampleSums, moving: float
    ) -> _Noise:
        """From `units` that are independent of each other: the samples, or whole inputs.

        `moving` is the variance of a running mean over that of a unit's mean.
        """
        channels, freedom = stats.num_features, units.number - 1
        var = stats.var
        alone = 1 / units.effective
        # Units that happen to be alike are at least as noisy as independent values.
        size = stats.count / units.number
        between = np.maximum(units.mean_variance, var / size)
        # What the batch lacks of the stored variance may be variance between units.
        between += np.maximum(running_var - var, 0.0)
        mean = np.sqrt(between * (alone + moving))
        squares = np.maximum(units.square_variance, 2 * var**2 / size)
        # The squares of two or three units tell little: at least what normal means would scatter.
        least = units.inner_variance * alone + 2 * units.mean_variance**2 / freedom
        relative = np.sqrt(np.maximum(squares * alone, least) + squares * moving) / var
        # A channel that misses its rare large samples looks calm: the layer's most heavy-tailed
        # channel shows what its samples are like.
        tail = np.sqrt(squares) / var
        alive = np.isfinite(relative) & (var > 0)
        heaviest = float(np.max(tail[alive], initial=0.0))
        heavy = min(HEAVY, MOST_SHOWN * units.number**0.5)
        blind = heaviest > heavy and units.number < SURE_TO_BE_SEEN * heaviest**2
        below = np.inf if blind else float(np.max(relative[alive], initial=0.0))
        border = t_quantile(min(CHANCE, CHANCE_OF_ALL / channels), freedom)
        bearers = units.number / (1 + tail**2)
        relative = np.where(bearers < FEWEST_BEARERS, np.inf, relative)
        return cls(mean, relative, np.full(channels, below), np.full(channels, border))

    def where(self, chosen: NDArray[Any], other: _Noise) -> _Noise:
        """This noise in the channels `chosen`, and the other in the rest."""
        return _Noise(
            np.where(chosen, self.mean, other.mean),
            np.where(chosen, self.var, other.var),
            np.where(chosen, self.var_below, other.var_below),
            np.where(chosen, self.border, other.border),
        )


def stored_batch_findings(
    stats: ChannelStats,
    running: RunningStats,
    weight: FloatArray | None,
    settings: BatchNormSettings,
    parts: Sequence[ChannelStats] | SampleSums,
    sorted_ones: NDArray[Any] | None,
) -> list[Finding]:
    """Whether the batch `stats`, whose samples are known, differs from what evaluation uses.

    It came as one input or several, `parts`, or as the sums over these, each taken as one sample.
    `sorted_ones` (num_features,) is the mask of channels
    in which the inputs are not shuffled: there the inputs, and not their samples, are independent
    of each other.
    """
    samples, eps = stats.samples, settings.eps
    if samples is None or samples.number < 2:
        return []
    with np.errstate(all="ignore"):
        noise = _noise(stats, running.running_var, settings.momentum, parts, sorted_ones)
        off = _Off.of(stats, running, eps, noise)
        error = off.error(weight)
        # A channel of equal values has no noise to exceed; BN009 reports it.
        usable = np.isfinite(running.running_var) & (running.running_var >= 0) & (stats.var > 0)
        found = np.flatnonzero((error > WORST_ERROR) & usable)
    if not found.size:
        return []
    worst = int(found[np.argmax(error[found])])
    channels = found.tolist()
    return [
        OFF_STORED.finding(
            name_channels(channels, stats.num_features),
            off.said(worst) + (f" (channel {worst})" if len(channels) > 1 else ""),
            {
                "channels": channels,
                "mean_off_in_std": off.mean[found].tolist(),
                "z_mean": off.z_mean[found].tolist(),
                "standard_error_mean": noise.mean[found].tolist(),
                "var_ratio": off.var_ratio[found].tolist(),
                "z_var": off.z_var[found].tolist(),
                "standard_error_var": off.se_var[found].tolist(),
                "predicted_error": error[found].tolist(),
                "samples": samples.number,
                "border": float(noise.border[worst]),
            },
            detail=f"{off.errors(worst)} The output is off by {error[worst]:.2g} times the "
            f"layer's scale there. {len(channels)} of {stats.num_features} channels are off.",
            places=("channels",),
        )
    ]


def _noise(
    stats: ChannelStats,
    running_var: FloatArray,
    momentum: float | None,
    parts: Sequence[ChannelStats] | SampleSums,
    sorted_ones: NDArray[Any] | None,
) -> _Noise:
    """What chance leaves, by samples; in the channels `sorted_ones`, by the inputs `parts`."""
    from bncli.model.samples import SampleSums

    assert stats.samples is not None
    # The variance of a moving average of independent batches, over that of one of them.
    moving = momentum / (2 - momentum) if momentum is not None and 0 < momentum < 2 else 0.0
    number = parts.number if isinstance(parts, SampleSums) else len(parts)
    size = min(stats.samples.number / number, LARGEST_BATCH)
    noise = _Noise.of(stats, running_var, stats.samples, moving / size)
    if sorted_ones is None or not sorted_ones.any():
        return noise
    inputs = parts if isinstance(parts, SampleSums) else _inputs(stats, parts)
    return _Noise.of(stats, running_var, inputs, moving).where(sorted_ones, noise)


@dataclass(frozen=True, slots=True)
class _Off:
    """How far a batch is from the stored statistics; every array is of shape (num_features,).

    `mean` is in stored standard deviations, `scale` the factor by which evaluation's output is off,
    less 1. `z_mean` and `z_var` are in standard errors, the latter of log `var_ratio`, which has
    the standard error `se_var`. `mean_is_off` and `var_is_off` say where that is more than chance
    leaves.
    """

    mean: FloatArray
    z_mean: FloatArray
    mean_is_off: NDArray[Any]
    scale: FloatArray
    var_ratio: FloatArray
    z_var: FloatArray
    se_var: FloatArray
    var_is_off: NDArray[Any]

    @classmethod
    def of(cls, stats: ChannelStats, running: RunningStats, eps: float, noise: _Noise) -> _Off:
        """The batch compared with the stored statistics, and the difference with the noise."""
        running_var = running.running_var
        std = np.sqrt(running_var + eps)
        off = (stats.shift - running.running_mean + stats.offset) / std
        z_mean = off * std / noise.mean
        ratio = (stats.unbiased_var + eps) / (running_var + eps)
        var_ratio = stats.unbiased_var / running_var
        se_var = np.where(var_ratio < 1, noise.var_below, noise.var)
        z_var = np.log(var_ratio) / se_var
        mean_is_off, var_is_off = (np.abs(z) > noise.border for z in (z_mean, z_var))
        scale = np.sqrt(ratio) - 1
        return cls(off, z_mean, mean_is_off, scale, var_ratio, z_var, se_var, var_is_off)

    def error(self, weight: FloatArray | None) -> FloatArray:
        """The error of the output where it is not chance, as a share of the layer's scale."""
        error: FloatArray = np.hypot(self.mean_is_off * self.mean, self.var_is_off * self.scale)
        if weight is not None:
            error = error * np.abs(weight) / np.sqrt(np.mean(np.square(weight)))
        return error

    def said(self, channel: int) -> str:
        """What is off in a channel, with its numbers."""
        said = []
        if self.mean_is_off[channel]:
            off = self.mean[channel]
            side = "above" if off > 0 else "below"
            said.append(f"the mean is {abs(off):.3g} std {side} running_mean")
        if self.var_is_off[channel]:
            said.append(f"the variance is {self.var_ratio[channel]:.3g} times running_var")
        return " and ".join(said)

    def errors(self, channel: int) -> str:
        """How many standard errors that is, in a sentence."""
        said = []
        if self.mean_is_off[channel]:
            said.append(f"{abs(self.z_mean[channel]):.3g} standard errors of the mean")
        if self.var_is_off[channel]:
            z = abs(self.z_var[channel])
            said.append(f"{z:.3g} standard errors of the variance's logarithm")
        return f"That is {' and '.join(said)}."


def _inputs(stats: ChannelStats, parts: Sequence[ChannelStats]) -> SampleSums:
    """The inputs, each as if it were one sample."""
    from bncli.model.samples import SampleSums, power_sums

    mean = np.array([(part.shift - stats.shift) + (part.offset - stats.offset) for part in parts])
    squares = sum(part.count**2 for part in parts)
    sums = power_sums(mean, np.array([part.var for part in parts]))
    return SampleSums(len(parts), stats.count**2 / squares, sums)
