"""BN208 to BN210: statistics that training cannot have left."""

from __future__ import annotations

from typing import Any

from bncli.light import np
from bncli.report import Certainty, Finding, Severity
from bncli.rulebook.interface import Rule, channel_extent
from bncli.rulebook.layers import Layer, channels_of, found, named
from bncli.rulebook.origin import all_zero, counted, garbage, may_be_decayed, same_bits

NEVER_FILLED = Rule(
    "BN208",
    "never-filled",
    Severity.ERROR,
    "running_mean and running_var are exactly 0 in every channel",
    "Take the statistics from the file that this one was made from, or estimate them with a pass "
    "over the training data in training mode.",
    symptom="Activations explode in evaluation, though every tensor is there and loads.",
    arithmetic="running_mean and running_var are exactly 0 in every channel. A variance of 0 "
    "makes the scale weight / sqrt(eps): 316 times the weight at an eps of 1e-5, 31.6 times at "
    "1e-3.",
    certainty="Certain that they are 0, and that the layer multiplies by that scale. If the "
    "counter is 0, or too small for a variance to have decayed to 0, the statistics were almost "
    "certainly never written. With a larger counter, a layer whose inputs were always exactly 0 "
    "can also reach this state.",
    lookalike="A layer whose weights died with its input, after enough batches to decay, is BN402 "
    "or BN404. PyTorch and Keras begin at 0 and 1 (BN103). Caffe, Darknet and some others begin at "
    "0 and 0, and a layer that was never trained looks like this there. A variance of 0 beside "
    "means that are not 0 is BN408, or BN502 in half precision.",
    seen=("onnx/tensorflow-onnx#1610",),
    formerly=("BN404",),
)
UNINITIALISED = Rule(
    "BN209",
    "uninitialised-memory",
    Severity.ERROR,
    "some values cannot come from training and look like uninitialised memory",
    "Load the layer's tensors from a file that has them. Look for torch.empty, to_empty() or "
    "missing keys where the model was made and loaded.",
    symptom="Evaluation gives NaN, Inf or nonsense, often in only some layers, and in different "
    "layers from run to run.",
    arithmetic="At least one of these holds: (1) one tensor has finite values above 1e20 and "
    "others below 1e-20 in size, and the small ones are not the numbers at which a decaying "
    "float32 value stops; (2) a mean is above 1e20 in size, and its variance is NaN or far smaller "
    "than the rounding of such inputs would make it; (3) a variance is below -1e20, or it is above "
    "1e20, its mean does not match, and the other channels are ordinary; (4) there are subnormal "
    "numbers, and other values show that decay did not cause them; (5) a NaN has a bit pattern "
    "that arithmetic never produces; (6) the counter is above 1e9 in size, and some values are not "
    "finite or subnormal, or a variance is below -eps.",
    certainty="Likely, and nearly certain, that no batch produced these values. The file does not "
    "show whether memory was never filled, the tensor was edited, or bytes were read at the wrong "
    "place.",
    lookalike="NaN and Inf alone are BN201 and BN202, even with a counter of 0. Unscaled inputs "
    "have a mean that matches their variance (BN406).",
    sure=Certainty.LIKELY,
    seen=("open-edge-platform/anomalib#2965",),
    formerly=("BN201", "BN202", "BN203", "BN204", "BN205", "BN401", "BN404", "BN406"),
)
SAME_BITS = Rule(
    "BN210",
    "one-tensor-twice",
    Severity.ERROR,
    "a running statistic is a copy of another tensor of the layer",
    "Load each tensor from its source. Look for an index used twice, or a wrong key, where the "
    "tensors are assigned.",
    symptom="Evaluation gives NaN or nonsense, though every tensor is there and has its shape.",
    arithmetic="running_var equals running_mean, weight or bias in every bit, or running_mean "
    "equals weight. If their dtypes differ, they are compared after rounding to the narrower one. "
    "Tensors that are constant, or that hold hardly any values besides 0 and 1, are not compared.",
    certainty="Certain that the bits are the same, and almost certain that one of the two tensors "
    "is lost.",
    lookalike="If the means and the variances were swapped, it is BN205. A bias that equals "
    "running_mean may be intended: with a weight of sqrt(running_var + eps) the layer changes "
    "nothing.",
    seen=("pytorch/pytorch#60624",),
    formerly=("BN203", "BN204", "BN205"),
)


