"""BN203 to BN205: variances that are none, with the pattern that names the cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.light import np
from bncli.report import Finding, Severity
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
    "running_var + eps is not above 0: the root is NaN or the scale infinite.",
    "Find out what wrote it: a conversion, or an optimiser or average that took in the buffers.",
    symptom="NaN or Inf in evaluation from a file that loads without complaint.",
    arithmetic="The scale is weight / sqrt(running_var + eps). Many values at exactly -eps: eps "
    "was taken off variances of 0, as Detectron2's frozen layers of version < 3 and conversions "
    "from Caffe do. Only element 0 negative: the file was read at the wrong offset. Tiny negative "
    "values, at random: E[x^2] - E[x]^2 lost its digits, those below 1e-6 at a mean of 1. "
    "Larger ones: something stepped or averaged the buffers as if they were weights, or a "
    "conversion put other numbers there. The sum is taken in the stored dtype too, since -1e-5 + "
    "1e-5 is 0 in float32 and not in float64.",
    certainty="Certain for the eps at hand: the file's, --eps, or an assumed one.",
    lookalike="A negative variance that eps outweighs still works (BN204). Means and variances "
    "swapped are BN205, and a running_var that is running_mean bit for bit is BN210.",
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
    arithmetic="running_var has values above 0 and below -eps, and running_mean has no negative "
    "value in 8 channels or more. Means of both signs and variances of one are the rule.",
    certainty="That the layer cannot compute is certain; that it is a swap is nearly so, and surer "
    "with more channels.",
    lookalike="A single negative variance among many is BN203.",
    seen=("gmalivenko/pytorch2keras#120", "Vladkryvoruchko/PSPNet-Keras-tensorflow#31"),
)

FEWEST_FOR_SWAP = 8
"""Channels from which a running_mean without a negative value is no accident: one in 256."""


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
                f"running_var is {span(var[var < 0], '.6g')} in {named(var < 0)}, while "
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
            cause, why = _why_negative(layer, channels)
            findings.append(
                found(
                    rule,
                    layer,
                    f"running_var is {span(var[channels], '.9g')} in {named(channels)}, "
                    f"with {layer.eps_said}: {why}.",
                    cause,
                    channels,
                    hint=_MENDS[cause],
                    extent=channel_extent("not positive", channels & broken),
                    running_var=var,
                    running_mean=layer.mean,
                    eps=eps,
                )
            )
    return findings


LAYER_CHECKS = (check_negative,)


def _looks_swapped(mean: NDArray[Any], var: NDArray[Any], eps: float) -> bool:
    """Whether the variances have signs and sizes of means, and the means none below 0."""
    if len(var) < FEWEST_FOR_SWAP or (var < -eps).sum() < 2 or not (mean >= 0).all():
        return False
    if not (var > 0).any():  # means have both signs
        return False
    # Variances that cancelled beside large means are smaller than this.
    return median(np.abs(var)) > 1e-3 * median(mean) > 0


_MENDS = {
    "eps-0": "Give the eps of training, by --eps or in the model.",
    "eps-subtracted": "Add eps to running_var again, in the conversion or where the file is "
    "loaded.",
    "offset": "Read the tensor again, one value later.",
    "cancellation": "Compute the variance from x - mean, in two passes or in float64.",
    "not-a-variance": "Leave buffers out of the optimiser and of averages with weights below 0 or "
    "above 1; else repair the conversion.",
}
"""The mend for each cause of BN203 and BN204."""


def _why_negative(layer: Layer, channels: NDArray[Any]) -> tuple[str, str]:
    """The cause that the pattern of negative variances names, and its sentence."""
    assert layer.mean is not None
    assert layer.var is not None
    mean, var, eps = layer.mean, layer.var, layer.eps
    if (var[channels] == 0).all():
        return "eps-0", "0 with an eps of 0, so that the scale is infinite"
    for taken in filter(None, (eps, 1e-5)):
        near = np.abs(var[channels] + taken) <= 1e-2 * taken
        if near.sum() * 2 >= len(near):
            why = f"{int(near.sum())} of {len(near)} at -{taken:g}, a variance of 0 less eps"
            return "eps-subtracted", why
    if len(var) > 1 and channels[0] and channels.sum() == 1:
        return "offset", "only element 0, as when a file is read at the wrong offset"
    size, square = np.abs(var[channels]), mean[channels] ** 2
    if (size < 2.0**-18 * square).all():
        return "cancellation", "within the digits that E[x^2] - E[x]^2 loses at such a mean"
    causes = "an optimiser that steps buffers too, an average that extrapolates, "
    if (size < 2.0**-5 * square).all():
        causes += "E[x^2] - E[x]^2 in half precision, "
    if never_counted(layer):
        causes = f"num_batches_tracked is 0; memory that was never filled, {causes}"
    return "not-a-variance", (
        f"no batch makes a variance negative; {causes}or a conversion wrote it"
    )
