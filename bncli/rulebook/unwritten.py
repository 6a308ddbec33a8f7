"""BN208 to BN210: what stands in the place of the statistics was left there by no training."""

from __future__ import annotations

from typing import Any

from bncli.light import np
from bncli.report import Finding, Severity
from bncli.rulebook.interface import Rule, channel_extent
from bncli.rulebook.layers import Layer, channels_of, found, named
from bncli.rulebook.origin import all_zero, counted, garbage, may_be_decayed, same_bits

NEVER_FILLED = Rule(
    "BN208",
    "never-filled",
    Severity.ERROR,
    "All running statistics of the layer are exactly 0: memory of zeros that nothing was written "
    "to.",
    "Take the statistics from the file that this one was made from, or estimate them by a pass "
    "over the training data in training mode.",
    symptom="Activations that explode in evaluation, though every tensor is there and loads.",
    arithmetic="running_mean and running_var are exactly 0 in every channel. A variance of 0 "
    "multiplies by weight / sqrt(eps): 316 times the weight at an eps of 1e-5, 31.6 times at 1e-3.",
    certainty="Certain that they are 0, and that the layer multiplies so. That they were never "
    "written is as good as certain where a counter is 0 or too small for a variance to decay to "
    "nothing; else a layer whose every input was exactly 0 ends there too.",
    lookalike="A layer whose weights died with its input, after batches enough to decay, is BN402 "
    "or BN404. PyTorch and Keras begin at 0 and 1 (BN103); Caffe, Darknet and some others begin at "
    "0 and 0, and there a layer that was never trained looks like this. A variance of 0 beside "
    "means of their own is BN408, or BN502 in half precision.",
    seen=("onnx/tensorflow-onnx#1610",),
    formerly=("BN404",),
)
UNINITIALISED = Rule(
    "BN209",
    "uninitialised-memory",
    Severity.ERROR,
    "The layer holds values that no training leaves: memory that was never filled.",
    "Load the layer's tensors from a file that has them; look for torch.empty, to_empty() or keys "
    "that were missing where the model was made and loaded.",
    symptom="NaN, Inf or nonsense in evaluation, often in some layers alone and other ones in the "
    "next run.",
    arithmetic="One vector has finite values above 1e20 beside others below 1e-20 that are not "
    "where float32 stops decaying; or a mean above 1e20 beside a variance that is no square of it; "
    "or a variance above 1e20 without a mean to fit beside ordinary ones; or subnormal numbers in "
    "company that decay excludes; or NaN of bits that no arithmetic makes; or a counter beyond 1e9 "
    "beside values that are not finite.",
    certainty="As good as certain that no batch left these values. Whether memory was never "
    "filled, the tensor was edited, or bytes were read at the wrong place, the file does not say.",
    lookalike="NaN and Inf alone are BN201 and BN202, with a counter of 0 too. Unscaled inputs "
    "have a mean to fit their variance (BN406).",
    seen=("open-edge-platform/anomalib#2965",),
    formerly=("BN201", "BN202", "BN203", "BN204", "BN205", "BN401", "BN404", "BN406"),
)
SAME_BITS = Rule(
    "BN210",
    "one-tensor-twice",
    Severity.ERROR,
    "A running statistic is another tensor of the layer, bit for bit: running_var is running_mean, "
    "as a rule.",
    "Take the tensor from its own source; look for an index that is used twice, or a wrong key, "
    "where the tensors are assigned.",
    symptom="NaN or nonsense in evaluation, though every tensor is there and has its shape.",
    arithmetic="running_var equals running_mean, weight or bias in every bit, or running_mean "
    "equals weight; where their dtypes differ, after rounding to the narrower one. Constants, and "
    "values that agree by being 0 or 1, are not counted.",
    certainty="Certain that the bits are the same, and as good as certain that one of the two "
    "tensors is lost.",
    lookalike="Means and variances in each other's place are BN205. A bias that equals "
    "running_mean may be meant: with weight sqrt(running_var + eps) the layer changes nothing.",
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
    cause, why = "zero-filled", "nothing was ever written there"
    if counter is None:
        why += ", or every input of the layer was 0"
    elif counter > 0 and may_be_decayed(layer):
        cause = "zero-filled-or-zero-input"
        why += f", or every input of the {counter:g} batches was 0"
    else:
        why += f", though num_batches_tracked is {counter:g}" * (counter > 0)
        why += ", and num_batches_tracked is 0 too" * (counter == 0)
    known = np.ones(1) if layer.weight is None else layer.weight[np.isfinite(layer.weight)]
    weight = float(np.abs(known).max(initial=0))
    scale = weight / layer.eps**0.5 if layer.eps > 0 else float("inf") * bool(weight)
    effect = f"a variance of 0 multiplies by up to {scale:.4g} with {layer.eps_said}"
    if not known.size:
        scale, effect = 0.0, "no weight is finite"
    elif weight == 0:
        scale, effect = 0.0, "weight is exactly 0 as well, so that the output is the bias"
    return [
        found(
            NEVER_FILLED,
            layer,
            f"running_mean and running_var are exactly 0 in "
            f"{named(np.ones(channels, bool))}: {why}; {effect}.",
            cause,
            channels_total=channels,
            num_batches_tracked=counter,
            scale_max=scale,
            eps=layer.eps,
        )
    ]


def check_garbage(layer: Layer) -> list[Finding]:
    """BN209: values that no training leaves."""
    odd = garbage(layer)
    if odd is None:
        return []
    facts = list(odd.facts)
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
            if spoilt.any() and not any(fact.startswith(f"{leaf} is a NaN") for fact in facts):
                facts.append(f"{leaf} is {what} in {named(spoilt)}")
    counter = counted(layer)
    if counter == 0:
        facts.append("num_batches_tracked is 0")
    return [
        found(
            UNINITIALISED,
            layer,
            f"{'; '.join(facts)}: no batch left these values; memory that was never filled, an "
            "edit, or bytes read at the wrong place.",
            "uninitialised-or-edited",
            longest,
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
    """BN210: one tensor's bits in the place of another's."""
    pair = same_bits(layer)
    if pair is None:
        return []
    leaf, other = pair
    values = layer.vectors[leaf]
    assert values is not None
    dtypes = {layer.dtypes.get(leaf, ""), layer.dtypes.get(other, "")}
    rounded = " but for the dtype" if len(dtypes) > 1 else ""
    below = values < 0
    whose = ""
    if leaf == "running_var" and below.any():
        whose = f", and negative in {named(below)}, as no variance is"
    return [
        found(
            SAME_BITS,
            layer,
            f"{leaf} is {other} bit for bit{rounded} in {named(below | True)}{whose}: one of the "
            "two was written into both places.",
            "one-tensor-twice",
            channels_total=len(values),
            tensors=[leaf, other],
            negative=int(below.sum()),
        )
    ]


LAYER_CHECKS = (check_garbage, check_zero, check_same_bits)
"""In this order: the first that finds something names the cause, and the others are not asked."""
