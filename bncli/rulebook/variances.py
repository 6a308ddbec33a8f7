"""BN203 to BN205, BN211: variances that cannot be, with their likely cause; eps and momentum."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bncli.light import np
from bncli.report import Certainty, Finding, Severity
from bncli.rulebook.interface import Rule, channel_extent, span
from bncli.rulebook.layers import Layer, found, named
from bncli.rulebook.order import median
from bncli.rulebook.origin import never_counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOT_POSITIVE = Rule(
    "BN203",
    "variance-not-positive",
    Severity.ERROR,
    "running_var + eps is not positive",
    "Find out what wrote it: a conversion, or an optimiser or average that included the buffers.",
    symptom="Evaluation gives NaN or Inf, though the file loads without complaint.",
    arithmetic="The scale is weight / sqrt(running_var + eps). If many values are exactly -eps, "
    "eps was subtracted from variances of 0, as in Detectron2's frozen layers of version < 3 and "
    "in conversions from Caffe. If only element 0 is negative, the file was read at the wrong "
    "offset. Tiny negative values in scattered channels come from cancellation in E[x^2] - E[x]^2, "
    "which for a mean of 1 loses everything below about 1e-6. With larger ones, an optimiser or an "
    "average treated the buffers as weights, or a conversion put other numbers there. The sum is "
    "also taken in the stored dtype, since -1e-5 + 1e-5 is 0 in float32 and not in float64.",
    certainty="Certain if eps comes from the file or from --eps. If eps is assumed, the finding "
    "depends on it, except where the variance is so negative (below -0.01) that no usual eps could "
    "make the sum positive.",
    lookalike="A negative variance that eps makes up for still works (BN204). Means and variances "
    "that were swapped are BN205, and a running_var that is running_mean bit for bit is BN210.",
    seen=(
        "facebookresearch/detectron2#2413",
        "shicai/MobileNet-Caffe#87",
        "marvis/pytorch-caffe-darknet-convert#48",
        "google/flax#1491",
    ),
    less_sure=(Certainty.ASSUMED,),
)
NEGATIVE = Rule(
    "BN204",
    "negative-variance",
    Severity.WARNING,
    "running_var is negative, and only eps keeps the root real",
    "Find out what was subtracted from it, and clip it at 0 if the channel is dead.",
    symptom="The layer works until a port changes eps, and the scale of such a channel is too "
    "large.",
    arithmetic="running_var < 0 < running_var + eps. Values near -eps mean that eps was "
    "subtracted, as in conversions from Caffe; small values in scattered channels come from the "
    "cancellation in E[x^2] - E[x]^2.",
    certainty="Certain if eps comes from the file or from --eps; if eps is assumed, the finding "
    "depends on it. The layer works; the file does not show whether its output is the intended "
    "one.",
    lookalike="If running_var + eps is 0 or less, it is BN203.",
    seen=("apache/mxnet#6176", "shicai/MobileNet-Caffe#87", "tensorflow/tensorflow#3290"),
    less_sure=(Certainty.ASSUMED,),
)
SWAPPED = Rule(
    "BN205",
    "mean-and-variance-swapped",
    Severity.ERROR,
    "running_mean and running_var were swapped",
    "Swap the two tensors in the conversion.",
    symptom="A converted network gives NaN or nonsense, though every shape fits.",
    arithmetic="running_var has both positive values and several below -eps, while running_mean "
    "has no negative value; the layer has at least 8 channels. Means usually have both signs, and "
    "variances only one.",
    certainty="Likely, and more so with more channels. It is certain that the layer cannot compute "
    "its output.",
    lookalike="A single negative variance among many is BN203.",
    sure=Certainty.LIKELY,
    seen=("gmalivenko/pytorch2keras#120", "Vladkryvoruchko/PSPNet-Keras-tensorflow#31"),
)
BAD_ARGUMENT = Rule(
    "BN211",
    "impossible-eps-or-momentum",
    Severity.ERROR,
    "the stored eps or momentum is a number that no layer can have",
    "Give the layer the eps and the momentum that it was trained with, and write the file again.",
    symptom="Such an eps can make the output NaN, Inf or 0, and with such a momentum the running "
    "statistics can become NaN, negative or larger with each batch.",
    arithmetic="eps is not a finite number of 0 or above, or momentum is not between 0 and 1.",
    certainty="Certain as a fact about the file.",
    lookalike="A possible eps that is too small for a variance of 0 or below is BN203, and a "
    "momentum in another framework's sense is BN701.",
)

FEWEST_FOR_SWAP = 8
"""In this many channels, a running_mean has no negative value by accident once in 256 times."""
MOST_EPS = 0.01
"""No usual eps is larger: a variance below its negative is not positive under any."""


def check_arguments(layer: Layer) -> list[Finding]:
    """BN211: an eps or a momentum of the file that cannot be."""
    said = []
    if not (layer.eps_assumed or 0 <= layer.eps < math.inf):
        said.append(f"eps is {layer.eps:g}")
    momentum = layer.momentum
    if not (layer.momentum_assumed or momentum is None or 0 <= momentum <= 1):
        from bncli.running_stats.stored import said_momentum

        said.append(said_momentum(layer.state.module, momentum).replace(" ", " is ", 1))
    if not said:
        return []
    cause = "eps" if said[0].startswith("eps") else "momentum"
    return [found(BAD_ARGUMENT, layer, f"the layer's {' and its '.join(said)}", cause)]


def check_negative(layer: Layer) -> list[Finding]:
    """BN203 to BN205: variances that are negative, or 0 where eps is."""
    if not layer.coherent:
        return []
    assert layer.var is not None
    assert layer.mean is not None
    var, eps = layer.var, layer.eps
    total = var + eps
    if layer.dtypes.get("running_var") != "float64":  # as PyTorch adds them
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.minimum(total, var.astype(np.float32) + np.float32(eps))
    broken = np.isfinite(var) & (total <= 0)
    kept = np.isfinite(var) & (var < 0) & ~broken
    if _looks_swapped(layer.mean, var, eps):
        return [
            found(
                SWAPPED,
                layer,
                f"running_var is negative in {named(var < 0)}, running_mean in none",
                "swapped",
                broken,
                detail=f"The negative variances are {span(var[var < 0])}. Means have both signs, "
                "and variances do not: the two were swapped.",
                running_mean=layer.mean,
                running_var=var,
            )
        ]
    findings = []
    for rule, channels in ((NOT_POSITIVE, broken), (NEGATIVE, kept)):
        if channels.any():
            cause, why = _why_negative(layer, channels)
            sure = _sure(layer, var[channels])
            # Where no usual eps would change the claim, it does not rest on an assumed one.
            eps_said = f"eps {eps:g}" if sure is Certainty.CERTAIN else layer.eps_said
            findings.append(
                found(
                    rule,
                    layer,
                    f"running_var is {span(var[channels])} in {named(channels)}, "
                    + ("too low for " if rule is NOT_POSITIVE else "kept positive by ")
                    + eps_said,
                    cause,
                    channels,
                    detail=why,
                    hint=_FIXES[cause],
                    sure=sure,
                    extent=channel_extent("not positive", channels & broken),
                    running_var=var,
                    running_mean=layer.mean,
                    eps=eps,
                    eps_assumed=layer.eps_assumed,
                )
            )
    return findings


LAYER_CHECKS = (check_arguments, check_negative)


def _looks_swapped(mean: NDArray[Any], var: NDArray[Any], eps: float) -> bool:
    """Whether the variances have the signs and sizes of means, and no mean is negative."""
    if len(var) < FEWEST_FOR_SWAP or (var < -eps).sum() < 2 or not (mean >= 0).all():
        return False
    if not (var > 0).any():  # means have both signs
        return False
    # Variances that cancelled at large means are smaller than this.
    return median(np.abs(var)) > 1e-3 * median(mean) > 0


def _sure(layer: Layer, var: NDArray[Any]) -> Certainty | None:
    """Certain without regard to eps, where all are too low for any; None leaves it open."""
    return Certainty.CERTAIN if var.max() < -max(MOST_EPS, layer.eps) else None


_FIXES = {
    "eps-0": "Give the eps of training, by --eps or in the model.",
    "eps-subtracted": "Add eps to running_var again, in the conversion or where the file is "
    "loaded.",
    "offset": "Read the tensor again, starting one value later.",
    "cancellation": "Compute the variance from x - mean, in two passes or in float64.",
    "not-a-variance": "Leave buffers out of the optimiser and of averages with weights below 0 or "
    "above 1, or correct the conversion.",
}
"""The fix for each cause of BN203 and BN204."""


def _why_negative(layer: Layer, channels: NDArray[Any]) -> tuple[str, str]:
    """The cause that the pattern of negative variances points to, and its sentence."""
    assert layer.mean is not None
    assert layer.var is not None
    mean, var, eps = layer.mean, layer.var, layer.eps
    if (var[channels] == 0).all():
        return "eps-0", "eps is 0 too, so the scale is infinite."
    for taken in filter(None, (eps, 1e-5)):
        near = np.abs(var[channels] + taken) <= 1e-2 * taken
        if near.sum() * 2 >= len(near):
            which = f"{int(near.sum())} of {len(near)} are" if len(near) > 1 else "It is"
            return "eps-subtracted", f"{which} at -{taken:g}, which is 0 less eps."
    if len(var) > 1 and channels[0] and channels.sum() == 1:
        return "offset", "Only element 0 is negative, as when a file is read at the wrong offset."
    size, square = np.abs(var[channels]), mean[channels] ** 2
    if (size < 2.0**-18 * square).all():
        return "cancellation", "E[x^2] - E[x]^2 loses as much to rounding at this mean."
    causes = "an optimiser that also updates buffers, an average with weights outside 0 to 1, "
    if (size < 2.0**-5 * square).all():
        causes += "E[x^2] - E[x]^2 in half precision, "
    zero = ""
    if never_counted(layer):
        zero, causes = " num_batches_tracked is 0.", f"memory that was never filled, {causes}"
    return "not-a-variance", (
        f"A batch cannot make a variance negative. The likely cause is {causes}or a faulty "
        f"conversion.{zero}"
    )
