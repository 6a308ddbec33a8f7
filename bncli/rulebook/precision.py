"""BN5xx: what half precision has cost, or would, and what int8 would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.light import np
from bncli.report import Finding, Severity
from bncli.rulebook.channels import FEWEST_CHANNELS, live_scales, outlier, scales
from bncli.rulebook.interface import Rule
from bncli.rulebook.layers import HALVES, Checkpoint, Layer, found, label, named
from bncli.rulebook.order import median

if TYPE_CHECKING:
    from bncli.model import FloatArray

HALF_STATISTICS = Rule(
    "BN501",
    "half-precision-statistics",
    Severity.WARNING,
    "The running statistics are in half precision and other weights in float32.",
    "Keep running_mean and running_var in float32, in the file and in training.",
    symptom="Statistics that stop moving before they arrive, and variances that round to 0 or Inf.",
    arithmetic="running_mean or running_var is float16 or bfloat16, while the layer's weight or "
    "other layers of the file are float32. An update smaller than half a last place is lost: the "
    "average stalls up to u/m of its value short of its goal, u = 2^-11 or 2^-8, m the momentum.",
    certainty="Certain as a fact. How much is lost depends on the momentum: with m = 0.001, "
    "a bfloat16 running_mean stops half-way from 0 to 1, and a running_var never leaves 1 for 2.",
    lookalike="A file that is wholly in half precision was cast for inference (BN505).",
    seen=("NVIDIA/apex#144", "pytorch/pytorch#70901"),
)
LOST = Rule(
    "BN502",
    "lost-to-precision",
    Severity.WARNING,
    "A value was lost to half precision: a variance of exactly 0, or one clipped at the largest.",
    "Make the file again from the float32 one and leave the running statistics in float32.",
    symptom="Channels whose scale changed after a cast.",
    arithmetic="A float16 variance below 6e-8 rounds to 0, one below 6e-5 loses digits; above "
    "65504 it becomes Inf (BN202) or is clipped to 65504. Reported where the weight is live.",
    certainty="That a trained variance is exactly 0 under a live weight is almost always the cast; "
    "the float32 file tells.",
    lookalike="A dead channel has a dead weight as well (BN402).",
    seen=("pytorch/vision#2599",),
)
NOT_IN_FLOAT16 = Rule(
    "BN503",
    "would-not-fit-half",
    Severity.INFO,
    "A cast to float16 would lose a value of this layer.",
    "Leave BatchNorm in float32 when the rest is cast, or fold it into the convolution first.",
    symptom="After half() the network gives NaN, Inf, or silent channels.",
    arithmetic="running_var or |running_mean| above 65504 becomes Inf; a scale above 65504 does "
    "too; a running_var below 3e-8 becomes 0, which is felt only beside an eps of 3e-6 or less. "
    "bfloat16 has float32's range and loses digits instead: it is named where even that range is "
    "left.",
    certainty="Certain for a plain cast.",
    lookalike="Automatic mixed precision keeps BatchNorm in float32, and nothing happens.",
    seen=("apple/coreai-torch#54", "pytorch/pytorch#115500"),
)
FOLDING = Rule(
    "BN504",
    "hard-to-fold",
    Severity.INFO,
    "The scale varies so much between channels that int8 weights for the whole tensor break.",
    "Quantise the folded convolution channel by channel, or equalise the channels first.",
    symptom="Accuracy falls to chance after post-training quantisation.",
    arithmetic="Folding multiplies each output channel of the convolution by |weight / "
    "sqrt(running_var + eps)|. If the largest is 64 times the median of the live channels, an int8 "
    "step for the whole tensor leaves the median channel two steps each way.",
    certainty="Certain for the scale; the convolution's own weights may balance it.",
    lookalike="Quantisation by channel does not mind.",
    seen=("Xilinx/brevitas#494",),
)
WHOLLY_HALF = Rule(
    "BN505",
    "wholly-half",
    Severity.INFO,
    "All weights and running statistics of the file are in half precision.",
    "Fine for inference; cast the running statistics to float32 before training goes on.",
    symptom="None by itself.",
    arithmetic="No weight, bias or running statistic is wider than float16 or bfloat16.",
    certainty="Certain.",
    lookalike="Half-precision statistics beside float32 weights are BN501.",
)

LARGEST = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38}
ROUNDS_TO_ZERO = 2.0**-25
"""Half of float16's smallest subnormal number: anything up to here becomes 0."""
FELT = 0.01
"""The share of eps below which a variance that is lost changes the scale by less than 0.5 %."""
MOST_RANGE = 64.0
"""The scale, over the median channel's, that leaves this one 2 of int8's 127 steps each way."""


