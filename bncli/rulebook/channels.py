"""BN4xx: channels that are dead, that dominate the others, or that have exploded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.light import np
from bncli.report import Certainty, Finding, Severity
from bncli.rulebook.collapse import amplifies
from bncli.rulebook.interface import Rule, span
from bncli.rulebook.layers import HALVES, Layer, found, named
from bncli.rulebook.order import median

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray

BELOW_EPS = Rule(
    "BN401",
    "running-variance-below-eps",
    Severity.WARNING,
    "running_var is below eps while the weight is not near 0",
    "Find out why the channel's input hardly varies, and keep the eps of training in every port.",
    symptom="Small differences in such a channel are amplified, by up to 316 |weight| at an eps of "
    "1e-5, and another eps gives another network.",
    arithmetic="0 <= running_var < eps and |weight| >= 0.01. At running_var = eps the scale is "
    "0.71 of 1/sqrt(running_var), at eps/100 a tenth of it. Raising eps from 1e-5 to 1e-3 lowers "
    "the scale by 29% where running_var is 1e-3, and tenfold where it is far below 1e-5.",
    certainty="Certain, for the eps that was used, that it dominates the scale; if eps is assumed, "
    "the finding depends on it. Whether it does harm is not known: some published networks work "
    "with it.",
    lookalike="A channel whose weight is near 0 as well is BN402. In a half-precision file, a "
    "variance of exactly 0 is BN502.",
    seen=("pytorch/vision#2599", "gzuidhof/nn-transfer#3"),
    less_sure=(Certainty.ASSUMED,),
)
DEAD = Rule(
    "BN402",
    "dead-channel",
    Severity.INFO,
    "channels are dead, with running_var and weight close to 0",
    "This file needs no fix; prune the channels, or lower the weight decay in the next run.",
    symptom="For inputs like those seen in training, the channel's output is constant and equals "
    "its bias.",
    arithmetic="running_var is below a millionth of eps and |weight| below 0.01. Without input, a "
    "float32 variance is multiplied by 1 - m in each batch and stops at 5.6e-45 for m = 0.1, or "
    "1.4e-45 for 0.3, where the product rounds back to the same subnormal number.",
    certainty="Certain that the channel carried nothing in training.",
    lookalike="The same variance with a weight that is not near 0 is BN401. If most channels of "
    "many layers are dead, the network has collapsed (BN407).",
)
ZERO_WEIGHT = Rule(
    "BN403",
    "zero-weight",
    Severity.INFO,
    "weight is exactly 0 in some channels",
    "No fix is needed if the branch was initialised to 0 or pruned.",
    symptom="The channel's output is its bias. This happens in the last layer of a residual branch "
    "that adds nothing yet, and in channels that were pruned.",
    arithmetic="weight == 0 exactly, in a layer whose statistics are not the initial ones.",
    certainty="Certain as a fact, and often intended: residual branches commonly begin at 0.",
    lookalike="Weights that shrank close to 0 throughout a layer are BN404.",
)
COLLAPSED = Rule(
    "BN404",
    "layer-collapsed",
    Severity.WARNING,
    "no channel passes anything on, since all weights are close to 0",
    "Look for a dead activation before the layer, or for too much weight decay.",
    symptom="Everything after this layer, or in its residual branch, is almost constant.",
    arithmetic="In every channel |weight| is below 1e-6, or below 0.01 where running_var is below "
    "a millionth of eps, and not all weights are exactly 0. The output's standard deviation, "
    "|weight| sqrt(running_var / (running_var + eps)), is then at most 1e-5.",
    certainty="Certain that, for inputs like those seen in training, the layer's output is "
    "practically constant. In a residual branch that the network learned to skip, this does no "
    "harm.",
    lookalike="Weights that are all exactly 0 are how residual branches begin (BN403). Variances "
    "near 0 with weights that are not near 0 amplify the input (BN408), and statistics that are "
    "all exactly 0 were never written (BN208).",
)
OUTLIER = Rule(
    "BN405",
    "scale-outlier",
    Severity.INFO,
    "one channel's scale is far above all others",
    "Look at that channel's variance and weight before you quantise or prune.",
    symptom="One channel dominates the layer's output.",
    arithmetic="The scale is |weight / sqrt(running_var + eps)|. The largest one is more than 10 "
    "times the second and more than 20 times the median, taken over the channels whose |weight| is "
    "0.01 or more and whose running_var is not below eps.",
    certainty="Certain, unless running_var is below 100 eps and eps is assumed; then the finding "
    "depends on it.",
    lookalike="Scales that vary widely over many channels are BN504.",
    seen=("Xilinx/brevitas#494",),
    less_sure=(Certainty.ASSUMED,),
)
HUGE = Rule(
    "BN406",
    "huge-variance",
    Severity.INFO,
    "running_var is above 10000",
    "Scale the network's input, and look at what feeds this layer.",
    symptom="Continuing training from this file in lower precision overflows.",
    arithmetic="running_var > 1e4: the input's standard deviation is above 100, where weights "
    "usually keep it near 1. Pixels of 0 to 255 before a first convolution lead to such variances "
    "after it.",
    certainty="Certain as a fact. BatchNorm's output is not affected, since it is divided by the "
    "root of running_var.",
    lookalike="Above 65504, float16 cannot hold it, which is BN503.",
)

MOST_VARIANCE = 1e4
"""Pixels of 0 to 255 behind a first convolution reach it, and activations of a healthy network do
not: a factor of about 6 below what float16 holds."""
RAW_UNITS = 1e15
"""The largest variance that inputs in raw units explain."""
FEWEST_CHANNELS = 4
"""The fewest channels among which one can stand out."""


def check_channels(layer: Layer) -> list[Finding]:
    """BN401 to BN406 and BN408, for a layer with both statistics."""
    if not layer.coherent:
        return []
    assert layer.mean is not None
    assert layer.var is not None
    if not layer.mean.any() and (layer.var == 1).all():  # never estimated, see BN1xx
        return []
    scale = scales(layer)
    amplified, collapsed = amplifies(layer, scale), _collapsed(layer)
    # What is reported of a whole layer is not reported again of its channels.
    dead = layer.dead() & (not collapsed)
    return [
        *amplified,
        *collapsed,
        *([] if amplified else _below_eps(layer, scale)),
        *_dead(layer, dead),
        *_zero_weight(layer, dead),
        *_huge(layer),
        *_outlier(layer, scale),
    ]


LAYER_CHECKS = (check_channels,)


def scales(layer: Layer) -> FloatArray:
    """weight / sqrt(running_var + eps), shape (num_features,), of a coherent layer.

    NaN where the weight could not be read.
    """
    assert layer.var is not None
    if layer.weight_unknown:
        return np.full(len(layer.var), np.nan)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        inverse = 1.0 / np.sqrt(layer.var + layer.eps)
        return inverse if layer.weight is None else layer.weight * inverse


def live_scales(layer: Layer, scale: FloatArray) -> FloatArray:
    """The |scale| of each channel, NaN for those that are not live, or below eps (BN401)."""
    assert layer.var is not None
    finite = np.isfinite(scale) & np.isfinite(layer.var)
    counts = layer.live() & finite & (layer.var >= layer.eps)
    sizes: FloatArray = np.where(counts, np.abs(scale), np.nan)
    return sizes


def outlier(sizes: FloatArray) -> int | None:
    """The channel whose scale is far above all others, if there is one; NaN does not count."""
    known = sizes[~np.isnan(sizes)]
    if len(known) < FEWEST_CHANNELS:
        return None
    second, first = np.partition(known, -2)[-2:]
    # Neither one of several large scales nor the largest of a wide range is an outlier.
    if first > 10 * second and first > 20 * median(known):
        return int(np.nanargmax(sizes))
    return None


def _collapsed(layer: Layer) -> list[Finding]:
    """BN404: no channel passes anything on, and not because all weights are exactly 0."""
    var, weight = layer.var, layer.weight
    assert var is not None
    faint = layer.dead() | layer.weightless()
    if weight is None or not faint.all() or not weight.any():
        return []
    known = np.isfinite(var)
    moves = np.abs(weight[known]) * np.sqrt(_share(var[known], layer.eps))
    most = float(moves.max(initial=0.0)) + 0.0  # which is not -0
    return [
        found(
            COLLAPSED,
            layer,
            f"|weight| is only {span(np.abs(weight))} in {named(faint)}",
            "dead-input-or-weight-decay",
            faint,
            detail=f"With a running_var of {span(var[known])}, the output's standard deviation is "
            f"at most {most:.3g}."
            if known.any()
            else "",
            running_var=var,
            weight=weight,
            output_std=most,
        )
    ]


def _below_eps(layer: Layer, scale: FloatArray) -> list[Finding]:
    """BN401: a small variance with a weight not near 0, unless half precision has made it 0."""
    var = layer.var
    assert var is not None
    lost = var == 0 if layer.dtypes.get("running_var") in HALVES else False
    below = np.isfinite(var) & (var >= 0) & (var < layer.eps) & layer.live() & ~np.asarray(lost)
    if not below.any():
        return []
    worst = int(np.argmax(np.where(below, np.abs(scale), -1)))
    return [
        found(
            BELOW_EPS,
            layer,
            f"running_var is {span(var[below])} in {named(below)}, below {layer.eps_said}",
            "input-hardly-varies",
            below,
            detail=f"The scale |weight| / sqrt(running_var + eps) reaches {abs(scale[worst]):.4g}, "
            f"in channel {worst}.",
            running_var=var,
            scale=scale,
            eps=layer.eps,
            eps_assumed=layer.eps_assumed,
            weight=layer.weight,
        )
    ]


def _dead(layer: Layer, dead: NDArray[Any]) -> list[Finding]:
    """BN402, in the channels of a mask."""
    var, weight = layer.var, layer.weight
    assert var is not None
    if not dead.any():
        return []
    are = "are" if dead.sum() > 1 else "is"
    most = _most(layer.bias, dead)
    output = f"the bias, at most {most:.3g} in size" if most else "0"
    return [
        found(
            DEAD,
            layer,
            f"{named(dead)} {are} dead: running_var <= {var[dead].max():.3g}, |weight| <= "
            f"{_most(weight, dead):.3g}",
            "dead-input",
            dead,
            detail=f"The output there is {output}.",
            running_var=var,
        )
    ]


def _zero_weight(layer: Layer, dead: NDArray[Any]) -> list[Finding]:
    """BN403, where the channel is not dead."""
    if layer.weight is None:
        return []
    zeros = (layer.weight == 0) & ~dead
    if not zeros.any():
        return []
    cause = "initialised-to-0" if zeros.all() else "pruned"
    return [
        found(
            ZERO_WEIGHT,
            layer,
            f"weight is exactly 0 in {named(zeros)}",
            cause,
            zeros,
            detail=f"The output there is {'0' if layer.bias is None else 'the bias'}.",
        )
    ]


def _huge(layer: Layer) -> list[Finding]:
    """BN406."""
    var = layer.var
    assert var is not None
    huge = np.isfinite(var) & (var > MOST_VARIANCE)
    if not huge.any():
        return []
    most = float(var[huge].max())
    why = ": it is not scaled, or activations explode" * (most <= RAW_UNITS)
    return [
        found(
            HUGE,
            layer,
            f"running_var is {span(var[huge])} in {named(huge)}",
            "unscaled-input-or-explosion",
            huge,
            detail=f"The input's standard deviation reaches {most**0.5:.3g}{why}.",
            hint=_help_huge(most),
            running_var=var,
        )
    ]


def _outlier(layer: Layer, scale: FloatArray) -> list[Finding]:
    """BN405: one channel that dominates the others."""
    sizes = live_scales(layer, scale)
    channel = outlier(sizes)
    if channel is None:
        return []
    rest = np.delete(sizes, channel)
    middle = median(sizes[~np.isnan(sizes)])
    first, second = sizes[channel], np.nanmax(rest)
    here = np.arange(len(scale)) == channel
    return [
        found(
            OUTLIER,
            layer,
            f"channel {channel} of {len(sizes)} has a scale of {first:.4g}, {first / second:.3g} "
            "times the next largest",
            "outlier",
            here,
            detail=f"The median over the channels that carry a signal is {middle:.4g}"
            f"{layer.under_eps(here)}.",
            sure=layer.sure_of_scales(here),
            scale=scale,
            median=middle,
        )
    ]


def _share(var: FloatArray, eps: float) -> FloatArray:
    """running_var / (running_var + eps), the variance of the normalised input; 0 for 0 / 0."""
    total = var + eps
    share: FloatArray = np.divide(var, total, out=np.zeros(len(var)), where=total > 0)
    return np.clip(share, 0, 1)


def _help_huge(most: float) -> str:
    """The fix for a variance that only inputs of such a size explain; "" for the rule's own."""
    if most <= RAW_UNITS:
        return ""
    return (
        f"Look for inputs of about {most**0.5:.1g}. If there are none, load the value again: it "
        "was edited, or its memory was never filled."
    )


def _most(values: NDArray[Any] | None, channels: NDArray[Any]) -> float:
    """The largest absolute value among some channels."""
    return 0.0 if values is None else float(np.abs(values[channels]).max())
