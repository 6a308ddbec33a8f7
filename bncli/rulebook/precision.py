"""BN5xx: what half precision has cost, or would, and what int8 would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.light import np
from bncli.report import Certainty, Finding, Severity
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
    "running statistics are in half precision beside float32 weights",
    "Keep running_mean and running_var in float32, in the file and in training.",
    symptom="The statistics stop short of their target, and variances round to 0 or Inf.",
    arithmetic="running_var is float16 or bfloat16, while the layer's weight or other layers of "
    "the file are float32. An update smaller than half a unit in the last place (ULP) is lost: the "
    "average can stop short of its target by up to u/m of its value, where u is 2^-11 or 2^-8 and "
    "m the momentum.",
    certainty="Certain as a fact. How much is lost depends on the momentum: with m = 0.001, a "
    "bfloat16 running_mean stops half-way from 0 to 1, and a running_var that starts at 1 never "
    "moves towards 2.",
    lookalike="A file that is entirely in half precision was cast for inference (BN505).",
    seen=("NVIDIA/apex#144", "pytorch/pytorch#70901"),
)
LOST = Rule(
    "BN502",
    "lost-to-precision",
    Severity.WARNING,
    "running_var was lost to half precision",
    "Convert the float32 file again, and leave the running statistics in float32.",
    symptom="The scale of some channels changed after a cast.",
    arithmetic="In float16, a variance below 3e-8 rounds to 0 and one below 6e-5 loses digits. "
    "Above 65504 it becomes Inf (BN202) or is clipped to 65504. It is reported where |weight| is "
    "0.01 or more.",
    certainty="Likely. A trained variance of exactly 0 with a weight that is not near 0 nearly "
    "always comes from the cast; the float32 file would show it.",
    lookalike="In a dead channel, the weight is near 0 too (BN402).",
    sure=Certainty.LIKELY,
    seen=("pytorch/vision#2599",),
)
NOT_IN_FLOAT16 = Rule(
    "BN503",
    "would-not-fit-half",
    Severity.INFO,
    "a cast to float16 would lose values",
    "Leave BatchNorm in float32 when the rest is cast, or fold it into the convolution first.",
    symptom="After half() the network gives NaN, Inf, or silent channels.",
    arithmetic="running_var, |running_mean| or a scale above 65504 becomes Inf. A running_var "
    "below 3e-8 becomes 0, which matters only if eps is 3e-6 or less. bfloat16 has the range of "
    "float32 and loses digits instead; it is mentioned only where that range is exceeded too.",
    certainty="Certain for a plain cast. If no statistic exceeds the range, running_var is below "
    "100 eps and eps is assumed, the finding depends on it.",
    lookalike="Automatic mixed precision keeps BatchNorm in float32 and loses nothing.",
    seen=("apple/coreai-torch#54", "pytorch/pytorch#115500"),
    less_sure=(Certainty.ASSUMED,),
)
FOLDING = Rule(
    "BN504",
    "hard-to-fold",
    Severity.INFO,
    "scales differ too much between channels for one int8 scale per tensor",
    "Quantise the folded convolution per channel, or equalise the channels first.",
    symptom="Accuracy falls to chance after post-training quantisation.",
    arithmetic="Folding multiplies each output channel of the convolution by |weight / "
    "sqrt(running_var + eps)|. If the largest of these is 64 times the median (over channels whose "
    "|weight| is 0.01 or more and whose running_var is not below eps), per-tensor int8 leaves the "
    "median channel two steps in each direction.",
    certainty="Certain for the scales, unless running_var is below 100 eps and eps is assumed; "
    "then the finding depends on it. The convolution's weights may compensate for them.",
    lookalike="Quantisation per channel is not affected.",
    seen=("Xilinx/brevitas#494",),
    less_sure=(Certainty.ASSUMED,),
)
WHOLLY_HALF = Rule(
    "BN505",
    "wholly-half",
    Severity.INFO,
    "all weights and running statistics are in half precision",
    "For inference no fix is needed; before further training, cast the running statistics to "
    "float32.",
    symptom="There is none by itself.",
    arithmetic="Every weight, bias and running statistic is float16 or bfloat16.",
    certainty="Certain.",
    lookalike="Half-precision statistics beside float32 weights are BN501.",
)

LARGEST = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38}
ROUNDS_TO_ZERO = 2.0**-25
"""Half of float16's smallest subnormal number; anything up to this becomes 0."""
FELT = 0.01
"""The share of eps below which losing a variance changes the scale by less than 0.5 %."""
MOST_RANGE = 64.0
"""The largest scale over the median one at which int8 leaves the median 2 of its 127 steps."""


