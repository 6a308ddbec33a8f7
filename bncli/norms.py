"""LayerNorm, InstanceNorm, GroupNorm and RMSNorm beside BatchNorm: one tensor, five statistics.

Samples lie on axis 0. Each norm is y = (x - mean) / sqrt(var + eps) with the biased variance; they
differ in the axes that mean and var reduce (Wu and He, "Group Normalization", 2018, figure 2).
RMSNorm (Zhang and Sennrich, 2019) subtracts nothing and has the mean square for the variance.
"""

from __future__ import annotations

from dataclasses import replace
from math import isnan, prod
from typing import TYPE_CHECKING, Any

from bncli.batchnorm import BLOCK_ELEMENTS
from bncli.light import dataclass, np
from bncli.moments import channel_stats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from bncli.model import ChannelStats, FloatArray

BATCH, LAYER, INSTANCE, GROUP, RMS = (
    "BatchNorm",
    "LayerNorm",
    "InstanceNorm",
    "GroupNorm",
    "RMSNorm",
)
"""PyTorch's names, in the order of a report."""

MOST_GROUPS = 32
"""The number of groups that GroupNorm's authors use."""


@dataclass(frozen=True, slots=True)
class Norm:
    """One normalisation of a tensor of shape `shape`.

    `axes` are reduced, each channel group by itself where `groups` is not None. `refused` says why
    PyTorch does not run it on this shape. `eps_given` is False where eps is the module's default.
    """

    name: str
    shape: tuple[int, ...]
    channel_axis: int
    axes: tuple[int, ...]
    groups: int | None
    affine_shape: tuple[int, ...]
    eps: float
    eps_given: bool
    refused: str = ""

    @property
    def kept(self) -> tuple[int, ...]:
        """The shape of the statistics beside the tensor: 1 for each axis that is reduced."""
        return self.kept_by(self.shape)

    def kept_by(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """`kept` for a tensor of this shape, which differs in the number of samples alone."""
        kept = [1 if axis in self.axes else size for axis, size in enumerate(shape)]
        if self.groups is not None:
            kept[self.channel_axis] = self.groups
        return tuple(kept)

    @property
    def statistics_shape(self) -> tuple[int, ...]:
        """The shape of mean and var: (N, G) for GroupNorm, and the axes not reduced for others."""
        held = set(range(len(self.shape))) - set(self.axes)
        if self.groups is not None:
            held.add(self.channel_axis)
        return tuple(self.kept[axis] for axis in sorted(held))

    @property
    def count(self) -> int:
        """The number of values in each statistic."""
        return prod(self.shape) // prod(self.kept)

    @property
    def spans_samples(self) -> bool:
        """Whether each statistic spans several samples: BatchNorm's do, and those over all axes."""
        return self.axes[:1] == (0,)

    @property
    def subtracts_mean(self) -> bool:
        """Whether the mean is subtracted."""
        return self.name != RMS

    @property
    def normalized_shape(self) -> tuple[int, ...]:
        """PyTorch's argument of that name: the sizes of the reduced axes."""
        return tuple(self.shape[axis] for axis in self.axes)


@dataclass(frozen=True, slots=True)
class NormStatistics:
    """The statistics of a norm over some samples, float64 arrays in the shape `Norm.kept`.

    The mean is `shift + offset`, as in `ChannelStats`; `var` is what stands under the root: the
    biased variance, or for RMSNorm the mean square, with a mean of 0. `min` and `max` are over
    the finite values of each.
    """

    norm: Norm
    shift: FloatArray
    offset: FloatArray
    var: FloatArray
    min: FloatArray
    max: FloatArray

    @property
    def mean(self) -> FloatArray:
        """The mean that is subtracted, rounded to one float64."""
        return self.shift + self.offset

    @property
    def invstd(self) -> FloatArray:
        """1/sqrt(var + eps)."""
        inverse: FloatArray = 1.0 / np.sqrt(self.var + self.norm.eps)
        return inverse

    def at(self, values: FloatArray, block: tuple[slice, ...]) -> FloatArray:
        """What of `values`, in the shape `Norm.kept`, broadcasts against this block."""
        norm = self.norm
        part = values[
            tuple(slice(None) if axis in norm.axes else block[axis] for axis in range(values.ndim))
        ]
        if norm.groups is None:
            return part
        channels = block[norm.channel_axis]
        size = norm.shape[norm.channel_axis] // norm.groups
        return part.take(np.arange(channels.start, channels.stop) // size, axis=norm.channel_axis)

    def output(self, x: NDArray[Any], block: tuple[slice, ...]) -> FloatArray:
        """The norm's output for the block `x` of the tensor, weight 1 and bias 0, float64."""
        with np.errstate(invalid="ignore", over="ignore"):
            y = x.astype(np.float64)
            y -= self.at(self.shift, block)
            y -= self.at(self.offset, block)
            y *= self.at(self.invstd, block)
        return y


def describe(
    shape: tuple[int, ...],
    channel_axis: int,
    *,
    groups: int,
    normalized: int,
    eps: float | None,
    rms_eps: float,
) -> tuple[Norm, ...]:
    """The five norms of a tensor of this shape.

    `groups` divides the channels. LayerNorm and RMSNorm reduce the last `normalized` axes. `eps`
    is for all of them; None stands for each module's default: 1e-5, and `rms_eps` for RMSNorm.
    """
    ndim = len(shape)
    channels = shape[channel_axis]
    spatial = tuple(axis for axis in range(1, ndim) if axis != channel_axis)
    values = prod(shape[axis] for axis in spatial)
    trailing = tuple(range(ndim - normalized, ndim))
    normalized_shape = tuple(shape[axis] for axis in trailing)

    def norm(
        name: str,
        axes: tuple[int, ...],
        affine_shape: tuple[int, ...],
        default_eps: float = 1e-5,
        groups: int | None = None,
        refused: str = "",
    ) -> Norm:
        return Norm(
            name=name,
            shape=shape,
            channel_axis=channel_axis,
            axes=axes,
            groups=groups,
            affine_shape=affine_shape,
            eps=default_eps if eps is None else eps,
            eps_given=eps is not None,
            refused=refused,
        )

    one_value = "one value a statistic: PyTorch refuses to train on it"
    no_space = "undefined: one value a statistic, and PyTorch refuses it"
    one_group = "one value in all: PyTorch refuses it"
    return (
        norm(BATCH, (0, *spatial), (channels,), refused=one_value * (shape[0] * values == 1)),
        norm(LAYER, trailing, normalized_shape),
        norm(INSTANCE, spatial, (channels,), refused=no_space * (values == 1)),
        norm(
            GROUP,
            tuple(range(1, ndim)),
            (channels,),
            groups=groups,
            # PyTorch looks at N * C / groups, so that it lets the same groups pass in a batch.
            refused=one_group * (shape[0] * (channels // groups) * values == 1),
        ),
        norm(RMS, trailing, normalized_shape, default_eps=rms_eps),
    )


def default_groups(channels: int) -> int:
    """The most groups up to `MOST_GROUPS` that divide the channels into two or more each; or 1."""
    fitting = (g for g in range(min(MOST_GROUPS, channels // 2), 1, -1) if channels % g == 0)
    return next(fitting, 1)


def norm_statistics(norm: Norm, x: NDArray[Any]) -> NormStatistics:
    """The statistics of the samples `x`: any number of them, in the tensor's axes.

    `x` holds floats (bfloat16 as float32). BatchNorm's are those of these samples as a batch.
    """
    if norm.spans_samples:
        return of_channels(norm, channel_stats(x, norm.channel_axis))
    parts = [_rows_statistics(norm, x[samples]) for samples in chunks(x.shape)]
    return parts[0] if len(parts) == 1 else _stacked(norm, parts)


def of_channels(norm: Norm, stats: ChannelStats) -> NormStatistics:
    """A batch's statistics, by channel, as those of a norm that reduces over the samples.

    That is BatchNorm, or a norm with one statistic in all, of which every channel is a part.
    """
    if norm.name != BATCH:
        stats = _as_one_channel(stats)
    return _laid_out(norm, stats, norm.kept)


def chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Cut the samples into runs of at most `BLOCK_ELEMENTS` elements, but of one at least."""
    step = max(1, BLOCK_ELEMENTS // max(1, prod(shape[1:])))
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def largest_change(before: NormStatistics, after: NormStatistics) -> float | None:
    """The largest |change| of an output from one to the other, over the values behind `after`.

    The output is an affine image of the input wherever the statistics are the same ones, so that
    the change is largest at a statistic's least or greatest value. None where none is a number.
    """
    largest = None
    with np.errstate(invalid="ignore", over="ignore"):
        for x in (after.min, after.max):
            old = ((x - before.shift) - before.offset) * before.invstd
            new = ((x - after.shift) - after.offset) * after.invstd
            change = float(np.fmax.reduce(np.abs(new - old), axis=None))
            if not isnan(change):
                largest = change if largest is None else max(largest, change)
    return largest


def samples_noise(
    stats: ChannelStats,
    shape: tuple[int, ...],
    channel_axis: int,
    read: Callable[[slice], NDArray[Any]],
) -> tuple[FloatArray, FloatArray]:
    """The standard errors of a batch's mean and var, each of shape (num_features,).

    They are the jackknife's, which leaves out one sample at a time (for var to first order, Efron
    1982): unlike those of independent values, they feel that a sample's values go together. `read`
    gives the values of some samples, and `shape` has two samples at least.
    """
    per_sample = Norm("", shape, channel_axis, _spatial(shape, channel_axis), None, (), 0.0, True)
    mean_squares, var_squares = np.zeros((2, stats.num_features))
    samples = shape[0]
    with np.errstate(invalid="ignore", over="ignore"):
        for chunk in chunks(shape):
            each = _rows_statistics(per_sample, read(chunk))
            rows = [
                np.moveaxis(values, channel_axis, 1).reshape(-1, stats.num_features)
                for values in (each.shift, each.offset, each.var)
            ]
            apart = (rows[0] - stats.shift) + (rows[1] - stats.offset)
            mean_squares += (apart**2).sum(0)
            var_squares += ((rows[2] + apart**2 - stats.var) ** 2).sum(0)
        scale = samples * (samples - 1)
        return np.sqrt(mean_squares / scale), np.sqrt(var_squares / scale)


def _spatial(shape: tuple[int, ...], channel_axis: int) -> tuple[int, ...]:
    """The axes of neither samples nor channels."""
    return tuple(axis for axis in range(1, len(shape)) if axis != channel_axis)


def _rows_statistics(norm: Norm, x: NDArray[Any]) -> NormStatistics:
    """The statistics of a norm that keeps samples apart: a row of values for each of them."""
    kept = norm.kept_by(x.shape)
    held = [axis for axis in range(x.ndim) if axis not in norm.axes]
    if norm.groups is not None:
        held.append(norm.channel_axis)
    order = (*held, *(axis for axis in range(x.ndim) if axis not in held))
    return _laid_out(norm, channel_stats(x.transpose(order).reshape(prod(kept), -1), 0), kept)


def _as_one_channel(stats: ChannelStats) -> ChannelStats:
    """The statistics of all values together."""
    shift = stats.shift[:1]
    with np.errstate(invalid="ignore", over="ignore"):
        apart = (stats.shift - shift) + stats.offset
        offset = apart.mean(keepdims=True)
        var = (stats.var + (apart - offset) ** 2).mean(keepdims=True)
    return replace(
        stats,
        count=stats.count * stats.num_features,
        shift=shift,
        offset=offset,
        var=var,
        min=np.fmin.reduce(stats.min, keepdims=True),
        max=np.fmax.reduce(stats.max, keepdims=True),
        nan=stats.nan.sum(keepdims=True),
        posinf=stats.posinf.sum(keepdims=True),
        neginf=stats.neginf.sum(keepdims=True),
        first_nonfinite=(next(filter(None, stats.first_nonfinite), None),),
        third=None,
        fourth=None,
    )


def _laid_out(norm: Norm, stats: ChannelStats, kept: tuple[int, ...]) -> NormStatistics:
    """`ChannelStats` of one channel a statistic in the shape `kept`."""
    shift, offset, var = stats.shift, stats.offset, stats.var
    if not norm.subtracts_mean:
        with np.errstate(over="ignore", invalid="ignore"):
            square = (shift + offset) ** 2 + var
        var = np.where((stats.inf > 0) & (stats.nan == 0), np.inf, square)
        shift = offset = np.zeros_like(var)
    return NormStatistics(
        norm, *(values.reshape(kept) for values in (shift, offset, var, stats.min, stats.max))
    )


def _stacked(norm: Norm, parts: list[NormStatistics]) -> NormStatistics:
    """The statistics of runs of samples, one after the other."""
    return NormStatistics(
        norm,
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("shift", "offset", "var", "min", "max")
        ),
    )
