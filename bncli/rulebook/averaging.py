"""BN602 to BN606, BN608, BN609: averaged copies beside the live model, and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

from bncli.report import Certainty, Finding, Severity, Value
from bncli.rulebook.interface import Rule, in_prose, percent
from bncli.rulebook.layers import Checkpoint, is_below, label, plain_count
from bncli.rulebook.order import middle_of
from bncli.rulebook.pairs import ALIKE, Pair
from bncli.rulebook.summaries import Summary

COPY_INITIAL = Rule(
    "BN602",
    "copy-never-updated",
    Severity.ERROR,
    "the averaged copy has the initial statistics 0 and 1, unlike the live model",
    "Copy or average the buffers along with the parameters, or run update_bn on the copy.",
    symptom="In evaluation, the teacher or EMA model is far worse than the live model (the one "
    "being trained).",
    arithmetic="running_mean is exactly 0 and running_var exactly 1 in a layer of the copy, and "
    "the layer of the same name in the live model has other values. Averaging over parameters() "
    "leaves the buffers at their initial values.",
    certainty="Certain that the copy's statistics were never updated: no batch gives exactly 0 and "
    "1 in every channel.",
    lookalike="A copy that is only ever run in training mode does not use them.",
    seen=(
        "CuriousAI/mean-teacher#9",
        "facebookresearch/moco#70",
        "boschresearch/OASIS#21",
        "lucidrains/byol-pytorch#73",
    ),
)
COPY_OF_BUFFERS = Rule(
    "BN603",
    "copy-of-live-statistics",
    Severity.WARNING,
    "the averaged copy's weights differ from the live model's, but its statistics are the same",
    "Run update_bn on the copy, or average the running statistics along with the weights.",
    symptom="In evaluation, the averaged model is a little worse than expected.",
    arithmetic="The live model is the one being trained. running_mean and running_var of a layer "
    "are equal in every bit to those of the live model's layer, while weight or bias is not: the "
    "statistics describe the activations of other weights.",
    certainty="Certain as a fact. How much it costs grows with the distance between the two sets "
    "of weights; some projects copy the statistics on purpose, with good results.",
    lookalike="A copy whose weight and bias are equal too has just been made. If BatchNorm is kept "
    "in eval mode during training, the copy's statistics stay equal to the live model's, and that "
    "is correct.",
    seen=("pytorch/ignite#2590", "fadel/pytorch_ema#13", "LeeDoYup/FixMatch-pytorch#10"),
)
COPY_AVERAGED = Rule(
    "BN604",
    "copy-with-own-statistics",
    Severity.INFO,
    "the averaged copy's running statistics differ from the live model's",
    "Nothing needs fixing.",
    symptom="There is none.",
    arithmetic="The live model is the one being trained. running_mean and running_var of the copy "
    "differ from the live model's and are not the initial 0 and 1, they hold no share of the "
    "initial values that could be detected (BN608), and they were not left behind (BN609). The "
    "copy's counter may have any value, since averages often leave out integer buffers.",
    certainty="Certain as a fact.",
    lookalike="A single file does not show whether the statistics were averaged or re-estimated. A "
    "teacher that is a different network also has different statistics.",
    seen=("huggingface/pytorch-image-models#102", "huggingface/pytorch-image-models#106"),
)
NO_UPDATE_BN = Rule(
    "BN605",
    "update-bn-not-run",
    Severity.WARNING,
    "weights were averaged, but the statistics are still the live model's",
    "Run torch.optim.swa_utils.update_bn(loader, model), or bncli recalibrate, before the averaged "
    "model is used.",
    symptom="The averaged weights perform worse than any of the weights they were made from.",
    arithmetic="n_averaged is above 1, weight or bias differs from that of the live model (the one "
    "being trained) in the same file, and running_mean and running_var are equal to the live ones "
    "in every bit. AveragedModel copies buffers and does not average them, unless "
    "use_buffers=True.",
    certainty="Certain that update_bn was not run after the last averaging.",
    lookalike="Without the live model in the file, this cannot be checked (BN606).",
    seen=(
        "Lightning-AI/pytorch-lightning#8811",
        "kristpapadopoulos/keras-stochastic-weight-averaging#4",
    ),
)
AVERAGED = Rule(
    "BN606",
    "averaged-weights",
    Severity.INFO,
    "weights were averaged, and the file does not show whether update_bn was run",
    "Check that update_bn was run, or inspect a file that holds the live model too.",
    symptom="There is none by itself.",
    arithmetic="A tensor n_averaged above 1 stands beside the layers, and there is no live model "
    "to compare with.",
    certainty="Certain that the weights were averaged; nothing else is certain.",
    lookalike="With the live model in the file, BN605 decides.",
    seen=("mosaicml/composer#624",),
)
STILL_INITIAL = Rule(
    "BN608",
    "copy-still-initial",
    Severity.WARNING,
    "part of the averaged copy's statistics is still the initial 0 and 1",
    "Average for longer, start with a smaller decay, begin the average at a trained model, or run "
    "update_bn on the copy.",
    symptom="In evaluation, the averaged model is far worse than the live model (the one being "
    "trained), and improves as training proceeds.",
    arithmetic="After n steps of decay d, the copy still holds q = d^n of what it began with. If "
    "that was a fresh layer, running_var = q + (1 - q) live and running_mean = (1 - q) live, with "
    "one q in every channel, and no variance lies below q. d = 0.9998 leaves 85% after 800 steps, "
    "and 1% after 23024.",
    certainty="Likely: one q explains the copy in most channels of all its layers, and a common "
    "factor does not. The variances that were averaged are no longer known, so the live model's "
    "current ones are used instead; this makes q uncertain by about a tenth.",
    lookalike="A copy that began at a trained model keeps that model's statistics (BN609). A q "
    "below a tenth cannot be distinguished from a change in the live model's variances.",
    formerly=("BN604",),
    seen=("huggingface/pytorch-image-models#245",),
    sure=Certainty.LIKELY,
)
LEFT_BEHIND = Rule(
    "BN609",
    "copy-left-behind",
    Severity.WARNING,
    "the averaged copy's weights follow the live model's, but its statistics do not",
    "Average or copy the buffers along with the parameters, or run update_bn on the copy. If that "
    "was done, nothing needs fixing.",
    symptom="In evaluation, the averaged model is worse than the live model (the one being "
    "trained), and the gap grows as training proceeds.",
    arithmetic="The copy's counter is lower than the live model's. Relative to their size, its "
    "statistics also differ more from the live model's than its weights do, at least 5 times as "
    "much: normalised with the copy's statistics, the live layer's activations would be off by at "
    "least 0.5 standard deviations in the median channel. If the median layer is off by at least "
    "0.3, and by 8 times as much as the weights, or if a quarter of the layers are reported, all "
    "layers of the copy are.",
    certainty="Likely. Averaging over parameters() leaves the buffers at the values they had when "
    "the copy was made; if the copy's counter is 300 and the live model's is 600, that was at "
    "batch 300. A counter of 0 or 1 says less, since averages often leave out integer buffers, and "
    "then the distances must be twice as large.",
    lookalike="A copy whose statistics were re-estimated on other data looks the same. If only the "
    "counter is behind, it was truncated or left out (BN604).",
    formerly=("BN604",),
    sure=Certainty.LIKELY,
)

FAR = 0.5
"""The distance of a layer's statistics from the live ones, in standard deviations, from which the
layer is reported, if it is also BEYOND_WEIGHTS times that of the weights. Averages of buffers that
lag as the weights do stay below one of the two."""
BEYOND_WEIGHTS = 5.0

FAR_IN_ALL = 0.3
"""The same for the median over a copy's layers. Live statistics of batches of 4 values scatter by
0.2, and an average does not, however close the weights are."""
BEYOND_WEIGHTS_IN_ALL = 8.0

MANY = 0.25
"""The share of a copy's layers that must be far for the others to be left behind with them."""

