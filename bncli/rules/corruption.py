"""BN2xx: values that no BatchNorm layer can have, with the pattern that names the cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.report import Finding, Severity
from bncli.rules.interface import Rule, channel_extent
from bncli.rules.layers import HALVES, MOST_EVIDENCE, Layer, found, median, named

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAN = Rule(
    "BN201",
    "nan-in-checkpoint",
    Severity.ERROR,
    "A weight, bias or running statistic is NaN: the channel's output is NaN in evaluation.",
    "Take an earlier checkpoint; a NaN in a running statistic never goes away by training.",
    symptom="Constant or NaN output in evaluation while the loss in training looks fine: training "
    "normalises with the batch and does not read the statistics.",
    arithmetic="Which tensors are NaN tells the cause. running_var alone, in every channel: a "
    "training batch of one value a channel (0/0 in the unbiased variance). running_mean and "
    "running_var together: NaN in the activations of a training batch. running_mean infinite "
    "beside it: Inf in the activations. weight or bias alone: a diverged optimiser step.",
    certainty="Certain that it is there; the cause follows from the pattern.",
    lookalike="Tools that walk parameters() see none of it, since statistics are buffers.",
    seen=(
        "pytorch/pytorch#1206",
        "pytorch/pytorch#10008",
        "pytorch/pytorch#117217",
        "facebookresearch/SparseConvNet#190",
        "tensorflow/tensorflow#34062",
    ),
)
INFINITE = Rule(
    "BN202",
    "inf-in-checkpoint",
    Severity.ERROR,
    "A weight, bias or running statistic is infinite: the channel's output is constant or NaN.",
    "Take an earlier checkpoint, or the one in float32 that this one was made from.",
    symptom="Channels that are silently constant (running_var infinite: the scale is 0) or NaN.",
    arithmetic="running_var infinite beside a finite running_mean: the variance overflowed. In "
    "float16 that is a cast of a value above 65504, in float32 a sum of squares above 3.4e38, from "
    "inputs beyond about 1e19.",
    certainty="Certain that it is there; the cause follows from the dtype and the pattern.",
    lookalike="A running_var of 65504 exactly was clipped by the cast instead (BN502).",
    seen=("pytorch/pytorch#178123", "apple/coreai-torch#54"),
)
NOT_POSITIVE = Rule(
    "BN203",
    "variance-not-positive",
    Severity.ERROR,
    "running_var + eps is not above 0: the root is NaN or the scale infinite.",
    "Repair the conversion that wrote it; a variance is never negative.",
    symptom="NaN or Inf in evaluation from a file that loads without complaint.",
    arithmetic="The scale is weight / sqrt(running_var + eps). Many values at exactly -eps: eps "
    "was taken off variances of 0, as Detectron2's frozen layers of version < 3 and conversions "
    "from Caffe do. Only element 0 negative: the file was read at the wrong offset. Tiny negative "
    "values, at random: E[x^2] - E[x]^2 lost its digits. The sum is taken in the stored dtype too, "
    "since -1e-5 + 1e-5 is 0 in float32 and not in float64.",
    certainty="Certain for the eps at hand: the file's, --eps, or an assumed one.",
    lookalike="A negative variance that eps outweighs still works (BN204). Means and variances "
    "swapped are BN205.",
    seen=(
        "facebookresearch/detectron2#2413",
        "shicai/MobileNet-Caffe#87",
        "marvis/pytorch-caffe-darknet-convert#48",
        "google/flax#1491",
    ),
)
NEGATIVE = Rule(
    "BN204",
    "negative-variance",
    Severity.WARNING,
    "A running variance is negative, and only eps keeps the root real.",
    "Find out what subtracted from it; clip it at 0 if the channel is dead.",
    symptom="It works until eps is changed by a port, and the scale of such a channel is too "
    "large.",
    arithmetic="running_var < 0 < running_var + eps. Values near -eps mean that eps was taken off, "
    "as in conversions from Caffe; small values at random are the cancellation of E[x^2] - E[x]^2.",
    certainty="Certain as a fact. The layer computes; whether what was meant, the file cannot say.",
    lookalike="With running_var + eps at or below 0 it is BN203.",
    seen=("apache/mxnet#6176", "shicai/MobileNet-Caffe#87", "tensorflow/tensorflow#3290"),
)
SWAPPED = Rule(
    "BN205",
    "mean-and-variance-swapped",
    Severity.ERROR,
    "running_mean looks like variances and running_var like means: the two were swapped.",
    "Swap the two tensors in the conversion.",
    symptom="A converted network gives NaN or nonsense, though every shape fits.",
    arithmetic="running_var has values below -eps, and running_mean has no negative value in 8 "
    "channels or more. Means of both signs and variances of one are the rule.",
    certainty="That the layer cannot compute is certain; that it is a swap is nearly so, and surer "
    "with more channels.",
    lookalike="A single negative variance among many is BN203.",
    seen=("gmalivenko/pytorch2keras#120", "Vladkryvoruchko/PSPNet-Keras-tensorflow#31"),
)
SHAPES = Rule(
    "BN206",
    "shapes-disagree",
    Severity.ERROR,
    "The layer's tensors have different numbers of channels, or not one axis each.",
    "Look at the conversion or pruning that wrote it; weight, bias and statistics are one a "
    "channel.",
    symptom="Loading fails, or strict=False leaves some of the tensors as they were.",
    arithmetic="The shapes of weight, bias, running_mean and running_var are not the same (C,).",
    certainty="Certain.",
    lookalike="A counter of shape (1,) instead of () is harmless, and not blamed.",
)
NOT_JUDGED = Rule(
    "BN207",
    "not-judged",
    Severity.INFO,
    "Some of the layer's tensors could not be read, so that it was not judged whole.",
    "Save the values in a plain dtype and on a real device.",
    symptom="A note in the layer's row, and rules that stay silent about it.",
    arithmetic="None: the values are not there (quantised, on the meta device, complex, or "
    "damaged).",
    certainty="Certain.",
    lookalike="Tensors whose lengths disagree are BN206.",
)

RULES = (NAN, INFINITE, NOT_POSITIVE, NEGATIVE, SWAPPED, SHAPES, NOT_JUDGED)

FEWEST_FOR_SWAP = 8
"""Channels from which a running_mean without a negative value is no accident: one in 256."""


def check_nan(layer: Layer) -> list[Finding]:
    """BN201: which tensors are NaN, in which channels, and what that pattern means."""
    import numpy as np

    where = _where(layer, np.isnan)
    if not where:
        return []
    mean, var = where.get("running_mean"), where.get("running_var")
    infinite = layer.mean is not None and bool(np.isinf(layer.mean).any())
    if var is not None and mean is None and infinite:
        cause, why = "inf-activations", "an Inf in the activations of a training batch"
    elif var is not None and mean is None and var.all():
        cause = "one-value-a-channel"
        why = "a training batch had one value a channel, and 0/0 became its unbiased variance"
    elif var is not None and mean is None:
        cause, why = "spoilt-variance", "Inf - Inf or 0/0 in the variance of these channels"
    elif mean is not None and var is None:
        cause, why = "overwritten", "no batch leaves running_var finite there; it was overwritten"
    elif mean is not None:
        cause, why = "nan-activations", "NaN in the activations of a training batch"
    else:
        cause, why = "diverged", "a diverged optimiser step; the statistics are finite"
    return [_spoilt(NAN, layer, where, "NaN", cause, why)]


def check_infinite(layer: Layer) -> list[Finding]:
    """BN202: which tensors are infinite, and what that pattern means."""
    import numpy as np

    where = _where(layer, np.isinf)
    if not where:
        return []
    half = next((leaf for leaf in where if layer.dtypes.get(leaf) in HALVES), None)
    if half is not None:
        dtype = layer.dtypes[half]
        largest = "65504" if dtype == "float16" else "3.39e38"
        cause, why = "cast-to-half", f"a value above {largest} was cast to {dtype}"
    elif layer.var is not None and (layer.var == -np.inf).any():
        cause, why = "overwritten", "no variance is negative; it was overwritten"
    elif "running_var" in where and "running_mean" not in where:
        cause, why = "overflow", "the squares of inputs beyond about 1e19 overflowed"
    elif "running_mean" in where:
        cause, why = "inf-activations", "an Inf in the activations of a training batch"
    else:
        cause, why = "diverged", "a diverged optimiser step; the statistics are finite"
    return [_spoilt(INFINITE, layer, where, "infinite", cause, why)]


def check_negative(layer: Layer) -> list[Finding]:
    """BN203 to BN205: variances that are negative, or 0 where eps is."""
    import numpy as np

    if not layer.coherent:
        return []
    assert layer.var is not None
    assert layer.mean is not None
    var, eps = layer.var, layer.eps
    total = var + eps
    if layer.dtypes.get("running_var") != "float64":  # as PyTorch adds them
        total = np.minimum(total, var.astype(np.float32) + np.float32(eps))
    broken = total <= 0
    kept = (var < 0) & ~broken
    if _looks_swapped(layer.mean, var, eps):
        return [
            found(
                SWAPPED,
                layer,
                f"running_var is as low as {var.min():.6g} and negative in {named(var < 0)}, while "
                f"running_mean has no negative value in {len(var)} channels: the two are swapped.",
                "swapped",
                broken,
                running_mean=layer.mean,
                running_var=var,
            )
        ]
    findings = []
    for rule, channels in ((NOT_POSITIVE, broken), (NEGATIVE, kept)):
        if channels.any():
            cause, why = _why_negative(layer.mean, var, channels, eps)
            findings.append(
                found(
                    rule,
                    layer,
                    f"running_var is as low as {var[channels].min():.9g} in {named(channels)}, "
                    f"with {layer.eps_said}: {why}.",
                    cause,
                    channels,
                    extent=channel_extent("not positive", channels & broken),
                    running_var=var,
                    eps=eps,
                )
            )
    return findings


def check_shapes(layer: Layer) -> list[Finding]:
    """BN206 and BN207: tensors of other shapes, and tensors that could not be read."""
    shapes = {leaf: shape for leaf, shape in layer.shapes.items() if leaf != "num_batches_tracked"}
    findings = []
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        said = ", ".join(f"{leaf} {list(shape)}" for leaf, shape in shapes.items())
        findings.append(
            found(
                SHAPES,
                layer,
                f"the shapes disagree: {said}.",
                "other-network-or-damaged-conversion",
                shapes=[[leaf, *shape] for leaf, shape in shapes.items()],
            )
        )
    elif layer.unread:
        findings.append(
            found(
                NOT_JUDGED,
                layer,
                f"{len(layer.unread)} of {len(layer.shapes)} tensors could not be read: "
                f"{layer.unread[0]}",
                "unreadable",
                unread=list(layer.unread),
            )
        )
    return findings


CHECKS = (check_nan, check_infinite, check_negative, check_shapes)


def _where(layer: Layer, test: Any) -> dict[str, NDArray[Any]]:
    """The vectors in which some values pass the test, with which."""
    spoilt = {leaf: test(values) for leaf, values in layer.vectors.items() if values is not None}
    return {leaf: channels for leaf, channels in spoilt.items() if channels.any()}


def _spoilt(
    rule: Rule, layer: Layer, where: dict[str, NDArray[Any]], what: str, cause: str, why: str
) -> Finding:
    """A finding for tensors with values that are not finite."""
    facts = ", ".join(f"{leaf} in {named(channels)}" for leaf, channels in where.items())
    numbers = {f"{leaf}_channels": _indices(channels) for leaf, channels in where.items()}
    either = next(iter(where.values()))
    for channels in where.values():
        if channels.shape == either.shape:
            either = either | channels
    extent = tuple(
        run for leaf, channels in where.items() for run in channel_extent(leaf, channels)
    )
    return found(rule, layer, f"{what}: {facts}; {why}.", cause, either, extent=extent, **numbers)


def _indices(channels: NDArray[Any]) -> list[int]:
    import numpy as np

    indices: list[int] = np.flatnonzero(channels)[:MOST_EVIDENCE].tolist()
    return indices


def _looks_swapped(mean: NDArray[Any], var: NDArray[Any], eps: float) -> bool:
    """Whether the variances have signs and sizes of means, and the means none below 0."""
    import numpy as np

    if len(var) < FEWEST_FOR_SWAP or (var < -eps).sum() < 2 or (mean < 0).any():
        return False
    # Variances that cancelled beside large means are smaller than this.
    return median(np.abs(var)) > 1e-3 * median(mean) > 0


def _why_negative(
    mean: NDArray[Any], var: NDArray[Any], channels: NDArray[Any], eps: float
) -> tuple[str, str]:
    """The cause that the pattern of negative variances names, and its sentence."""
    import numpy as np

    if (var[channels] == 0).all():
        return "eps-0", "0 with an eps of 0, so that the scale is infinite"
    for taken in filter(None, (eps, 1e-5)):
        near = np.abs(var[channels] + taken) <= 1e-2 * taken
        if near.sum() * 2 >= len(near):
            why = f"{int(near.sum())} of {len(near)} at -{taken:g}, a variance of 0 less eps"
            return "eps-subtracted", why
    if len(var) > 1 and channels[0] and channels.sum() == 1:
        return "offset", "only element 0, as when a file is read at the wrong offset"
    if (np.abs(var[channels]) < 2.0**-18 * mean[channels] ** 2).all():
        return "cancellation", "within the digits that E[x^2] - E[x]^2 loses at such a mean"
    return "not-a-variance", "no variance is negative, so that these numbers are something else"
