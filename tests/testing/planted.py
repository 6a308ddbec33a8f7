"""Wrong BatchNorms: each has one bug, and the words that name it."""

from __future__ import annotations

import numpy as np
import torch

from tests.testing.implementations import Honest, numpy_batchnorm

PLANTED = {}
"""The implementation and the words of each bug, by its name."""


def names(words):
    """Say which words name a bug."""

    def planted(implementation):
        PLANTED[implementation.__name__] = (implementation, words)
        return implementation

    return planted


@names("running_var is biased: it divides by n")
class BiasedRunningVar(Honest):
    def kept_var(self, var, x):
        return var


@names("running_var is multiplied by (n - 1) / n, not by n / (n - 1)")
class InvertedBessel(Honest):
    def kept_var(self, var, x):
        n = x.numel() / x.shape[1]
        return var * (n - 1) / n


@names("running_var divides by n - (1 + eps), as Keras 2's")
class Keras2(Honest):
    def kept_var(self, var, x):
        n = x.numel() / x.shape[1]
        return var * n / (n - (1 + self.eps))


@names("running_var holds the standard deviation (unbiased)")
class KeepsStd(Honest):
    def kept_var(self, var, x):
        return super().kept_var(var, x).sqrt()


@names("eps is added into running_var")
class KeepsEps(Honest):
    def kept_var(self, var, x):
        return super().kept_var(var, x) + self.eps


@names("momentum weighs the old value")
class OldMomentum(Honest):
    def factor(self):
        return 1 - super().factor()


@names("momentum weighs the old value")
class OldMomentumIfGiven(Honest):
    def factor(self):
        return super().factor() if self.momentum is None else 1 - self.momentum


@names("momentum is ignored: it is always 0.1")
class FixedMomentum(Honest):
    def factor(self):
        return 0.1


@names("momentum is ignored: it is always 1")
class BatchAlone(Honest):
    def factor(self):
        return 1.0


@names("bias is subtracted")
class MinusBias(Honest):
    def affine(self, y):
        return y if self.weight is None else 2 * y * self.along(self.weight, y) - super().affine(y)


@names("momentum 0 is taken for 0.1")
class FalsyMomentum(Honest):
    def factor(self):
        return super().factor() if self.momentum is None else self.momentum or 0.1


@names("momentum None is taken for 0.1, not for the cumulative average")
class NoCumulativeAverage(Honest):
    def factor(self):
        return 0.1 if self.momentum is None else self.momentum


@names("the cumulative average divides by one batch too many")
class LateAverage(Honest):
    def factor(self):
        if self.momentum is None:
            return 1 / (float(self.num_batches_tracked) + 1)
        return self.momentum


@names("the buffers are updated twice")
class Twice(Honest):
    def update(self, mean, var, x):
        super().update(mean, var, x)
        super().update(mean, var, x)


@names("the batch is added without (1 - momentum) * running")
class Undamped(Honest):
    def update(self, mean, var, x):
        with torch.no_grad():
            self.running_mean += self.factor() * mean
            self.running_var += self.factor() * self.kept_var(var, x)


@names("running_mean is updated and running_var is not")
class MeanAlone(Honest):
    def update(self, mean, var, x):
        with torch.no_grad():
            self.running_mean.mul_(1 - self.factor()).add_(self.factor() * mean)


@names("training does not update the buffers")
class Unkept(Honest):
    def update(self, mean, var, x):
        self.running_mean * (1 - self.factor()) + self.factor() * mean


@names("evaluation updates the buffers")
class EvalUpdates(Honest):
    def stored(self):
        return self.running_mean.clone(), self.running_var.clone()

    def forward(self, x):
        y = super().forward(x)
        if not self.training and self.track and x.numel():
            wide = x if x.dtype == torch.float64 else x.float()
            if x.numel() > x.shape[1]:
                self.update(*self.statistics(wide.detach()), wide)
        return y


@names("num_batches_tracked is not counted")
class Uncounted(Honest):
    def count(self, x):
        pass

    def factor(self):
        return 1 / (float(self.num_batches_tracked) + 1) if self.momentum is None else self.momentum


@names("an empty batch is not counted by num_batches_tracked")
class EmptyUncounted(Honest):
    def count(self, x):
        self.num_batches_tracked += x.numel() > 0


