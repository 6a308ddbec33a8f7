"""BN201 and BN202: values that are not finite, and the cause that their pattern points to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.light import np
from bncli.report import Finding, Severity
from bncli.rulebook.interface import MOST_CLAIMED, Rule, channel_extent
from bncli.rulebook.layers import HALVES, Layer, channels_of, found, named
from bncli.rulebook.origin import MOST_BATCHES, counted, never_counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAN = Rule(
    "BN201",
    "nan-in-checkpoint",
    Severity.ERROR,
    "a weight, bias or running statistic is NaN",
    "Take an earlier checkpoint; further training cannot remove a NaN from a running statistic.",
    symptom="Evaluation gives NaN or a constant while the loss in training looks fine: training "
    "normalises with the batch and does not read the statistics.",
    arithmetic="The tensors that are NaN point to the cause. running_var alone, in every channel: "
    "a training batch with one value per channel (0/0 in the unbiased variance). running_mean and "
    "running_var together: NaN in the activations of a training batch. An infinite running_mean "
    "beside a running_var of NaN: Inf in the activations. weight or bias alone: an optimiser step "
    "that diverged. With a counter of 0, no batch produced it: the memory was never filled, or the "
    "value was edited.",
    certainty="Certain that it is there. The cause is the one that fits the pattern best.",
    lookalike="Tools that walk parameters() do not see it, since statistics are buffers. Together "
    "with other values that training cannot produce, it is reported as BN209.",
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
    "a weight, bias or running statistic is infinite",
    "Take an earlier checkpoint, or the float32 one that this one was made from.",
    symptom="The output of some channels is NaN, or constant without any error: an infinite "
    "running_var makes the scale 0.",
    arithmetic="An infinite running_var beside a finite running_mean means that the variance "
    "overflowed. In float16 a value above 65504 was cast; in float32 a sum of squares exceeded "
    "3.4e38, from inputs beyond about 1e19.",
    certainty="Certain that it is there. The cause is the one that fits the dtype and the pattern "
    "best.",
    lookalike="A running_var of exactly 65504 was clipped by the cast instead (BN502). Together "
    "with other values that training cannot produce, it is reported as BN209.",
    seen=("pytorch/pytorch#178123", "apple/coreai-torch#54"),
)
_REFILL = (
    "Load the layer's tensors from a file that has them, or run training batches through it in "
    "training mode."
)
_EARLIER = "Take a checkpoint from before that step: a parameter that is not finite stays so."


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
        cause = "inf-activations"
        why = "running_mean is infinite: a training batch had Inf in its activations."
    elif var is not None and mean is None and var.all():
        cause = "one-value-a-channel"
        why = "A training batch had one value per channel (variance 0/0)."
    elif var is not None and mean is None:
        cause = "spoilt-variance"
        why = "The cause is Inf - Inf or 0/0 when the variance of a training batch was computed, "
        why += "or a manual edit."
        why = f"{_finite_mean(layer, var)}{why}"
    elif mean is not None and var is None and layer.var is not None:
        cause = "overwritten"
        why = "running_mean was overwritten: a batch with NaN makes running_var NaN too."
    elif mean is not None:
        cause, why = "nan-activations", "A training batch had NaN in its activations."
    else:
        cause, why = "diverged", f"An optimiser step diverged; {_statistics(layer)}."
    return [_spoilt(NAN, layer, where, "NaN", cause, why)]


def check_infinite(layer: Layer) -> list[Finding]:
    """BN202: which tensors are infinite, and what that pattern means."""
    where = _where(layer, np.isinf)
    if not where:
        return []
    var = where.get("running_var")
    half = next((leaf for leaf in where if layer.dtypes.get(leaf) in HALVES), None)
    zero = " num_batches_tracked is 0." * never_counted(layer)
    if half is not None:
        dtype = layer.dtypes[half]
        largest = "65504" if dtype == "float16" else "3.39e38"
        cause, why = "cast-to-half", f"A value above {largest} does not fit {dtype}.{zero}"
    elif layer.var is not None and (layer.var == -np.inf).any():
        cause, why = "overwritten", f"A variance is never negative: it was overwritten.{zero}"
    elif never_counted(layer):
        cause, why = _no_batch(layer, where)
    elif var is not None and "running_mean" not in where:
        cause = "overflow"
        why = f"{_finite_mean(layer, var)}The squares of inputs beyond about 1e19 overflowed."
    elif "running_mean" in where:
        cause, why = "inf-activations", "A training batch had Inf in its activations."
    else:
        cause, why = "diverged", f"An optimiser step diverged; {_statistics(layer)}."
    return [_spoilt(INFINITE, layer, where, "infinite", cause, why)]


LAYER_CHECKS = (check_nan, check_infinite)


def _where(layer: Layer, test: Any) -> dict[str, NDArray[Any]]:
    """The vectors in which some values pass the test, each with the mask of those."""
    spoilt = {leaf: test(values) for leaf, values in layer.vectors.items() if values is not None}
    return {leaf: channels for leaf, channels in spoilt.items() if channels.any()}


def _no_batch(layer: Layer, where: dict[str, NDArray[Any]]) -> tuple[str, str]:
    """The cause of values that are not finite where the counter is 0, and its sentences.

    If no other statistic has moved from 0 and 1, the counter is certainly the layer's own.
    """
    why = "num_batches_tracked is 0, so no batch made it: the memory was never filled, "
    if not {"running_mean", "running_var"} & set(where):
        why += "an optimiser diverged while the layer was in evaluation mode, "
    why += "or it was edited."
    moved = any(
        values is not None and bool((np.isfinite(values) & (values != initial)).any())
        for values, initial in ((layer.mean, 0), (layer.var, 1))
    )
    if moved:
        why += (
            " Unless an average, a conversion or an InstanceNorm left the counter at 0: the other "
            "statistics have moved."
        )
    return "never-filled-or-edited", why


def _finite_mean(layer: Layer, channels: NDArray[Any]) -> str:
    """The sentence that running_mean is finite in channels in which running_var is not."""
    mean = layer.mean
    known = mean is not None and mean.shape == channels.shape and np.isfinite(mean[channels]).all()
    return "running_mean is finite there. " * bool(known)


def _statistics(layer: Layer) -> str:
    """What is known of the statistics where weight or bias alone are not finite."""
    known = [values for values in (layer.mean, layer.var) if values is not None]
    if len(known) < 2:
        return "the layer has no statistics that would tell more"
    finite = all(bool(np.isfinite(values).all()) for values in known)
    return "the statistics are finite" if finite else "the statistics are not all finite either"


def _seen(counter: float | None) -> str:
    """The sentence that says how many batches the layer counted, if it counted any."""
    if counter is None or not 0 < counter <= MOST_BATCHES or counter % 1:
        return ""
    return f" The layer has seen {int(counter)} batch{'es' * (counter > 1)}."


def _claim(where: dict[str, NDArray[Any]], what: str, either: NDArray[Any]) -> tuple[str, str]:
    """The claim that these tensors are `what`, and the sentence that says where if it is long."""
    *others, last = where
    are = f"{', '.join(others)} and {last} are" if others else f"{last} is"
    if all(np.array_equal(channels, either) for channels in where.values()):
        return f"{are} {what} in {named(either)}", ""
    places = [f"{leaf} in {named(channels)}" for leaf, channels in where.items()]
    told = ", ".join(places).replace(" in ", f" is {what} in ", 1)
    if len(told) <= MOST_CLAIMED:
        return told, ""
    return f"{are} {what} in some channels", f"Which ones: {', '.join(places)}. "


def _spoilt(
    rule: Rule, layer: Layer, where: dict[str, NDArray[Any]], what: str, cause: str, why: str
) -> Finding:
    """A finding for tensors with values that are not finite."""
    numbers: dict[str, Any] = {
        f"{leaf}_channels": channels_of(channels) for leaf, channels in where.items()
    }
    either = next(iter(where.values()))
    for channels in where.values():
        if channels.shape == either.shape:
            either = either | channels
    extent = tuple(
        run for leaf, channels in where.items() for run in channel_extent(leaf, channels)
    )
    counter = counted(layer)
    message, places = _claim(where, what, either)
    return found(
        rule,
        layer,
        message,
        cause,
        either,
        detail=f"{places}{why}{_seen(counter)}",
        hint={"never-filled-or-edited": _REFILL, "diverged": _EARLIER}.get(cause, ""),
        extent=extent,
        num_batches_tracked=counter,
        **numbers,
    )
