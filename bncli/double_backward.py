"""The backward pass of the backward pass: the gradients of sum(v * grad_input), v upstream.

With g the upstream gradient of the first pass, x_hat the normalised input, r = invstd, w = weight,
means over the channel written m(.), and a(.) = m(. * x_hat):

    grad_input     = w r (g - m(g) - x_hat a(g))
    with           K = m(v g) - m(v) m(g) - a(v) a(g)
    grad_output'   = w r (v - m(v) - x_hat a(v))
    weight'        = n r K
    input'         = -w r**2 (x_hat K + a(v) (g - m(g) - x_hat a(g)) + a(g) (v - m(v) - x_hat a(v)))

They follow from d r / d x_i = -r**2 x_hat_i / n and the same for x_hat. With stored statistics
grad_input = w r g, so that grad_output' = w r v, weight' = r sum(v g), and input' is 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bncli.batchnorm import BlockNormalizer, along, blocks
from bncli.compare import Tolerance, without_infinities
from bncli.dtypes import DTYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.batchnorm import GradientSums, Normalization
    from bncli.model import FloatArray
    from bncli.tolerance import Tolerances

SAFETY = 2.0
"""How many times the first-order bounds are allowed for: many of the sums are not recomputed."""


@dataclass(frozen=True, slots=True)
class DoubleSums:
    """Means over each channel, g and v the two upstream gradients; arrays (num_features,).

    `v_g_squared` is the mean of (v g)**2, `v_squared` that of v**2, `v_x_hat_squared` that of
    (v x_hat)**2.
    """

    g: FloatArray
    v: FloatArray
    g_x_hat: FloatArray
    v_x_hat: FloatArray
    v_g: FloatArray
    v_squared: FloatArray
    v_x_hat_squared: FloatArray
    v_g_squared: FloatArray
    v_max: FloatArray

    @property
    def k(self) -> FloatArray:
        """K: what is left of the covariance of v and g beside x_hat."""
        return self.v_g - self.v * self.g - self.v_x_hat * self.g_x_hat


def double_sums(
    x: NDArray[Any],
    g: NDArray[Any],
    v: NDArray[Any],
    norm: Normalization,
    first: GradientSums,
    channel_axis: int,
) -> DoubleSums:
    """The means over the whole of `x` and both upstream gradients; `first` has the sums of g."""
    import numpy as np

    normalizer = BlockNormalizer(norm, x.ndim, channel_axis)
    axes = tuple(axis for axis in range(x.ndim) if axis != channel_axis)
    sums = np.zeros((6, len(norm.var)))
    largest = np.zeros(len(norm.var))
    with np.errstate(invalid="ignore", over="ignore"):
        for block in blocks(x.shape):
            channels = block[channel_axis]
            upstream = v[block].astype(np.float64)
            x_hat = normalizer.x_hat(x[block], block)
            largest[channels] = np.maximum(largest[channels], np.abs(upstream).max(axes))
            products = (upstream, upstream * x_hat, upstream * g[block].astype(np.float64))
            for row, values in enumerate(products):
                sums[row, channels] += values.sum(axes)
                sums[row + 3, channels] += (values * values).sum(axes)
        count = x.size // len(norm.var)
        sums /= count
        return DoubleSums(
            g=first.g / count,
            v=sums[0],
            g_x_hat=first.g_x_hat / count,
            v_x_hat=sums[1],
            v_g=sums[2],
            v_squared=sums[3],
            v_x_hat_squared=sums[4],
            v_g_squared=sums[5],
            v_max=largest,
        )


@dataclass(frozen=True, slots=True)
class DoubleBackward:
    """The gradients of the second pass; `with_batch` says that the batch normalised itself."""

    norm: Normalization
    sums: DoubleSums
    count: int
    ndim: int
    channel_axis: int
    with_batch: bool

    def grad_weight(self) -> FloatArray:
        """weight', of shape (num_features,)."""
        inner = self.sums.k if self.with_batch else self.sums.v_g
        return self.count * self.norm.invstd * inner

    def grad_output(self, x: NDArray[Any], v: NDArray[Any], block: tuple[slice, ...]) -> FloatArray:
        """grad_output' of the block `x`, with `v` the second upstream gradient there."""
        import numpy as np

        with np.errstate(invalid="ignore", over="ignore"):
            projected = self._projected(x, v, self.sums.v, self.sums.v_x_hat, block)
            return projected * self._at(self.norm.weight * self.norm.invstd, block)

    def grad_input(
        self, x: NDArray[Any], g: NDArray[Any], v: NDArray[Any], block: tuple[slice, ...]
    ) -> FloatArray:
        """input' of the block `x`, with `g` and `v` the upstream gradients there."""
        import numpy as np

        if not self.with_batch:
            return np.zeros(x.shape)
        sums = self.sums
        with np.errstate(invalid="ignore", over="ignore"):
            gradient = self._x_hat(x, block) * self._at(sums.k, block)
            gradient += self._projected(x, g, sums.g, sums.g_x_hat, block) * self._at(
                sums.v_x_hat, block
            )
            gradient += self._projected(x, v, sums.v, sums.v_x_hat, block) * self._at(
                sums.g_x_hat, block
            )
            gradient *= self._at(-self.norm.weight * self.norm.invstd**2, block)
        return gradient

    def _projected(
        self,
        x: NDArray[Any],
        values: NDArray[Any],
        mean: FloatArray,
        mean_x_hat: FloatArray,
        block: tuple[slice, ...],
    ) -> FloatArray:
        """values - m(values) - x_hat a(values); the values alone with stored statistics."""
        import numpy as np

        projected = values.astype(np.float64)
        if self.with_batch:
            projected -= self._at(mean, block)
            projected -= self._x_hat(x, block) * self._at(mean_x_hat, block)
        return projected

    def _x_hat(self, x: NDArray[Any], block: tuple[slice, ...]) -> FloatArray:
        return BlockNormalizer(self.norm, self.ndim, self.channel_axis).x_hat(x, block)

    def _at(self, values: FloatArray, block: tuple[slice, ...]) -> FloatArray:
        return along(values[block[self.channel_axis]], self.ndim, self.channel_axis)


