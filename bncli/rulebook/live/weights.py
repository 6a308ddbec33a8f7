"""BN807, BN808 and BN814: statistics that are not those of these weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bncli.light import np
from bncli.report import Certainty, Finding, Severity
from bncli.rulebook.interface import Rule
from bncli.rulebook.live.evidence import Evidence, at_layers, is_fast, off_by
from bncli.rulebook.live.measures import worst

if TYPE_CHECKING:
    from bncli.report import Value
    from bncli.rulebook.live.measures import LayerMeasure

OTHER_WEIGHTS = Rule(
    "BN807",
    "statistics-of-other-weights",
    Severity.WARNING,
    "the running statistics were gathered with other weights than these",
    "Re-estimate the running statistics on training data with bncli recalibrate, or load weights "
    "and buffers of one checkpoint. If these layers were in eval mode while the model was trained, "
    "give --frozen with their names.",
    symptom="Evaluation is worse than training after weights were averaged, restored, or trained "
    "further while the statistics stayed as they were.",
    arithmetic="The first layer's means do not follow from the kernels before it: whatever the "
    "training data's means are, running_mean = kernel sums * means + bias leaves a residual above "
    "0.04 standard deviations. Or several layers are off, and none of them three times as much "
    "as the "
    "next; or the stored means are further from the data's than a batch's own, where an average of "
    "batches is nearer. In trained networks the residual was at most 0.03; it was 0.03 to 0.15 "
    "with weights that were averaged or trained for 200 more steps, and 0.15 to 0.9 with those of "
    "another checkpoint.",
    certainty="Likely. Certain where the training data's capture is given and the statistics do "
    "not fit it either.",
    lookalike="Data that differ from those of training show in the first layer most, and leave the "
    "first layer's means in keeping with the kernels (BN805, BN810).",
    seen=("Lightning-AI/pytorch-lightning#14866", "Lightning-AI/pytorch-lightning#8811"),
    sure=Certainty.LIKELY,
    less_sure=(Certainty.CERTAIN,),
)
SPOILT = Rule(
    "BN808",
    "statistics-of-one-layer-spoilt",
    Severity.WARNING,
    "the statistics of a single layer, or of a few, are wrong while all others fit",
    "Load running_mean and running_var of this layer from a checkpoint in which they are right, or "
    "re-estimate them on training data with bncli recalibrate.",
    symptom="Evaluation is bad, and the statistics of all layers but one are as they should be.",
    arithmetic="The predicted error of the layer's output is 10 times that of every other layer, "
    "or it is the only one that is off.",
    certainty="Likely a fault of these statistics. It is certain only that they do not fit the "
    "data.",
    lookalike="In the first layer, an input that is scaled or shifted looks the same (BN805).",
    sure=Certainty.LIKELY,
)
UNEXPLAINED = Rule(
    "BN814",
    "statistics-off-the-data",
    Severity.WARNING,
    "stored statistics do not fit the data, and none of the known causes explains it",
    "Capture the training data with the same model and pass it as --reference. If the statistics "
    "do not fit these either, re-estimate them with bncli recalibrate.",
    symptom="The model is good in training mode and worse in evaluation.",
    arithmetic="The predicted error of a layer's output is above 0.1 and beyond what chance and "
    "the running average's memory give. Without such a layer, the outputs' gap between the modes "
    "is more than 1.25 times its floor.",
    certainty="Certain as far as the numbers go. Whether the statistics or the data are to blame "
    "is not known.",
    lookalike="A gap at its floor is the noise of training's own batches, and is not reported.",
    seen=("pytorch/pytorch#5406", "pytorch/pytorch#4741"),
    milder=Severity.INFO,
)

FIRST = (
    " It is the first layer: an input that is scaled or shifted otherwise than in training looks "
    "the same."
)

ALONE = 10.0
"""How many times the predicted error of others a layer's is, for it to be wrong by itself."""

STANDS_OUT = 3.0
"""How many times the next error one is, for a layer to stand out."""