LESS_SURE = 2.0
"""The factor on these numbers where the copy's counter is 0 or 1, as in averages that leave out
integers."""

UNKNOWN = Pair(("", ""), None, None, None)
"""What is known of a pair whose numbers could not be read."""


def check_copies(file: Checkpoint) -> list[Finding]:
    """BN602 to BN605, BN608 and BN609: averaged copies beside the live model."""
    by_name = {layer.name: layer for layer in file.layers}
    findings: list[Finding] = []
    fine: dict[tuple[str, str], list[str]] = {}
    behind = _left_behind(file, by_name)
    for name, live_name in file.twins.items():
        copy, live = by_name[name], by_name[live_name]
        if not (copy.has_statistics and live.has_statistics):
            continue
        pair = file.pairs.get(name, UNKNOWN)
        if copy.untrained or live.untrained:
            continue  # BN208 to BN210
        if copy.initial:
            if not live.initial and name not in file.followers:
                findings.append(_never_updated(copy, live))
        elif copy.statistics_digest == live.statistics_digest:
            if copy.affine_digest != live.affine_digest:
                findings.append(_live_statistics(copy, live, file.averaged_count(name)))
        elif pair.initial_weight is not None:
            findings.append(_still_initial(copy, live, pair.initial_weight))
        elif name in behind:
            findings.append(_behind(copy, live, pair))
        else:
            fine.setdefault(pair.root, []).append(name)
    return findings + [_fine(file, names, by_name) for names in fine.values()]