def check_lost(layer: Layer) -> list[Finding]:
    """BN502: variances that half precision turned into 0 or clipped."""
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
        facts.append(f"clipped to {LARGEST[dtype]:.6g} in {named(clipped)}")
    return [
        found(
            LOST,
            layer,
            f"running_var is {', '.join(facts)}",
            "cast-to-half",
            lost,
            detail=f"The dtype is {dtype}, and the weights there are not near 0.",
            running_var=layer.var,
        )
    ]


def check_casts(layer: Layer) -> list[Finding]:
    """BN503, and BN504: what a cast to half precision or to int8 would do."""
    if not layer.coherent:
        return []
    scale = scales(layer)
    return _range(layer, scale) + _folding(layer, scale)


def _range(layer: Layer, scale: FloatArray) -> list[Finding]:
    """BN503, where it is not too late."""
    mean, var = layer.mean, layer.var
    assert mean is not None
    assert var is not None
    if layer.dtypes.get("running_var") in HALVES:
        return []
    largest = LARGEST["float16"]
    sizes = {"running_var": var, "running_mean": np.abs(mean), "the scale": np.abs(scale)}
    tests = {f"{what} would be Inf": values > largest for what, values in sizes.items()} | {
        "running_var would be 0": (var > FELT * layer.eps) & (var <= ROUNDS_TO_ZERO),
    }
    finite = np.isfinite(var) & np.isfinite(mean) & (var >= 0)
    hit = {fact: channels & finite for fact, channels in tests.items()}
    hit = {fact: channels for fact, channels in hit.items() if channels.any()}
    if not hit:
        return []
    lost = np.logical_or.reduce(list(hit.values()))
    first, *facts = (f"{fact} in {named(channels)}" for fact, channels in hit.items())
    # Whether a statistic itself exceeds the range is certain under any eps.
    by_eps = layer.sure_of_scales(lost) if not first.startswith(tuple(tests)[:2]) else None
    reached = [
        f"{what} reaches {values[hit[fact]].max():.4g}"
        for (what, values), fact in zip(sizes.items(), tests, strict=False)
        if fact in hit
    ]
    more = [f"Also, {', '.join(facts)}."] if facts else []
    if reached:
        more.append(f"float16 ends at {largest:g}, and {', '.join(reached)}.")
    if by_eps:
        more.append(f"This holds for {layer.eps_said}.")
    if (((np.abs(mean) > LARGEST["bfloat16"]) | (var > LARGEST["bfloat16"])) & finite).any():
        more.append("bfloat16 would not hold it either.")
    return [
        found(
            NOT_IN_FLOAT16,
            layer,
            f"in float16, {first}",
            "range-of-float16",
            lost,
            detail=" ".join(more),
            sure=by_eps,
            running_var=var,
            running_mean=mean,
        )
    ]


def _folding(layer: Layer, scale: FloatArray) -> list[Finding]:
    """BN504, unless one channel alone is to blame, which BN405 reports."""
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
            f"{middle:.4g}",
            "range-of-scales",
            wide,
            detail=f"More than {MOST_RANGE:g} times the median: {named(wide)}"
            f"{layer.under_eps(wide)}.",
            sure=layer.sure_of_scales(wide),
            scale=scale,
            median=middle,
        )
    ]


def check_dtypes(file: Checkpoint) -> list[Finding]:
    """BN501 and BN505: half-precision statistics, with wider tensors beside them or without."""
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
                f"{layers} layer{'s' * (layers > 1)} and all other weights are {dtype}",
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
            ),
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
