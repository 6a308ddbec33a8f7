"""Captures made of arrays: what a layer saw in each propagation, and what it stores."""

from __future__ import annotations

import numpy as np

from bncli.model import BatchNormModule, BatchNormState
from bncli.model.capture import Capture, InputKernel, OutputSums, Propagation, WatchedLayer
from bncli.moments.batches import BatchSums

EPS = 1e-5


def seen(batches, *, per_sample=False):
    """The sums of some batches, arrays (N, C, ...)."""
    sums = BatchSums(batches[0].shape[1], per_sample=per_sample)
    for batch in batches:
        sums.add(np.asarray(batch))
    return sums.result()


def stored_of(batches):
    """What running statistics estimate: the means of the batches' means and unbiased variances."""
    axes = (0, *range(2, batches[0].ndim))
    mean = np.mean([batch.mean(axes, dtype=np.float64) for batch in batches], axis=0)
    var = np.mean([batch.var(axes, ddof=1, dtype=np.float64) for batch in batches], axis=0)
    return mean, var


def watched(
    name,
    batches,
    *,
    order=1,
    mean=None,
    var=None,
    weight=None,
    bias=None,
    counter=1000,
    eps=EPS,
    momentum=0.1,
    track=True,
    evaluation=None,
    as_trained=None,
    class_name="BatchNorm2d",
    **given,
):
    """A layer that saw `batches` in the training propagation, and in evaluation too.

    It stores the right statistics unless `mean` or `var` say otherwise.
    """
    channels = batches[0].shape[1]
    right_mean, right_var = stored_of(batches)
    rng = np.random.default_rng(sum(map(ord, name)))

    def vector(value, usual):
        wide = usual if value is None else np.broadcast_to(np.asarray(value, float), (channels,))
        return np.asarray(wide, np.float32)

    state = BatchNormState(
        name,
        weight=vector(weight, rng.uniform(0.8, 1.2, channels)),
        bias=vector(bias, rng.normal(0, 0.2, channels)),
        running_mean=vector(mean, right_mean) if track else None,
        running_var=vector(var, right_var) if track else None,
        num_batches_tracked=counter if track else None,
        dtype="float32",
        module=BatchNormModule(class_name, eps, momentum, True, track, False),
    )
    per_sample = given.get("per_sample", False)
    passes = {Propagation.TRAINING: batches, Propagation.EVAL: evaluation or batches}
    if as_trained is not None:
        passes[Propagation.AS_TRAINED] = as_trained
    found = {which: seen(arrays, per_sample=per_sample) for which, arrays in passes.items()}
    return WatchedLayer(name, order, channels, state, seen=found, **given)


def source(batches):
    """The model's input."""
    sums = seen(batches)
    both = {Propagation.TRAINING: sums, Propagation.EVAL: sums}
    return WatchedLayer("input", 0, batches[0].shape[1], seen=both)


def outputs(gap, floor):
    """An output whose gap is `gap`, and `floor` with statistics found anew."""
    apart = {Propagation.EVAL: 100 * gap**2, Propagation.RENEWED: 100 * floor**2}
    return (OutputSums("output", 50, np.zeros(2), np.array([50.0, 50.0]), apart),)


def capture(*layers, gap=0.2, floor=0.2, **given):
    """A capture of these layers, in this order."""
    return Capture(layers, outputs(gap, floor), rounds=1, **given)


def convolved(batches, kernel, bias=None):
    """A 1 x 1 convolution of the batches by `kernel` (out, in), and the layer's `InputKernel`."""
    made = [np.einsum("oi,nihw->nohw", kernel, batch) for batch in batches]
    if bias is not None:
        made = [batch + bias[:, None, None] for batch in made]
    return made, InputKernel(kernel, bias)


def batches_of(number=8, samples=16, channels=5, places=(4, 4), seed=0, mean=0.0, std=1.0):
    rng = np.random.default_rng(seed)
    return [
        rng.normal(mean, std, (samples, channels, *places)).astype(np.float32)
        for _ in range(number)
    ]