def check_averaged(file: Checkpoint) -> list[Finding]:
    """BN606: averaged weights without the live model."""
    return [
        AVERAGED.finding(
            f"{root}.n_averaged" if root else "n_averaged",
            f"n_averaged is {count:g}, and the file has no live model to compare with",
            {"n_averaged": count},
        )
        for root, count in file.averaged.items()
        if count > 1 and not any(is_below(name, root) for name in file.twins)
    ]


FILE_CHECKS = (check_copies, check_averaged)


def _never_updated(copy: Summary, live: Summary) -> Finding:
    """BN602: the copy's statistics are the initial ones, and maybe all of the copy is."""
    cause, why = "buffers-left-out", "Probably the parameters were copied without the buffers."
    if copy.affine == "initial" and live.affine != "initial":
        cause = "never-updated"
        why = "Weight and bias are the initial ones too: nothing of the copy was ever updated."
    return _finding(
        COPY_INITIAL,
        copy,
        live,
        "the statistics are exactly 0 and 1 in every channel, unlike the live model's",
        cause,
        f"The live layer is {_named(live)}. {why}",
    )


def _live_statistics(copy: Summary, live: Summary, count: float | None) -> Finding:
    """BN603 or BN605: the live model's statistics under other weights."""
    if count is not None and count > 1:
        return _finding(
            NO_UPDATE_BN,
            copy,
            live,
            f"n_averaged is {count:g}, but the statistics are the live model's, bit for bit",
            "update-bn-not-run",
            f"The live layer is {_named(live)}, whose weight or bias differs.",
            n_averaged=count,
        )
    return _finding(
        COPY_OF_BUFFERS,
        copy,
        live,
        "the statistics are the live model's, bit for bit, but weight or bias is not",
        "buffers-copied",
        f"The live layer is {_named(live)}.",
    )


def _still_initial(copy: Summary, live: Summary, weight: float) -> Finding:
    """BN608: the initial 0 and 1 are part of the copy's statistics."""
    count = live.counter
    digits = ".2g" if weight < 0.99 else ".3g"
    decay = weight ** (1 / count) if count is not None and count > 0 and weight < 1 else None
    said = ""
    if decay is not None and decay < 1:  # to two digits of what a step takes
        places = 1 - math.floor(math.log10(1 - decay))
        said = f", as after {plain_count(count or 0)} steps of decay {decay:.{places}f}"
    return _finding(
        STILL_INITIAL,
        copy,
        live,
        f"about {percent(weight)} of each statistic is still the initial 0 or 1{said}",
        "averaged-too-briefly",
        f"running_var is {weight:{digits}} + {1 - weight:.2g} times that of {_named(live)}.",
        initial_weight=weight,
        decay=decay,
        num_batches_tracked=copy.counter,
        live_num_batches_tracked=count,
    )