def check_lost(layer: Layer) -> list[Finding]:
    """BN502: variances that half precision has turned to 0 or clipped."""
    dtype = layer.dtypes.get("running_var")
    if not layer.coherent or dtype not in HALVES:
        return []
    assert layer.var is not None
    live = layer.live()
    zero, clipped = live & (layer.var == 0), live & (layer.var == LARGEST[dtype])
    lost = zero | clipped
    if not lost.any():
        return []
    facts = []
    if zero.any():
        facts.append(f"exactly 0 in {named(zero)}")
    if clipped.any():
        facts.append(f"{LARGEST[dtype]:g}, the largest there is, in {named(clipped)}")
    return [
        found(
            LOST,
            layer,
            f"running_var is {dtype}, and {' and '.join(facts)}, beside live weights.",
            "cast-to-half",
            lost,
            running_var=layer.var,
        )
    ]


def check_casts(layer: Layer) -> list[Finding]:
    """BN503, and BN504: what a cast to half precision or to int8 would do."""
    if not layer.coherent:
        return []
    assert layer.mean is not None
    assert layer.var is not None
    findings = []
    scale = scales(layer)
    if layer.dtypes.get("running_var") not in HALVES:
        tests = {
            "running_var would be Inf": layer.var > LARGEST["float16"],
            "running_mean would be Inf": np.abs(layer.mean) > LARGEST["float16"],
            "the scale would be Inf": np.abs(scale) > LARGEST["float16"],
            "running_var would be 0": (layer.var > FELT * layer.eps)
            & (layer.var <= ROUNDS_TO_ZERO),
        }
        finite = np.isfinite(layer.var) & np.isfinite(layer.mean) & (layer.var >= 0)
        hit = {fact: channels & finite for fact, channels in tests.items()}
        hit = {fact: channels for fact, channels in hit.items() if channels.any()}
        if hit:
            bfloat16 = (np.abs(layer.mean) > LARGEST["bfloat16"]) | (
                layer.var > LARGEST["bfloat16"]
            )
            facts = ", ".join(f"{fact} in {named(channels)}" for fact, channels in hit.items())
            also = "; bfloat16 would not hold it either" * bool((bfloat16 & finite).any())
            findings.append(
                found(
                    NOT_IN_FLOAT16,
                    layer,
                    f"in float16 {facts}{also}.",
                    "range-of-float16",
                    np.logical_or.reduce(list(hit.values())),
                    running_var=layer.var,
                    running_mean=layer.mean,
                )
            )
    return findings + _folding(layer, scale)


def _folding(layer: Layer, scale: FloatArray) -> list[Finding]:
    """BN504, where BN405 does not name the one channel that is to blame."""
    sizes = live_scales(layer, scale)
    known = sizes[~np.isnan(sizes)]
    if len(known) < FEWEST_CHANNELS:
        return []
    middle = median(known)
    wide = np.nan_to_num(sizes) > MOST_RANGE * middle
    if not wide.any() or (wide.sum() == 1 and outlier(sizes) is not None):
        return []
    most = float(known.max())
    return [
        found(
            FOLDING,
            layer,
            f"the largest scale is {most:.4g}, {most / middle:.3g} times the median of "
            f"{middle:.4g}; above {MOST_RANGE:g} times: {named(wide)}.",
            "range-of-scales",
            wide,
            scale=scale,
            median=middle,
        )
    ]


def check_dtypes(file: Checkpoint) -> list[Finding]:
    """BN501 and BN505: half-precision statistics, beside wider tensors or not."""
    halves = [layer for layer in file.layers if layer.statistics_dtype in HALVES]
    if not halves:
        return []
    dtypes = {layer.affine_dtype for layer in file.layers} | set(file.parameter_dtypes)
    wider = bool(dtypes & {"float32", "float64"}) or len(halves) < sum(
        layer.statistics_dtype is not None for layer in file.layers
    )
    if not wider:
        layers, dtype = len(halves), halves[0].statistics_dtype
        return [
            WHOLLY_HALF.finding(
                "dtype",
                f"{layers} layer{'s' * (layers > 1)} and all other weights are {dtype}.",
                {"dtype": dtype, "layers": layers},
            )
        ]
    return [
        HALF_STATISTICS.finding(
            label(layer.name),
            f"running_var is {layer.statistics_dtype} while "
            + (
                f"the layer's weight is {layer.affine_dtype}"
                if layer.affine_dtype in ("float32", "float64")
                else "other layers of the file are wider"
            )
            + ".",
            {
                "layer": layer.name,
                "cause": "statistics-cast-or-kept-in-half",
                "statistics_dtype": layer.statistics_dtype,
                "weight_dtype": layer.affine_dtype,
            },
        )
        for layer in halves
    ]


LAYER_CHECKS = (check_lost, check_casts)
FILE_CHECKS = (check_dtypes,)