@names("the output is normalised by the unbiased variance")
class UnbiasedOutput(Honest):
    def statistics(self, x):
        mean, var = super().statistics(x)
        n = x.numel() / x.shape[1]
        return mean, var * n / (n - 1)

    def kept_var(self, var, x):
        return var


@names("eps is outside the root")
class EpsOutside(Honest):
    def scale(self, var):
        return 1 / (var.sqrt() + self.eps)


@names("the output is divided by the variance, not by its root")
class NoRoot(Honest):
    def scale(self, var):
        return 1 / (var + self.eps)


@names("eps is a lower bound of the variance, and not added")
class ClampedVariance(Honest):
    def scale(self, var):
        return 1 / var.clamp(min=self.eps).sqrt()


@names("eps is ignored: it is always 1e-3")
class FixedEps(Honest):
    def scale(self, var):
        return 1 / torch.sqrt(var + 1e-3)


@names("eps 0 is taken for 1e-5")
class FalsyEps(Honest):
    def scale(self, var):
        return 1 / torch.sqrt(var + (self.eps or 1e-5))


@names("the mean is not subtracted in eval")
class Uncentered(Honest):
    def stored(self):
        return torch.zeros_like(self.running_mean), self.running_var


@names("the output is not divided by the standard deviation in eval")
class Unscaled(Honest):
    def normalise(self, x, mean, var):
        return super().normalise(x, mean, var) if self.training else x - self.along(mean, x)


@names("evaluation normalises with the batch's statistics")
class EvalWithBatch(Honest):
    def forward(self, x):
        if self.training or not x.numel():
            return super().forward(x)
        wide = x if x.dtype == torch.float64 else x.float()
        return self.affine(self.normalise(wide, *self.statistics(wide))).to(x.dtype)


@names("training normalises with the running statistics after their update")
class Updated(Honest):
    def normalise(self, x, mean, var):
        if self.training and self.track:
            return super().normalise(x, self.running_mean.clone(), self.running_var.clone())
        return super().normalise(x, mean, var)


@names("running_mean and running_var are swapped in eval")
class Swapped(Honest):
    def stored(self):
        return self.running_var, self.running_mean


@names("running_var is taken for invstd in eval")
class TakenForInvstd(Honest):
    def normalise(self, x, mean, var):
        if self.training or not self.track:
            return super().normalise(x, mean, var)
        return (x - self.along(mean, x)) * self.along(var, x)


@names("weight is ignored")
class NoWeight(Honest):
    def affine(self, y):
        return y if self.bias is None else y + self.along(self.bias, y)


@names("bias is added before weight multiplies")
class BiasFirst(Honest):
    def affine(self, y):
        if self.weight is None:
            return y
        return (y + self.along(self.bias, y)) * self.along(self.weight, y)


@names("1 is added to weight")
class CenteredWeight(Honest):
    def affine(self, y):
        if self.weight is None:
            return y
        return y * (1 + self.along(self.weight, y)) + self.along(self.bias, y)


@names("each sample has statistics of its own, as in InstanceNorm")
class PerSample(Honest):
    def statistics(self, x):
        if x.ndim == 2:
            return super().statistics(x)
        axes = list(range(2, x.ndim))
        return x.mean(axes, keepdim=True), x.var(axes, keepdim=True, correction=0)

    def update(self, mean, var, x):
        super().update(*Honest.statistics(self, x), x)


@names("all channels share one mean and variance")
class OneForAll(Honest):
    def normalise(self, x, mean, var):
        if self.training or not self.track:
            return (x - x.mean()) * self.scale(((x - x.mean()) ** 2).mean())
        return super().normalise(x, mean, var)


@names("the gradient leaves out the batch statistics")
class DetachedStatistics(Honest):
    def normalise(self, x, mean, var):
        return super().normalise(x, mean.detach(), var.detach())


@names("the gradient leaves out the batch variance")
class DetachedVariance(Honest):
    def normalise(self, x, mean, var):
        return super().normalise(x, mean, var.detach())


@names("the input, weight or bias is overwritten")
class Overwrites(Honest):
    def forward(self, x):
        y = super().forward(x)
        with torch.no_grad():
            x += 1
        return y