def _left_behind(file: Checkpoint, by_name: Mapping[str, Summary]) -> set[str]:
    """The layers whose statistics stayed where they were when the copy was made.

    That is each layer that is far from its live twin. Where many are, or all are rather far, it is
    every layer of that copy whose counter is behind: averaging that left out one buffer left out
    all.
    """
    parts: dict[tuple[str, str], list[tuple[str, float, float]]] = {}
    for name, pair in file.pairs.items():
        ours, count = by_name[name].counter, by_name[file.twins[name]].counter
        if ours is None or count is None or not 0 <= ours < count:
            continue
        if (file.averaged_count(name) or 0) > 1:  # update_bn counts its own batches alone
            continue
        apart, weights = pair.statistics_apart, pair.weights_apart
        if apart is None or weights is None or weights > ALIKE:
            continue
        sure = 1 if ours > 1 else LESS_SURE
        beyond = apart / weights if weights else math.inf
        parts.setdefault(pair.root, []).append((name, apart / sure, beyond / sure))
    found: set[str] = set()
    for layers in parts.values():
        far = {name for name, apart, beyond in layers if apart >= FAR and beyond >= BEYOND_WEIGHTS}
        middle = [middle_of(values) or 0.0 for values in list(zip(*layers, strict=True))[1:]]
        together = middle[0] >= FAR_IN_ALL and middle[1] >= BEYOND_WEIGHTS_IN_ALL
        if together or len(far) >= MANY * len(layers):
            far = {name for name, _, _ in layers}
        found |= far
    return found


def _behind(copy: Summary, live: Summary, pair: Pair) -> Finding:
    """BN609: the copy's statistics did not move with the live ones."""
    apart, weights = pair.statistics_apart, pair.weights_apart
    return _finding(
        LEFT_BEHIND,
        copy,
        live,
        f"its statistics differ from the live layer's by {apart or 0:.3g} std, its weights by "
        f"{percent(weights or 0)}",
        "buffers-left-behind",
        f"Both are medians. num_batches_tracked is {plain_count(copy.counter or 0)}, and "
        f"{plain_count(live.counter or 0)} in {_named(live)}: the statistics did not move with "
        "the live ones, unless they were re-estimated.",
        num_batches_tracked=copy.counter,
        live_num_batches_tracked=live.counter,
        statistics_apart=apart,
        weights_apart=weights,
    )


def _fine(file: Checkpoint, names: list[str], by_name: dict[str, Summary]) -> Finding:
    """BN604: layers of one copy whose statistics differ from the live ones, with no fault."""
    live = [by_name[file.twins[name]] for name in names]
    apart = middle_of(pair.statistics_apart for name in names if (pair := file.pairs.get(name)))
    weights = middle_of(pair.weights_apart for name in names if (pair := file.pairs.get(name)))
    behind = [
        by_name[name].counter
        for name, other in zip(names, live, strict=True)
        if (ours := by_name[name].counter) is not None
        and other.counter is not None
        and ours < other.counter
    ]
    one = len(names) == 1
    said = f"{len(names)} layer{' has' if one else 's have'} statistics other than the live model's"
    if apart is not None:
        said += f", {apart:.2g} std away in the median"
    detail = (
        f"The live layer of the first is {_named(live[0])}. They were averaged or re-estimated."
    )
    if behind:
        detail += f" {len(behind)} counter{'s are' if len(behind) > 1 else ' is'} behind the live "
        detail += f"one{'s' * (len(behind) > 1)}."
    return COPY_AVERAGED.finding(
        label(names[0]),
        said,
        {
            "layers": names,
            "statistics_apart": apart,
            "weights_apart": weights,
            "counters_behind": len(behind),
        },
        detail=detail,
        places=("averaged copies",),
    )


def _named(layer: Summary) -> str:
    """A layer's name in a sentence."""
    return in_prose(label(layer.name))


def _finding(
    rule: Rule,
    copy: Summary,
    live: Summary,
    message: str,
    cause: str,
    detail: str,
    **numbers: Value,
) -> Finding:
    """A finding at a copy's layer, compared with the live one."""
    evidence = {"layer": copy.name, "live": live.name, "cause": cause, **numbers}
    return rule.finding(label(copy.name), message, evidence, detail=detail)
