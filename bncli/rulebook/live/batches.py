"""BN806, BN809, BN811 and BN812: batches, momentum and dropout of the training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.light import np
from bncli.report import Certainty, Finding, Severity
from bncli.rulebook.interface import Rule, percent, times
from bncli.rulebook.live.evidence import FEWEST_BATCHES, THE_INPUT, Evidence, at_layers, is_fast
from bncli.rulebook.live.measures import BLAMED, EVALUATED
from bncli.rulebook.live.scatter import SMALL_SHARE, batch_scatter, first_seen
from bncli.rulebook.order import middle_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bncli.rulebook.live.measures import LayerMeasure

DIFFER = Rule(
    "BN806",
    "batches-differ",
    Severity.WARNING,
    "the batches differ more than chance explains, as with one domain or class in each batch",
    "Shuffle the samples, in training too, or normalise each domain by itself. No stored "
    "statistics can give what training saw, so new ones may not help.",
    symptom="The model is good in training mode and worse in evaluation, although the stored "
    "statistics are right.",
    arithmetic="The variance of the batches' means, times the samples per batch, over that of the "
    "samples' means within their batches is 1 for shuffled samples. Here, in evaluation, "
    "it is above 3 and above what chance exceeds once in a million, and the batches' "
    "means scatter by more than a tenth of a standard deviation beyond chance.",
    certainty="Certain that these batches differ. That training had such batches too is likely "
    "where its loader is the one that was captured.",
    lookalike="Pixels of one image are alike, so that the means of images always differ more than "
    "those of as many independent values; they are compared by samples. Data of one domain that "
    "training did not see are BN810.",
    milder=Severity.INFO,
)
MEMORY = Rule(
    "BN809",
    "momentum-likely-too-large",
    Severity.WARNING,
    "the running statistics look like those of the last few batches",
    "Train with a smaller momentum (PyTorch's is the weight of the new batch), and re-estimate the "
    "running statistics on training data with bncli recalibrate.",
    symptom="Evaluation is noisy, and swings from one checkpoint to the next.",
    arithmetic="The stored mean's squared distance from the data's, over the variance of the "
    "batches' means, is about m/(2 - m): 0.05 at a momentum m of 0.1, 1 at 0.99. It is above a "
    "third in every layer, which a momentum above 0.5 gives, and at least 1 in half of them.",
    certainty="Likely. Weights that were trained further without their statistics look the same "
    "where the first layer's means cannot tell the two apart. A note where no layer is off by 0.1: "
    "a learning rate that stays high to the end gives such statistics too.",
    lookalike="A momentum that is known to be above 0.5 is BN701. Statistics of other weights are "
    "BN807.",
    sure=Certainty.LIKELY,
    milder=Severity.INFO,
)
SMALL = Rule(
    "BN811",
    "batches-too-small",
    Severity.WARNING,
    "the batches are so small that their own statistics are mostly chance",
    "Train with larger batches, with SyncBatchNorm over several devices, or with GroupNorm. "
    "Evaluation uses better statistics than training did, and the model learned to expect noise.",
    symptom="Training and evaluation differ although the stored statistics are right; the smaller "
    "the batch, the more.",
    arithmetic="Samples whose means have the variance s^2 give batches of n whose means have the "
    "variance s^2/n. In a layer that is off, s^2/n is more than 5% of the variance of all "
    "values, or "
    "more than 4% with fewer than 4 samples; 20 s^2 / variance samples would do.",
    certainty="Likely the cause. The share of the variance is certain.",
    lookalike="Batches that differ more than their samples' scatter gives are BN806.",
    seen=("yu-changqian/TorchSeg#95", "yassouali/pytorch-segmentation#26"),
    sure=Certainty.LIKELY,
)
DROPOUT = Rule(
    "BN812",
    "dropout-before-norm",
    Severity.WARNING,
    "dropout in front of a BatchNorm layer changes the variance that it stores",
    "Move dropout behind the last BatchNorm layer, or re-estimate the running statistics with "
    "dropout off, as bncli recalibrate does.",
    symptom="Evaluation is somewhat worse than training, and more so the higher the dropout rate.",
    arithmetic="Dropout at rate p multiplies the mean square of its input by 1/(1 - p) in "
    "training, and leaves it as it is in evaluation. With dropout off, the variances of nearly "
    "all channels are on the same side of the stored ones; with dropout on, they fit better.",
    certainty="Certain: the layer's variance was measured with dropout on and off.",
    lookalike="Other faults of the statistics move the variances of some channels up and of others "
    "down, whether dropout is on or off.",
    seen=("luigibonati/mlcolvar#205",),
)

LEAST_ERROR = 0.2
"""The predicted error from which small batches are worth a word where the gap is at its floor."""

HANDFUL = 4
"""Samples a batch below which each of them is a great part of what normalises it."""

HANDFUL_SHARE = 0.04
"""The share of the variance between batches of a handful that chance has, from which they are too
small."""

HIGH_MEMORY = 1 / 3
"""What (running_mean - mean)^2 over the batch means' variance is at a momentum of 0.5."""

TYPICAL_MEMORY = 1.0
"""What it is at a momentum of 1, and in the median layer at least: weights that still moved fast at
the end of a short training leave 0.8."""

FEWEST_LAYERS = 4
"""The layers that have to agree."""

MOST_MEMORY = 8.0
"""What it is at most, over the layers, for the statistics to be those of a batch or two: channels
move together, so that chi-square with one degree of freedom gives it."""

ONE_SIDE = 0.95
"""The share of channels whose variance without dropout is on the same side of the stored one."""