NOTED = 1.25
"""How many times its floor a gap is at least, for it to be noted where no layer is off: healthy
nets whose weights still moved fast at the end reach 1.2."""

CLEAR = 3.0
"""How many times its floor a gap is that no chance explains, however few the batches."""

FAR = 3.0
"""(running_mean - mean)^2 over the variance of the batches' means, in the median layer, from which
no running average has left it: at a momentum of 0.99 it is 1, and in nets whose weights still moved
fast at the end of their training 1.7."""

FURTHEST = 20.0
"""What that is in the layer that is furthest; weights that moved fast at the end leave 16."""

FAR_MISFIT = 8.0
"""What it is there at least where the first layer's means do not fit its kernels."""

LEAST_ERROR = 0.04
"""The predicted error of a layer below which its distance is nothing to speak of."""

MOST_SPOILT = 0.25
"""The share of layers that may be wrong by themselves; more are of one cause."""


def check_weights(found: Evidence) -> list[Finding]:
    """BN807: the first layer's means do not fit its kernel, or many layers are off alike."""
    blamed, origin = found.blamed, found.measures[0].origin if found.measures else None
    by_reference = _by_reference(found)
    numbers: dict[str, Value] = {"residual": None if origin is None else origin.residual}
    if by_reference:
        said = f"{_many(by_reference)} off on the training data too"
        return [
            at_layers(
                OTHER_WEIGHTS,
                by_reference,
                said,
                numbers,
                detail=_averaged(found),
                sure=Certainty.CERTAIN,
            ),
        ]
    if found.reference is not None and blamed:
        return []
    detail = _averaged(found)
    fast = found.first is not None and is_fast(found, found.first.name)  # one batch's means
    if origin is not None and found.fits is False and found.first is not None and not fast:
        if not (blamed or _far(found, FAR_MISFIT)) or _alone(found):
            return []
        names = [each.name for each in blamed] or [found.first.name]
        said = f"the first layer's means do not fit its kernels (residual {origin.residual:.2g})"
        return [at_layers(OTHER_WEIGHTS, names, said, numbers, detail=detail)]
    if found.first_blamed and found.first is worst(found.living) and found.fits is True:
        return []  # the data differ, or the first layer is wrong by itself
    errors = sorted((each.error for each in blamed), reverse=True)
    if _alone(found):
        return []
    if len(errors) < 2 or errors[0] >= STANDS_OUT * errors[1]:
        return _far_by_memory(found)
    said = (
        f"{_many([each.name for each in blamed])} off, by {errors[-1]:.2g} to {errors[0]:.2g} std"
    )
    return [at_layers(OTHER_WEIGHTS, [each.name for each in blamed], said, numbers, detail=detail)]


def _far_by_memory(found: Evidence) -> list[Finding]:
    """BN807 where few layers are off: the stored means are too far away for an average."""
    layers = [each for each in found.living if each.memory is not None]
    memories = [each.memory or 0.0 for each in layers]
    if not _far(found, FURTHEST) or float(np.median(memories)) < FAR:
        return []
    worst = max(layers, key=lambda each: each.memory or 0.0)
    names = [worst.name, *(each.name for each in layers if (each.memory or 0.0) >= FAR)]
    away = math.sqrt(worst.memory or 0.0)
    said = f"the stored means are {away:.2g} times as far from the data's as a batch's are"
    return [
        at_layers(
            OTHER_WEIGHTS,
            list(dict.fromkeys(names)),
            said,
            {"memory": memories, "residual": None},
            detail="An average of many batches is nearer. The gap is "
            f"{found.ratio or 0:.2f} times its floor. {_averaged(found)}".rstrip(),
        )
    ]


def _far(found: Evidence, border: float) -> bool:
    """Whether there is a gap, and a layer's stored means are where no average of batches is."""
    if found.ratio is None or not (found.real and found.believed):
        return False
    if any(each.evaluation.differ for each in found.measures):  # which makes a gap too
        return False
    return any((each.memory or 0.0) >= border and each.error > LEAST_ERROR for each in found.living)