def double_tolerances(
    double: DoubleBackward, first: GradientSums, own: Tolerances
) -> dict[str, Tolerance]:
    """How far another implementation's second backward pass may lie from the exact one.

    First-order bounds, term by term, at the size of each channel's largest values.
    """
    import numpy as np

    sums, norm, count = double.sums, double.norm, double.count
    arithmetic = own.arithmetic
    # Every intermediate is a tensor of its own, rounded to the input's dtype.
    u = max(arithmetic.u, DTYPES[arithmetic.dtype].unit_roundoff)
    with np.errstate(invalid="ignore", over="ignore"):
        scale = np.abs(norm.weight * norm.invstd)
        relative = 3 * own.invstd_error + 8 * u
        shift = own.mean_error * norm.invstd
        x_hat = first.x_hat_max + shift
        a_g, a_v = np.abs(sums.g_x_hat), np.abs(sums.v_x_hat)
        m_g, m_v = np.abs(sums.g), np.abs(sums.v)
        # A mean of n rounded products, and the roundings of its sum.
        lost = (arithmetic.backward_walk + 4 * u) / math.sqrt(count) + u
        channels = math.sqrt(1 + math.log(len(norm.var)) / 8)
        lost *= channels

        def error(mean: FloatArray, squares: FloatArray) -> FloatArray:
            return lost * np.sqrt(squares) + (relative + arithmetic.backward_walk) * mean

        e_g = error(m_g, first.g_squared / count)
        e_v = error(m_v, sums.v_squared)
        e_ag = error(a_g, first.g_x_hat_squared / count) + shift * (m_g + e_g)
        e_av = error(a_v, sums.v_x_hat_squared) + shift * (m_v + e_v)
        e_vg = error(np.abs(sums.v_g), sums.v_g_squared)
        if not double.with_batch:
            grad_output = scale * relative * sums.v_max
            grad_weight = count * norm.invstd * (e_vg + relative * np.abs(sums.v_g))
            grad_input = np.zeros_like(scale)
        else:
            wide_g = first.g_max + m_g + x_hat * a_g
            wide_v = sums.v_max + m_v + x_hat * a_v
            k = np.abs(sums.v_g) + m_v * m_g + 2 * a_v * a_g
            e_k = e_vg + m_v * e_g + m_g * e_v + 2 * (a_v * e_ag + a_g * e_av)
            grad_output = scale * (relative * wide_v + e_v + shift * a_v + x_hat * e_av)
            grad_weight = count * norm.invstd * (relative * k + e_k)
            grad_input = (scale * norm.invstd) * (
                2 * relative * (x_hat * k + a_v * wide_g + a_g * wide_v)
                + x_hat * e_k
                + shift * (k + 2 * a_v * a_g)
                + e_av * wide_g
                + e_ag * wide_v
                + a_v * (e_g + x_hat * e_ag)
                + a_g * (e_v + x_hat * e_av)
            )
        # A step that underflows loses all it had, by whatever it is multiplied then.
        weight, invstd, g, v, x_hat = map(
            without_infinities, (np.abs(norm.weight), norm.invstd, first.g_max, sums.v_max, x_hat)
        )
        tiny = 32 * arithmetic.underflow * (1 + weight) * (1 + invstd) ** 3
        tiny *= (1 + g) * (1 + v) * (1 + x_hat) ** 3
    tiny = np.nan_to_num(tiny, nan=0.0, posinf=np.inf) + 2 * arithmetic.output_tiniest
    return {
        "double_grad_input": _allowed(grad_input + tiny),
        "double_grad_weight": _allowed(grad_weight + count * tiny),
        "double_grad_output": _allowed(grad_output + tiny),
    }


def _allowed(bound: FloatArray) -> Tolerance:
    """`SAFETY` times an absolute bound; one that is not a number allows nothing."""
    import numpy as np

    return Tolerance(np.zeros_like(bound), np.nan_to_num(SAFETY * bound, posinf=np.inf))