def check_zero(layer: Layer) -> list[Finding]:
    """BN208: both statistics are exactly 0 in every channel."""
    if not all_zero(layer):
        return []
    assert layer.var is not None
    channels = len(layer.var)
    counter = counted(layer)
    cause, why = "zero-filled", "Nothing was ever written there"
    if counter is None:
        why += ", or every input of the layer was 0"
    elif counter > 0 and may_be_decayed(layer):
        cause = "zero-filled-or-zero-input"
        why += f", or every input of the {counter:g} batch{'es' * (counter > 1)} was 0"
    else:
        why += f", though num_batches_tracked is {counter:g}" * (counter > 0)
        why += ", and num_batches_tracked is 0 too" * (counter == 0)
    known = np.ones(1) if layer.weight is None else layer.weight[np.isfinite(layer.weight)]
    weight = float(np.abs(known).max(initial=0))
    scale: float | None = weight / layer.eps**0.5 if layer.eps > 0 else float("inf") * bool(weight)
    effect = f"With {layer.eps_said}, the layer multiplies by up to {scale:.4g}"
    if layer.weight_unknown:
        scale, effect = None, "How much the layer multiplies by is not known"
    elif not known.size:
        scale, effect = 0.0, "No weight is finite"
    elif weight == 0:
        scale, effect = 0.0, "weight is exactly 0 too, so the output is the bias"
    return [
        found(
            NEVER_FILLED,
            layer,
            f"running_mean and running_var are exactly 0 in {named(np.ones(channels, bool))}",
            cause,
            detail=f"{why}. {effect}.",
            channels_total=channels,
            num_batches_tracked=counter,
            scale_max=scale,
            eps=layer.eps,
        )
    ]


def check_garbage(layer: Layer) -> list[Finding]:
    """BN209: values that training cannot leave."""
    odd = garbage(layer)
    if odd is None:
        return []
    first, *facts = odd.facts
    lengths = {len(channels) for channels in odd.where.values()}
    longest = np.zeros(max(lengths), bool)
    numbers: dict[str, Any] = {}
    for leaf, channels in odd.where.items():
        longest[: len(channels)] |= channels
        numbers[f"{leaf}_channels"] = channels_of(channels)
        values = layer.vectors[leaf]
        assert values is not None
        for what, test in (("NaN", np.isnan), ("infinite", np.isinf)):
            spoilt = test(values)
            if spoilt.any() and not any(fact.startswith(f"{leaf} is a NaN") for fact in odd.facts):
                facts.append(f"{leaf} is {what} in {named(spoilt)}")
    counter = counted(layer)
    if counter == 0:
        facts.append("num_batches_tracked is 0")
    return [
        found(
            UNINITIALISED,
            layer,
            first,
            "uninitialised-or-edited",
            longest,
            detail=f"{''.join(f'{fact}. ' for fact in facts)}No batch leaves such values: the "
            "memory was never filled or was edited, or bytes were read at the wrong place.",
            extent=tuple(
                run
                for leaf, channels in odd.where.items()
                for run in channel_extent(leaf, channels)
            ),
            num_batches_tracked=counter,
            **numbers,
        )
    ]


def check_same_bits(layer: Layer) -> list[Finding]:
    """BN210: one tensor in the place of another."""
    pair = same_bits(layer)
    if pair is None:
        return []
    leaf, other = pair
    values = layer.vectors[leaf]
    assert values is not None
    dtypes = {layer.dtypes.get(leaf, ""), layer.dtypes.get(other, "")}
    rounded = ", apart from the dtype," * (len(dtypes) > 1)
    below = values < 0
    whose = ""
    if leaf == "running_var" and below.any():
        whose = f"running_var is negative in {named(below)}, and a variance is never negative. "
    return [
        found(
            SAME_BITS,
            layer,
            f"{leaf} is a bit-for-bit copy of {other}{rounded} in {named(below | True)}",
            "one-tensor-twice",
            detail=f"{whose}One of the two tensors was written to both places.",
            channels_total=len(values),
            tensors=[leaf, other],
            negative=int(below.sum()),
        )
    ]


LAYER_CHECKS = (check_garbage, check_zero, check_same_bits)
"""In this order: the first that finds something names the cause, and the others are not run."""