def _averaged(found: Evidence) -> str:
    """That the weights are an average, as a sentence, if the checkpoint says so."""
    checkpoint = found.capture.source.get("checkpoint")
    number = checkpoint.get("n_averaged") if isinstance(checkpoint, Mapping) else None
    if not isinstance(number, int) or number < 2:
        return ""
    return (
        f"The weights are an average of {number} sets (n_averaged); update_bn() was likely not run."
    )


def _by_reference(found: Evidence) -> list[str]:
    """The blamed layers that do not fit the training data either."""
    if found.reference is None:
        return []
    names = [each.name for each in found.measures if not each.frozen]
    return [
        name
        for name in names
        if name in found.reference
        and found.reference[name].blamed
        and found.reference[name].stored_wrong
        and name not in found.excused
    ]


def check_spoilt(found: Evidence) -> list[Finding]:
    """BN808: few layers that are off, and by far more than all others."""
    return [
        at_layers(
            SPOILT,
            [each.name],
            f"off by {off_by(each)}, and every other layer by {_others(found):.2g} at most",
            {
                "predicted_error": each.error,
                "z_max": each.z_max,
                "var_ratio_min": each.var_ratio_min,
                "var_ratio_max": each.var_ratio_max,
            },
            detail=_how(each) + (FIRST if each is found.first else ""),
        )
        for each in _alone(found)
    ]


def check_unexplained(found: Evidence) -> list[Finding]:
    """BN814: layers that are off without another cause, or a gap without a layer."""
    blamed = found.blamed
    if blamed:
        worst = max(blamed, key=lambda each: each.error)
        names = [worst.name, *(each.name for each in blamed if each is not worst)]
        said = f"off by {off_by(worst)}, where chance gives {worst.bound:.2g}"
        return [at_layers(UNEXPLAINED, names, said, detail=_how(worst))]
    if found.ratio is None or found.ratio < (NOTED if found.believed else CLEAR):
        return []
    if not found.living or found.single or found.measures[0].batches < 2:
        return []  # statistics of a single batch fit it, so that nothing of the gap is left
    worst = max(found.living, key=lambda each: each.error)
    said = f"the gap is {found.ratio:.2f} times its floor, and no layer is beyond its noise"
    return [
        at_layers(
            UNEXPLAINED,
            [worst.name],
            said,
            {"ratio": found.ratio},
            detail=f"The largest predicted error is {off_by(worst)}.",
            severity=Severity.INFO if found.ratio < CLEAR else None,
        )
    ]


def _alone(found: Evidence) -> list[LayerMeasure]:
    """The layers that are wrong by themselves; none where too many are, or the data differ."""
    if found.reference is not None or (found.elsewhere and found.first_blamed):
        return []
    layers = sorted(found.living, key=lambda each: each.error, reverse=True)
    blamed = {each.name for each in found.blamed}
    allowed = max(1, int(MOST_SPOILT * len(layers)))
    for count in range(1, min(allowed, len(layers) - 1) + 1):
        few, rest = layers[:count], layers[count:]
        names = {each.name for each in few}
        if not names <= blamed:
            return []
        apart = few[-1].error / max(rest[0].error, 1e-3)
        if apart >= ALONE or (apart >= STANDS_OUT and blamed == names):
            return few
    return []


def _others(found: Evidence) -> float:
    """The largest error of the layers that are not wrong by themselves."""
    alone = {each.name for each in _alone(found)}
    return max((each.error for each in found.living if each.name not in alone), default=0.0)


def _how(each: LayerMeasure) -> str:
    """How a layer is off, as a sentence."""
    return (
        f"Its means are up to {each.z_max or 0:.3g} std away, and the data's variances are "
        f"{each.var_ratio_min or 0:.3g} to {each.var_ratio_max or 0:.3g} times the stored ones."
    )


def _many(names: list[str]) -> str:
    return f"{len(names)} layers are" if len(names) > 1 else "the layer is"