FIRST_ALONE = 3.0
"""How many times the error of every later layer the first one's is, for it to be about the data."""

MOVED = 0.05
"""How far dropout moves a variance at least, relative to it."""


def check_differ(found: Evidence) -> list[Finding]:
    """BN806: the first layers at which the batches differ more than chance."""
    judged = () if found.capture.weights_moved else found.measures
    apart = [(each.name, each.evaluation) for each in judged if each.evaluation.differ]
    source = found.capture.input
    record = None if source is None else first_seen(source, EVALUATED)
    if source is not None and record is not None:
        scatter = batch_scatter(record)
        if scatter.differ:
            apart.insert(0, (THE_INPUT, scatter))
    if not apart:
        return []
    scatter = apart[0][1]
    quiet = not found.real and not any(each.error > LEAST_ERROR for each in found.living)
    ratio = scatter.f_ratio or 0.0
    return [
        at_layers(
            DIFFER,
            [name for name, _ in apart],
            f"the batches' means vary {_round(ratio)} times as much as shuffled ones would",
            {"f_ratio": ratio, "border": scatter.border, "apart": scatter.apart},
            detail=f"Beyond chance, the batches' means scatter by {scatter.apart:.2g} std.",
            severity=Severity.INFO if quiet else None,
        )
    ]


def check_memory(found: Evidence) -> list[Finding]:
    """BN809: statistics that look like those of a batch or two."""
    layers = [each for each in found.living if each.memory is not None]
    if len(layers) < FEWEST_LAYERS or layers[0].batches < FEWEST_BATCHES or found.fits is False:
        return []
    if not (found.real or found.blamed) or any(is_fast(found, each.name) for each in layers):
        return []
    later = max(each.error for each in layers[1:])
    if found.fits is True and found.first_blamed and layers[0].error > FIRST_ALONE * later:
        return []  # the data are others than those of training
    memories = [each.memory or 0.0 for each in layers]
    if min(memories) < HIGH_MEMORY or not TYPICAL_MEMORY <= _middle(memories) <= MOST_MEMORY:
        return []
    typical = min(_middle(memories), 1.0)
    momentum = 2 * typical / (1 + typical)
    return [
        at_layers(
            MEMORY,
            [each.name for each in layers],
            f"the stored means scatter as they do at a momentum of {momentum:.2g} or more",
            {"memory": memories, "momentum": momentum},
            detail=f"They are {math.sqrt(_middle(memories)):.2g} times as far from the data's as "
            "a batch's mean is, in the median layer.",
            severity=None if max(each.error for each in layers) > BLAMED else Severity.INFO,
        )
    ]


def check_small(found: Evidence) -> list[Finding]:
    """BN811: batches of so few samples that chance moves a layer's mean, and the layer is off."""
    small = [each for each in found.living if not each.per_sample and _small(each, found)]
    if not small:
        return []
    worst = max(small, key=lambda each: each.evaluation.chance)
    size, share = worst.evaluation.size, worst.evaluation.chance
    needed = max(HANDFUL, *(each.evaluation.needed for each in small))
    return [
        at_layers(
            SMALL,
            [each.name for each in small],
            f"in batches of {size:.3g}, {percent(share)} of the variance lies between batches by "
            "chance",
            {
                "batch_size": size,
                "shares": [each.evaluation.chance for each in small],
                "needed": needed,
            },
            detail=f"Batches of {needed} samples or more would do.",
        )
    ]


def _small(each: LayerMeasure, found: Evidence) -> bool:
    """Whether a layer is off because its batches are small, or has a handful of samples each.

    Of a handful, every sample normalises itself, so that any layer of a network that is off counts.
    """
    gap = found.ratio is not None and found.real and found.believed
    if each.evaluation.size < HANDFUL:
        worst = max(other.error for other in found.living)
        return each.evaluation.chance > HANDFUL_SHARE and (gap or worst > BLAMED)
    matters = each.error > (BLAMED if gap else LEAST_ERROR)
    return each.evaluation.chance > SMALL_SHARE and matters


def _round(ratio: float) -> str:
    """A ratio to three digits, never with an exponent."""
    return f"{float(f'{ratio:.3g}'):.15g}"


def check_dropout(found: Evidence) -> list[Finding]:
    """BN812: layers whose stored variance is that of dropout."""
    hit = [each for each in found.living if _dropped(each)]
    if not hit:
        return []
    worst = max(hit, key=lambda each: abs(math.log(each.dropout.ratio if each.dropout else 1.0)))
    assert worst.dropout is not None
    return [
        at_layers(
            DROPOUT,
            [worst.name, *(each.name for each in hit if each is not worst)],
            f"with dropout off, the variance is {times(worst.dropout.ratio)} that with dropout on",
            {"ratio": worst.dropout.ratio, "as_trained": worst.dropout.stored},
            detail="With dropout on, it is "
            f"{times(worst.dropout.stored)} the stored one in the median channel.",
        )
    ]


def _dropped(each: LayerMeasure) -> bool:
    """Whether dropout explains a layer's variances: all on one side without it, and not with it."""
    effect = each.dropout
    if effect is None or not effect.one_way or abs(effect.ratio - 1) < MOVED:
        return False
    off = (each.var_ratio - 1) * (effect.ratio - 1)
    without = float(np.median(each.var_ratio))
    nearer = abs(math.log(effect.stored)) < abs(math.log(without)) / 2
    return float((off > 0).mean()) >= ONE_SIDE and nearer


def _middle(values: Iterable[float]) -> float:
    return middle_of(values) or 0.0
