"""Batch normalisation forward and backward, in float64.

Arrays keep the axes of the user's tensor; a per-channel array has shape (num_features,) and is
laid along the channel axis with `along`. Work on whole tensors goes block by block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from bncli.model import BatchNormSettings, ChannelStats, FloatArray, RunningStats

BLOCK_ELEMENTS = 1 << 20
"""Elements worked on at a time: 8 MiB as float64, so that memory does not grow with the tensor."""


@dataclass(frozen=True, slots=True)
class Normalization:
    """y = (x - shift - offset) * invstd * weight + bias; every array has shape (num_features,).

    `var` is the variance under the root: the batch's biased one, or running_var.
    """

    shift: FloatArray
    offset: FloatArray
    var: FloatArray
    invstd: FloatArray
    weight: FloatArray
    bias: FloatArray

    @property
    def mean(self) -> FloatArray:
        """The mean that is subtracted, rounded to one float64."""
        return self.shift + self.offset


@dataclass(frozen=True, slots=True)
class GradientSums:
    """Sums over each channel for the backward pass, g the upstream gradient, x_hat the normalised
    input; every array has shape (num_features,).
    """

    g: FloatArray
    g_x_hat: FloatArray
    g_squared: FloatArray
    g_x_hat_squared: FloatArray
    g_max: FloatArray
    x_hat_max: FloatArray


def normalization(
    stats: ChannelStats,
    running: RunningStats | None,
    weight: FloatArray | None,
    bias: FloatArray | None,
    settings: BatchNormSettings,
) -> Normalization:
    """What a forward pass in this mode subtracts and multiplies by.

    `running` is needed, and used, only where the batch's own statistics do not normalise.
    """
    if settings.normalizes_with_batch:
        shift, offset, var = stats.shift, stats.offset, stats.var
    else:
        if running is None:
            raise ValueError("evaluation with stored statistics needs them")
        shift, offset, var = (
            running.running_mean,
            np.zeros_like(running.running_mean),
            running.running_var,
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        invstd = 1.0 / np.sqrt(var + settings.eps)
    return Normalization(
        shift=shift,
        offset=offset,
        var=var,
        invstd=invstd,
        weight=np.ones_like(var) if weight is None else weight,
        bias=np.zeros_like(var) if bias is None else bias,
    )


def along(values: FloatArray, ndim: int, channel_axis: int) -> FloatArray:
    """A per-channel array in the shape that broadcasts along `channel_axis` of `ndim` axes."""
    shape = [1] * ndim
    shape[channel_axis] = len(values)
    return values.reshape(shape)


def blocks(
    shape: tuple[int, ...], max_elements: int = BLOCK_ELEMENTS
) -> Iterator[tuple[slice, ...]]:
    """Cut an array into pieces of at most `max_elements`, in C order of its elements."""
    rest = 1  # elements behind the axis that is cut
    axis = len(shape) - 1
    while axis > 0 and rest * shape[axis] <= max_elements:
        rest *= shape[axis]
        axis -= 1
    step = max(1, max_elements // max(1, rest))
    for lead in np.ndindex(*shape[:axis]):
        for start in range(0, shape[axis], step):
            yield (
                *(slice(i, i + 1) for i in lead),
                slice(start, min(start + step, shape[axis])),
                *(slice(0, size) for size in shape[axis + 1 :]),
            )


@dataclass(frozen=True, slots=True)
class BlockNormalizer:
    """A `Normalization` laid out along one axis of a tensor, applied to blocks of that tensor."""

    norm: Normalization
    ndim: int
    channel_axis: int

    def _at(self, values: FloatArray, block: tuple[slice, ...]) -> FloatArray:
        return along(values[block[self.channel_axis]], self.ndim, self.channel_axis)

    def x_hat(self, x: NDArray[Any], block: tuple[slice, ...]) -> FloatArray:
        """(x - mean) * invstd of the block `x`, float64."""
        norm = self.norm
        with np.errstate(invalid="ignore", over="ignore"):
            centered = x.astype(np.float64)
            # One after the other: their sum, the mean, is rounded at its own size, which may be
            # far larger than the deviations.
            centered -= self._at(norm.shift, block)
            centered -= self._at(norm.offset, block)
            centered *= self._at(norm.invstd, block)
        return centered

    def output(self, x: NDArray[Any], block: tuple[slice, ...]) -> FloatArray:
        """The layer's output for the block `x`, float64.

        Where weight * invstd is not finite (running_var + eps <= 0) there is no right value; the
        block then gets what PyTorch's folded form x * alpha + (bias - mean * alpha) makes of it.
        """
        norm = self.norm
        with np.errstate(invalid="ignore", over="ignore"):
            y = self.x_hat(x, block)
            y *= self._at(norm.weight, block)
            y += self._at(norm.bias, block)
            alpha = norm.invstd * norm.weight
            broken = ~np.isfinite(alpha[block[self.channel_axis]])
            if broken.any():
                folded = x.astype(np.float64) * self._at(alpha, block)
                folded += self._at(norm.bias - norm.mean * alpha, block)
                y = np.where(along(broken, self.ndim, self.channel_axis), folded, y)
        return y

    def grad_input(
        self,
        x: NDArray[Any],
        g: NDArray[Any],
        sums: GradientSums,
        count: int,
        block: tuple[slice, ...],
        settings: BatchNormSettings,
    ) -> FloatArray:
        """The gradient of the block `x` for the upstream gradient `g`, float64.

        With batch statistics: weight * invstd * (g - sum(g)/n - x_hat * sum(g*x_hat)/n), n the
        `count` of values per channel; with stored ones: weight * invstd * g.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            gradient = g.astype(np.float64)
            if settings.normalizes_with_batch:
                gradient -= self._at(sums.g / count, block)
                gradient -= self.x_hat(x, block) * self._at(sums.g_x_hat / count, block)
            gradient *= self._at(self.norm.weight * self.norm.invstd, block)
        return gradient


def gradient_sums(
    x: NDArray[Any], g: NDArray[Any], norm: Normalization, channel_axis: int
) -> GradientSums:
    """The sums of the backward pass over the whole of `x` and the upstream gradient `g`.

    grad_bias is `g`, grad_weight is `g_x_hat`.
    """
    normalizer = BlockNormalizer(norm, x.ndim, channel_axis)
    axes = tuple(axis for axis in range(x.ndim) if axis != channel_axis)
    sums = np.zeros((4, len(norm.var)))
    largest = np.zeros((2, len(norm.var)))
    with np.errstate(invalid="ignore", over="ignore"):
        for block in blocks(x.shape):
            channels = block[channel_axis]
            upstream = g[block].astype(np.float64)
            x_hat = normalizer.x_hat(x[block], block)
            largest[0, channels] = np.maximum(largest[0, channels], np.abs(upstream).max(axes))
            largest[1, channels] = np.maximum(largest[1, channels], np.abs(x_hat).max(axes))
            product = upstream * x_hat
            for row, values in enumerate((upstream, product)):
                sums[row, channels] += values.sum(axes)
                sums[row + 2, channels] += (values * values).sum(axes)
    return GradientSums(*sums, *largest)
