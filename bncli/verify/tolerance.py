"""How far a backend's result may lie from the exact one, as its arithmetic explains.

Each bound adds up the roundings on the way to a quantity, to first order, in units of the
parameter dtype's unit roundoff u. What a sum loses cannot be bounded well beforehand (it depends
on the order, the number of threads and the data), so the batch statistics are recomputed in
PyTorch's order and precision (`bncli.pytorch_cpu`), and their distance from the exact ones is
what a tolerance allows for. Where the order is not known, several times that and a random walk
over the additions are allowed for; of a backend that is not PyTorch, what sums in any order and
the plain formulas may lose.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.backends.arithmetic import walk_of
from bncli.light import dataclass, np
from bncli.verify.closeness import Tolerance, without_infinities

if TYPE_CHECKING:
    from bncli.backends.arithmetic import Arithmetic
    from bncli.batchnorm import GradientSums, Normalization
    from bncli.model import BatchNormSettings, ChannelStats, FloatArray, RunningStats
    from bncli.pytorch_cpu import CpuStatistics


SCALE_LOST = 0.5
"""The relative error of invstd beyond which bounds to first order say too little."""

VAR_ROUNDINGS = {"float64": 6, "float32": 2}
"""Roundings of a sum of squares on its way to a variance; half precision rounds the count too."""


@dataclass(frozen=True, slots=True)
class Tolerances:
    """Tolerances of each quantity of one forward and backward pass, all arrays (num_features,).

    `mean_error` and `var_error` bound the absolute error of the statistics that normalise,
    `invstd_error` the relative error of 1/sqrt(var + eps), and `other_invstd` the least and the
    greatest that the other side's may be.
    """

    arithmetic: Arithmetic
    stats: ChannelStats
    norm: Normalization
    settings: BatchNormSettings
    mean_error: FloatArray
    var_error: FloatArray
    invstd_error: FloatArray
    other_invstd: tuple[FloatArray, FloatArray]

    @classmethod
    def of(
        cls,
        arithmetic: Arithmetic,
        stats: ChannelStats,
        norm: Normalization,
        settings: BatchNormSettings,
        recomputed: CpuStatistics | None,
    ) -> Tolerances:
        """Tolerances for these statistics; `recomputed` are PyTorch's own.

        `recomputed` is needed where the batch is reduced (`settings.normalizes_with_batch`), but
        for an arithmetic whose sums are in any order.
        """
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            other_invstd = norm.invstd, norm.invstd
            if settings.normalizes_with_batch:
                if recomputed is None and arithmetic.order != "any":
                    raise ValueError("batch statistics need the recomputed ones")
                mean_error = _mean_error(arithmetic, stats, recomputed)
                var_error = _var_error(arithmetic, stats, recomputed, mean_error)
                if recomputed is not None:
                    other_invstd = _range_of_invstd(recomputed, settings.eps)
            else:
                mean_error = np.full_like(norm.var, arithmetic.underflow)
                var_error = np.full_like(norm.var, arithmetic.underflow)
            # To first order half of var_error / (var + eps); exact here, as var may be mere error,
            # and relative to the other side's invstd, which is the smaller for a larger var.
            exact = norm.var + settings.eps
            least = np.maximum(norm.var - var_error, np.minimum(norm.var, 0)) + settings.eps
            grown = np.sqrt((exact + var_error) / exact) - 1
            shrunk = 1 - np.sqrt(least / exact)
            # Evaluation adds eps, takes the root and divides in the parameter dtype; in training
            # PyTorch's kernels do so in float64 and round once.
            in_float64 = settings.normalizes_with_batch and not arithmetic.own_steps
            roundings = 1 if in_float64 and not arithmetic.as_precise else 3
            invstd_error = np.maximum(grown, shrunk) + roundings * arithmetic.u
        return cls(
            arithmetic, stats, norm, settings, mean_error, var_error, invstd_error, other_invstd
        )

    def mean(self) -> Tolerance:
        """The batch mean."""
        return self._tolerance(0.0, self.mean_error)

    def var(self) -> Tolerance:
        """The biased batch variance."""
        return self._tolerance(0.0, self.var_error)

    def invstd(self) -> Tolerance:
        """1/sqrt(var + eps)."""
        return self._tolerance(self.invstd_error, self.arithmetic.tiniest)

    def running_mean(self, before: RunningStats, factor: float) -> Tolerance:
        """(1 - a) * running_mean + a * mean: two products, a sum and a rounded `factor` a."""
        if not self.settings.training:
            return self._tolerance(0.0, self.arithmetic.underflow)
        return self._running(factor, before.running_mean, self.stats.mean, self.mean_error)

    def running_var(self, before: RunningStats, factor: float) -> Tolerance:
        """(1 - a) * running_var + a * unbiased_var."""
        if not self.settings.training:
            return self._tolerance(0.0, self.arithmetic.underflow)
        # Kernels divide the same sum of squares by count - 1: its error grows by that much.
        bessel = self.stats.count / (self.stats.count - 1)
        var = self.stats.unbiased_var
        return self._running(factor, before.running_var, var, self.var_error * bessel)

    def output(self) -> Tolerance:
        """x * alpha + (bias - mean * alpha), alpha = weight * invstd rounded once more."""
        u = self.arithmetic.u
        with np.errstate(invalid="ignore", over="ignore"):
            weight, bias = np.abs(self.norm.weight), np.abs(self.norm.bias)
            alpha = weight * self.norm.invstd
            rtol = (
                self.invstd_error + (2 + self.arithmetic.own_steps) * u + self.arithmetic.output_u
            )
            # The folded constant bias - mean * alpha is rounded, large where |mean| >> std.
            roundings = 1 if self.arithmetic.order_known else 2  # with and without fused additions
            folded = roundings * u * (alpha * np.abs(self.norm.mean) + bias)
            atol = alpha * self.mean_error * (1 + self.invstd_error) + folded + rtol * bias
            # Where the other side has lost even the scale, what it makes of these values says more.
            lost = (self.invstd_error > SCALE_LOST) & self.arithmetic.order_known
            mean, invstd, (low, high) = self.stats.mean, self.norm.invstd, self.other_invstd
            extent = np.maximum(np.abs(self.stats.max - mean), np.abs(self.stats.min - mean))
            apart = np.maximum(np.abs(low - invstd), np.abs(high - invstd))
            wrong = extent * apart + self.mean_error * high
            roundings_lost = 3 * u * (high * (extent + np.abs(mean)) * weight + bias)
            atol = np.where(lost, weight * wrong + roundings_lost, atol)
            rtol = np.where(lost, self.arithmetic.output_u + 2 * u, rtol)
            size = np.maximum(np.abs(self.stats.max), np.abs(self.stats.min)) + np.abs(mean)
            atol += self._underflow(4, self.norm.weight, self.norm.invstd, size, self.norm.mean)
        return self._tolerance(rtol, atol + 2 * self.arithmetic.output_tiniest)

    def grad_bias(self, sums: GradientSums) -> Tolerance:
        """sum(g)."""
        error = self._sum_error(np.abs(sums.g), sums.g_squared)
        return self._tolerance(2 * self.arithmetic.u, error + self._underflow(4 * self.stats.count))

    def grad_weight(self, sums: GradientSums) -> Tolerance:
        """sum(g * x_hat)."""
        return self._tolerance(self.invstd_error + 3 * self.arithmetic.u, self._dot_error(sums))

    def grad_input(self, sums: GradientSums) -> Tolerance:
        """weight * invstd * (g - sum(g)/n - x_hat * sum(g*x_hat)/n), or its first part alone."""
        u, own_steps = self.arithmetic.u, self.arithmetic.own_steps
        count = self.stats.count
        # weight * invstd, its product with the bracket, and two roundings inside that.
        rtol = self.invstd_error + (4 + own_steps) * u + self.arithmetic.output_u
        weight, invstd = self.norm.weight, self.norm.invstd
        if not self.settings.normalizes_with_batch:
            lost = self._underflow(4, weight, invstd, sums.g_max)
            return self._tolerance(rtol, lost + 2 * self.arithmetic.output_tiniest)
        with np.errstate(invalid="ignore", over="ignore"):
            mean_g = np.abs(sums.g) / count
            mean_g_x_hat = np.abs(sums.g_x_hat) / count
            sum_error = self._sum_error(np.abs(sums.g), sums.g_squared) / count
            # In x_hat * mean(g * x_hat) both factors are off, and invstd appears in it twice.
            shift = self.mean_error * self.norm.invstd
            x_hat = sums.x_hat_max + shift
            dot_error = self._dot_error(sums) / count
            relative = 2 * self.invstd_error + (4 + own_steps) * u + self.arithmetic.output_u
            product_error = (
                x_hat * dot_error
                + shift * mean_g_x_hat
                + relative * x_hat * (mean_g_x_hat + dot_error)
            )
            # The differences are stored in the output's dtype on the way.
            stored = ((3 + own_steps) * u + self.arithmetic.output_u) * (sums.g_max + mean_g)
            atol = (
                np.abs(self.norm.weight * self.norm.invstd)
                * (1 + self.invstd_error)
                * (stored + sum_error + product_error)
            )
            atol += self._underflow(8, weight, invstd, invstd, sums.g_max, x_hat, x_hat)
        return self._tolerance(rtol, atol + 2 * self.arithmetic.output_tiniest)

    def _running(
        self, factor: float, before: FloatArray, batch: FloatArray, error: FloatArray
    ) -> Tolerance:
        with np.errstate(invalid="ignore", over="ignore"):
            sizes = np.abs(factor * batch) + np.abs((1 - factor) * before)
            # The rounded factor shifts weight between the two terms by up to u.
            return self._tolerance(
                0.0,
                abs(factor) * error
                + self.arithmetic.u
                * ((3 + self.arithmetic.own_steps) * sizes + abs(factor) * np.abs(before))
                + self.arithmetic.tiniest,
            )

    def _sum_error(self, total: FloatArray, squares: FloatArray) -> FloatArray:
        """The error of a running sum of n terms of either sign, given its value and its squares.

        The partial sums wander up to sqrt(sum of squares), and drift to the total.
        """
        # The worst of many channels strays further than one does.
        channels = math.sqrt(1 + math.log(self.stats.num_features) / 8)
        with np.errstate(invalid="ignore", over="ignore"):
            error: FloatArray = (
                channels * self.arithmetic.backward_walk * (total + np.sqrt(squares))
            )
        return error + self.arithmetic.tiniest

    def _underflow(self, steps: int, *factors: FloatArray) -> FloatArray:
        """What this many steps lose below the normal range, by whatever it is multiplied then."""
        lost = np.full(self.norm.var.shape, steps * self.arithmetic.underflow)
        with np.errstate(invalid="ignore", over="ignore"):
            for factor in factors:
                lost *= 1 + without_infinities(np.abs(factor))
        return np.asarray(np.nan_to_num(lost, nan=0.0, posinf=np.inf), np.float64)

    def _dot_error(self, sums: GradientSums) -> FloatArray:
        """The absolute error of sum(g * x_hat), but for the common factor invstd."""
        with np.errstate(invalid="ignore", over="ignore"):
            # Every term is rounded when x is centred and when it is multiplied.
            terms = min(math.sqrt(self.stats.count), 4.0) * 2 * self.arithmetic.u
            return (
                np.abs(sums.g) * self.mean_error * self.norm.invstd
                + terms * np.sqrt(sums.g_x_hat_squared)
                + self._sum_error(np.abs(sums.g_x_hat), sums.g_x_hat_squared)
                + self._underflow(
                    4 * self.stats.count, self.norm.invstd, sums.g_max, sums.x_hat_max
                )
            )

    def _tolerance(self, rtol: FloatArray | float, atol: FloatArray | float) -> Tolerance:
        """Both as arrays of shape (num_features,); a bound that is not a number allows nothing."""
        shape = self.norm.var.shape
        return Tolerance(
            np.nan_to_num(np.broadcast_to(np.asarray(rtol, np.float64), shape), posinf=np.inf),
            np.nan_to_num(np.broadcast_to(np.asarray(atol, np.float64), shape), posinf=np.inf),
        ).times(self.arithmetic.factor)


def _mean_error(
    arithmetic: Arithmetic, stats: ChannelStats, recomputed: CpuStatistics | None
) -> FloatArray:
    """The absolute error of the batch mean."""
    mean = np.abs(stats.mean)
    lost = 0.0 if recomputed is None else arithmetic.slack * np.abs(recomputed.mean - stats.mean)
    # The recomputed mean is rounded already; a tenth more for the order of the last steps.
    roundings = arithmetic.own_steps or (1.0 if arithmetic.as_precise else 0.1)
    error: FloatArray = (
        lost
        + roundings * arithmetic.u * mean
        + (arithmetic.walk * (mean + np.sqrt(stats.var)) if arithmetic.walk else 0)
        + arithmetic.statistics_u * mean
        + 3 * arithmetic.tiniest
    )
    return error


def _var_error(
    arithmetic: Arithmetic,
    stats: ChannelStats,
    recomputed: CpuStatistics | None,
    mean_error: FloatArray,
) -> FloatArray:
    """The absolute error of the biased batch variance."""
    var = stats.var
    lost = np.zeros_like(var) if recomputed is None else np.abs(recomputed.var - var)
    slack, walk = arithmetic.slack, arithmetic.walk
    if recomputed is not None and recomputed.fused_var is not None:
        lost = np.maximum(lost, np.abs(recomputed.fused_var - var))
    elif arithmetic.rows:
        # A fused addition would have rounded every partial sum differently.
        slack = 8.0
        walk = 4 * walk_of(arithmetic.accumulate_dtype, arithmetic.additions)
    roundings = VAR_ROUNDINGS.get(arithmetic.parameter_dtype, 3) + arithmetic.own_steps
    error: FloatArray = (
        slack * lost
        + (roundings * arithmetic.u + walk) * var
        + arithmetic.statistics_u * var
        + arithmetic.centering_u * np.abs(stats.mean) * np.sqrt(var)
        + 3 * arithmetic.tiniest
    )
    if not arithmetic.order_known:
        # The squares are summed around a mean that is itself off by mean_error.
        error += mean_error**2
    return error


def _range_of_invstd(recomputed: CpuStatistics, eps: float) -> tuple[FloatArray, FloatArray]:
    """The least and the greatest 1/sqrt(var + eps) that PyTorch may have.

    With 2 % to spare: it matters only where half of the digits are gone.
    """
    var, fused = recomputed.var, recomputed.fused_var
    fused = var if fused is None else fused
    return (
        0.98 / np.sqrt(np.maximum(var, fused) + eps),
        1.02 / np.sqrt(np.minimum(var, fused) + eps),
    )


def fixed(rtol: float, atol: float, num_features: int) -> Tolerance:
    """The same tolerance for every channel."""
    return Tolerance(np.full(num_features, rtol), np.full(num_features, atol))