@names("an empty batch turns the running statistics into NaN")
def empty_spoils(x, weight, bias, running_mean, running_var, training, momentum, eps):
    if not x.size and training and running_mean is not None:
        running_mean[:] = (1 - momentum) * running_mean + momentum * x.mean((0, *range(2, x.ndim)))
        running_var[:] = (1 - momentum) * running_var + momentum * x.var((0, *range(2, x.ndim)))
    return numpy_batchnorm(x, weight, bias, running_mean, running_var, training, momentum, eps)


@names("one value a channel gives neither ValueError nor the bias")
def one_value_is_nan(x, weight, bias, running_mean, running_var, training, momentum, eps):
    if training and x.size == x.shape[1]:
        return x * np.float32(np.nan)
    return numpy_batchnorm(x, weight, bias, running_mean, running_var, training, momentum, eps)


@names("NaN spreads to other channels")
def nan_spreads(x, weight, bias, running_mean, running_var, training, momentum, eps):
    y = numpy_batchnorm(x, weight, bias, running_mean, running_var, training, momentum, eps)
    return (
        (y + 0 * x.sum()).astype(x.dtype)
        if not np.isfinite(x.sum())
        and x.dtype == np.float32
        and np.isnan(x.astype(np.float64).sum())
        else y
    )


@names("NaN and Inf are left out of the statistics")
def skips_nan(x, weight, bias, running_mean, running_var, training, momentum, eps):
    if not training or np.isfinite(x).all():
        return numpy_batchnorm(x, weight, bias, running_mean, running_var, training, momentum, eps)
    axes, shape = (0, *range(2, x.ndim)), (1, -1) + (1,) * (x.ndim - 2)
    finite = np.where(np.isfinite(x), x, np.nan).astype(np.float64)
    mean = np.nanmean(finite, axes)
    running_mean[:] = (1 - momentum) * running_mean + momentum * mean
    running_var[:] = (1 - momentum) * running_var + momentum * np.nanvar(finite, axes, ddof=1)
    y = (x - mean.reshape(shape)) / np.sqrt(np.nanvar(finite, axes).reshape(shape) + eps)
    return (y * weight.reshape(shape) + bias.reshape(shape)).astype(x.dtype)


@names("an input that is not contiguous is read wrongly")
def reads_memory(x, weight, bias, running_mean, running_var, training, momentum, eps):
    if not x.flags.c_contiguous:
        whole = x if x.base is None else x.base
        x = whole.ravel(order="K")[: x.size].reshape(x.shape)
    return numpy_batchnorm(x, weight, bias, running_mean, running_var, training, momentum, eps)


@names("channels are taken from the last axis")
def channels_last(x, weight, bias, running_mean, running_var, training, momentum, eps):
    if x.ndim == 2:
        return numpy_batchnorm(x, weight, bias, running_mean, running_var, training, momentum, eps)
    if weight is not None and x.shape[-1] != len(weight):
        raise ValueError("operands could not be broadcast together")
    return np.moveaxis(
        numpy_batchnorm(np.moveaxis(x, -1, 1), weight, bias, running_mean, running_var, training,
                        momentum, eps), 1, -1,
    )  # fmt: skip


@names("one-pass variance, mean(x^2) - mean^2: it loses its digits where |mean| is 1000 std")
def one_pass(x, weight, bias, running_mean, running_var, training, momentum, eps):
    if not training or x.size <= x.shape[1]:
        return numpy_batchnorm(x, weight, bias, running_mean, running_var, training, momentum, eps)
    axes, shape = (0, *range(2, x.ndim)), (1, -1) + (1,) * (x.ndim - 2)
    wide = x.astype(np.result_type(x.dtype, np.float32))
    n = x.size // x.shape[1]
    mean = wide.mean(axes)
    var = np.maximum((wide * wide).mean(axes) - mean * mean, 0)
    if running_mean is not None:
        running_mean[:] = (1 - momentum) * running_mean + momentum * mean
        running_var[:] = (1 - momentum) * running_var + momentum * var * n / (n - 1)
    y = (wide - mean.reshape(shape)) / np.sqrt(var + eps).reshape(shape)
    if weight is not None:
        y = y * weight.reshape(shape) + bias.reshape(shape)
    return y.astype(x.dtype)


@names("precision is lost: float64 is computed in float32")
def in_float32(x, weight, bias, running_mean, running_var, training, momentum, eps):
    y = numpy_batchnorm(x.astype(np.float32), weight, bias, running_mean, running_var, training,
                        momentum, eps)  # fmt: skip
    return y.astype(x.dtype)
