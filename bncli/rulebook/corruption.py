"""BN201 and BN202: values that are not finite, with the pattern that names the cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.light import np
from bncli.report import Finding, Severity
from bncli.rulebook.interface import Rule, channel_extent
from bncli.rulebook.layers import HALVES, Layer, channels_of, found, named
from bncli.rulebook.origin import counted, never_counted

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
    "beside it: Inf in the activations. weight or bias alone: a diverged optimiser step. With a "
    "counter of 0 no batch made it: memory that was never filled, or an edit.",
    certainty="Certain that it is there; the cause follows from the pattern.",
    lookalike="Tools that walk parameters() see none of it, since statistics are buffers. Beside "
    "values that no training leaves it is BN209.",
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
    lookalike="A running_var of 65504 exactly was clipped by the cast instead (BN502). Beside "
    "values that no training leaves it is BN209.",
    seen=("pytorch/pytorch#178123", "apple/coreai-torch#54"),
)
_REFILL = (
    "Load the layer's tensors from a file that has them, or run training batches through it in "
    "training mode."
)


def check_nan(layer: Layer) -> list[Finding]:
    """BN201: which tensors are NaN, in which channels, and what that pattern means."""
    where = _where(layer, np.isnan)
    if not where:
        return []
    mean, var = where.get("running_mean"), where.get("running_var")
    infinite = layer.mean is not None and bool(np.isinf(layer.mean).any())
    if never_counted(layer):
        cause, why = _no_batch(layer, where)
    elif var is not None and mean is None and infinite:
        cause, why = "inf-activations", "an Inf in the activations of a training batch"
    elif var is not None and mean is None and var.all():
        cause = "one-value-a-channel"
        why = "a training batch had one value a channel, and 0/0 became its unbiased variance"
    elif var is not None and mean is None:
        cause = "spoilt-variance"
        why = "Inf - Inf or 0/0 in the variance of these channels, or an edit"
    elif mean is not None and var is None and layer.var is not None:
        cause, why = "overwritten", "no batch leaves running_var finite there; it was overwritten"
    elif mean is not None:
        cause, why = "nan-activations", "NaN in the activations of a training batch"
    else:
        cause, why = "diverged", f"a diverged optimiser step; {_statistics(layer)}"
    return [_spoilt(NAN, layer, where, "NaN", cause, why)]


def check_infinite(layer: Layer) -> list[Finding]:
    """BN202: which tensors are infinite, and what that pattern means."""
    where = _where(layer, np.isinf)
    if not where:
        return []
    half = next((leaf for leaf in where if layer.dtypes.get(leaf) in HALVES), None)
    if half is not None:
        dtype = layer.dtypes[half]
        largest = "65504" if dtype == "float16" else "3.39e38"
        cause, why = "cast-to-half", f"a value above {largest} does not fit {dtype}"
        why += ", and num_batches_tracked is 0" * never_counted(layer)
    elif layer.var is not None and (layer.var == -np.inf).any():
        cause, why = "overwritten", "no variance is negative; it was overwritten"
        why += ", and num_batches_tracked is 0" * never_counted(layer)
    elif never_counted(layer):
        cause, why = _no_batch(layer, where)
    elif "running_var" in where and "running_mean" not in where:
        cause, why = "overflow", "the squares of inputs beyond about 1e19 overflowed"
    elif "running_mean" in where:
        cause, why = "inf-activations", "an Inf in the activations of a training batch"
    else:
        cause, why = "diverged", f"a diverged optimiser step; {_statistics(layer)}"
    return [_spoilt(INFINITE, layer, where, "infinite", cause, why)]


LAYER_CHECKS = (check_nan, check_infinite)


def _where(layer: Layer, test: Any) -> dict[str, NDArray[Any]]:
    """The vectors in which some values pass the test, with which."""
    spoilt = {leaf: test(values) for leaf, values in layer.vectors.items() if values is not None}
    return {leaf: channels for leaf, channels in spoilt.items() if channels.any()}


def _no_batch(layer: Layer, where: dict[str, NDArray[Any]]) -> tuple[str, str]:
    """The cause of values that are not finite where the counter is 0, and its sentence.

    Where no other statistic has moved from 0 and 1, the counter is certainly the layer's own.
    """
    why = "num_batches_tracked is 0, so that no batch made it: memory that was never filled, or an "
    why += "edit"
    if not {"running_mean", "running_var"} & set(where):
        why += ", or an optimiser that diverged while the layer was in evaluation mode"
    moved = any(
        values is not None and bool((np.isfinite(values) & (values != initial)).any())
        for values, initial in ((layer.mean, 0), (layer.var, 1))
    )
    if moved:
        why += "; unless an average, a conversion or an InstanceNorm left the counter there"
    return "never-filled-or-edited", why


def _statistics(layer: Layer) -> str:
    """What the statistics are where weight or bias alone are spoilt."""
    known = [values for values in (layer.mean, layer.var) if values is not None]
    if len(known) < 2:
        return "the layer has no statistics to tell more"
    finite = all(bool(np.isfinite(values).all()) for values in known)
    return "the statistics are finite" if finite else "the statistics are not all finite either"


def _spoilt(
    rule: Rule, layer: Layer, where: dict[str, NDArray[Any]], what: str, cause: str, why: str
) -> Finding:
    """A finding for tensors with values that are not finite."""
    facts = ", ".join(f"{leaf} in {named(channels)}" for leaf, channels in where.items())
    numbers = {f"{leaf}_channels": channels_of(channels) for leaf, channels in where.items()}
    either = next(iter(where.values()))
    for channels in where.values():
        if channels.shape == either.shape:
            either = either | channels
    extent = tuple(
        run for leaf, channels in where.items() for run in channel_extent(leaf, channels)
    )
    return found(
        rule,
        layer,
        f"{what}: {facts}; {why}.",
        cause,
        either,
        hint=_REFILL if cause == "never-filled-or-edited" else "",
        extent=extent,
        num_batches_tracked=counted(layer),
        **numbers,
    )
