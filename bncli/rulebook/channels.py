"""BN4xx: channels that are dead, that drown the others, or that have exploded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.light import np
from bncli.report import Finding, Severity
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
    "A running variance is below eps in a channel with a live weight: eps sets its scale.",
    "Look at why the channel's input hardly varies; keep the eps of training in every port.",
    symptom="Small differences in such a channel are blown up, by 316 |weight| at an eps of 1e-5, "
    "and another eps gives another network.",
    arithmetic="0 <= running_var < eps and |weight| of 0.01 or more. At running_var = eps the "
    "scale is 0.71 of what the data ask for, at eps/100 a tenth. From 1e-5 to an eps of 1e-3 it "
    "falls by 29 % where running_var is 1e-3, and tenfold far below.",
    certainty="That eps rules the scale is certain, for the eps at hand. Whether it harms is not: "
    "some published networks live with it.",
    lookalike="A channel whose weight has died with it is BN402. In a half-precision file a "
    "variance of exactly 0 is BN502.",
    seen=("pytorch/vision#2599", "gzuidhof/nn-transfer#3"),
)
DEAD = Rule(
    "BN402",
    "dead-channel",
    Severity.INFO,
    "The channel is dead: its variance is nothing beside eps, and its weight too is near 0.",
    "Nothing for this file; prune the channel, or lower the weight decay in the next run.",
    symptom="The channel's output is its bias for all inputs like those of training.",
    arithmetic="running_var is below a millionth of eps and |weight| below 0.01. Without input a "
    "float32 variance decays by 1 - m a batch and stops at 5.6e-45 for m = 0.1, 1.4e-45 for 0.3; "
    "there the product rounds back to the same subnormal number.",
    certainty="Certain that the channel carried nothing in training.",
    lookalike="The same variance under a live weight is BN401. Where most channels of most layers "
    "are so, the network has collapsed (BN407).",
)
ZERO_WEIGHT = Rule(
    "BN403",
    "zero-weight",
    Severity.INFO,
    "A weight is exactly 0: the channel's output is its bias.",
    "Nothing, if the branch was initialised so or pruned.",
    symptom="The last layer of a residual branch that adds nothing yet, or channels pruned to 0.",
    arithmetic="weight == 0 exactly, in a layer whose statistics are not the initial ones.",
    certainty="Certain as a fact, and often by design: residual branches commonly begin at 0.",
    lookalike="Weights that shrank to almost 0 all over a layer are BN404.",
)
COLLAPSED = Rule(
    "BN404",
    "layer-collapsed",
    Severity.WARNING,
    "No channel of the layer carries anything: its weights are next to 0.",
    "Look for the dead activation in front of it, or for a weight decay that won.",
    symptom="Everything behind this layer, or this residual branch, is all but constant.",
    arithmetic="In every channel |weight| is below 1e-6, or below 0.01 under a running_var below a "
    "millionth of eps, and not all weights are exactly 0. The output's standard deviation is "
    "|weight| sqrt(running_var / (running_var + eps)), at most 1e-5 then.",
    certainty="Certain that the layer passes nothing on of inputs like those of training; in a "
    "residual branch that the network learned to skip, it does no harm.",
    lookalike="Weights of exactly 0 all over are how residual branches begin (BN403). Variances "
    "near 0 under live weights are amplified, not constant (BN408), and statistics that are all "
    "exactly 0 were never written (BN208).",
)
OUTLIER = Rule(
    "BN405",
    "scale-outlier",
    Severity.INFO,
    "One channel's scale is many times that of all others in the layer.",
    "Look at that channel's variance and weight before quantising or pruning.",
    symptom="The layer's output is dominated by one channel.",
    arithmetic="The largest |weight / sqrt(running_var + eps)| is over 10 times the second largest "
    "and over 20 times the median of the live channels.",
    certainty="Certain as a fact.",
    lookalike="A scale that varies widely over many channels is BN504.",
    seen=("Xilinx/brevitas#494",),
)
HUGE = Rule(
    "BN406",
    "huge-variance",
    Severity.INFO,
    "A running variance is above 10000: inputs without scaling, or activations that explode.",
    "Scale the network's input, and look at what feeds this layer.",
    symptom="Training from this file in lower precision overflows; the layer in front works in "
    "unusual units.",
    arithmetic="running_var > 1e4, a standard deviation above 100 behind weights that usually keep "
    "it near 1. Pixels of 0 to 255 behind a first convolution reach it.",
    certainty="Certain as a fact; BatchNorm itself divides it away.",
    lookalike="Beyond 65504 float16 cannot hold it: BN503 says so.",
)

MOST_VARIANCE = 1e4
"""Pixels of 0 to 255 behind a first convolution reach it, and activations of a healthy network do
not: a factor of about 6 below what float16 holds."""
RAW_UNITS = 1e15
"""Up to here a variance needs no inputs that are out of the ordinary for raw units."""
FEWEST_CHANNELS = 4
"""Channels from which one of them can stand out."""


def check_channels(layer: Layer) -> list[Finding]:
    """BN401 to BN406 and BN408, for a layer with both statistics."""
    if not layer.coherent:
        return []
    assert layer.mean is not None
    assert layer.var is not None
    if not layer.mean.any() and (layer.var == 1).all():  # never estimated, which BN1xx says
        return []
    scale = scales(layer)
    amplified, collapsed = amplifies(layer, scale), _collapsed(layer)
    # What is said of a whole layer is not said of its channels again: amplifies() and _collapsed()
    # come first.
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
    """weight / sqrt(running_var + eps), shape (num_features,), of a coherent layer."""
    assert layer.var is not None
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
    """The channel whose scale is far above all others, if there is one; NaN is left out."""
    known = sizes[~np.isnan(sizes)]
    if len(known) < FEWEST_CHANNELS:
        return None
    second, first = np.partition(known, -2)[-2:]
    # One of several large ones is no outlier, and neither is the largest of a wide spread.
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
    most = float(moves.max(initial=0.0))
    return [
        found(
            COLLAPSED,
            layer,
            f"|weight| is {span(np.abs(weight))} in {named(faint)}"
            + (f", and running_var {span(var[known])}" if known.any() else "")
            + "; inputs that vary as running_var says give an output with a standard deviation "
            f"of {most:.3g} at most.",
            "dead-input-or-weight-decay",
            faint,
            running_var=var,
            weight=weight,
            output_std=most,
        )
    ]


def _below_eps(layer: Layer, scale: FloatArray) -> list[Finding]:
    """BN401: a small variance under a live weight, unless half precision has made it 0."""
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
            f"running_var is {span(var[below])} in {named(below)}, below {layer.eps_said}; the "
            f"scale reaches {abs(scale[worst]):.4g} in channel {worst}.",
            "input-hardly-varies",
            below,
            running_var=var,
            scale=scale,
            eps=layer.eps,
            weight=layer.weight,
        )
    ]


def _dead(layer: Layer, dead: NDArray[Any]) -> list[Finding]:
    """BN402, in the channels of a mask."""
    var, weight = layer.var, layer.weight
    assert var is not None
    if not dead.any():
        return []
    bias = "" if layer.bias is None else f" and |bias| at most {_most(layer.bias, dead):.4g}"
    return [
        found(
            DEAD,
            layer,
            f"{named(dead)}: running_var is at most {var[dead].max():.4g}, |weight| at most "
            f"{_most(weight, dead):.4g}{bias}.",
            "dead-input",
            dead,
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
    return [found(ZERO_WEIGHT, layer, f"weight is exactly 0 in {named(zeros)}.", cause, zeros)]


def _huge(layer: Layer) -> list[Finding]:
    """BN406."""
    var = layer.var
    assert var is not None
    huge = np.isfinite(var) & (var > MOST_VARIANCE)
    if not huge.any():
        return []
    return [
        found(
            HUGE,
            layer,
            f"running_var is {span(var[huge], '.6g')} in {named(huge)}.",
            "unscaled-input-or-explosion",
            huge,
            hint=_help_huge(float(var[huge].max())),
            running_var=var,
        )
    ]


def _outlier(layer: Layer, scale: FloatArray) -> list[Finding]:
    """BN405: one channel that drowns the others."""
    sizes = live_scales(layer, scale)
    channel = outlier(sizes)
    if channel is None:
        return []
    rest = np.delete(sizes, channel)
    middle = median(sizes[~np.isnan(sizes)])
    first, second = sizes[channel], np.nanmax(rest)
    return [
        found(
            OUTLIER,
            layer,
            f"the scale of channel {channel} is {scale[channel]:.4g}, {first / second:.3g} times "
            f"the next and {first / middle:.3g} times the median.",
            "outlier",
            np.arange(len(scale)) == channel,
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
    """The help for a variance that only inputs of such a size explain; "" for the usual one."""
    if most <= RAW_UNITS:
        return ""
    return (
        f"Look for inputs of about {most**0.5:.1g}; where there are none, the value was never "
        "filled or was edited, and is to be loaded again."
    )


def _most(values: NDArray[Any] | None, channels: NDArray[Any]) -> float:
    """The largest absolute value among some channels."""
    return 0.0 if values is None else float(np.abs(values[channels]).max())
