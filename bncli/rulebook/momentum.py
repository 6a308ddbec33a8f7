"""BN105, and BN701 in a checkpoint: what the momentum makes of the statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bncli.light import dataclass
from bncli.report import Finding, Severity
from bncli.rulebook.interface import Rule
from bncli.rulebook.layers import Checkpoint, Summary, label
from bncli.rulebook.running import INVERTED, MOST_NEW_WEIGHT

INITIAL_VALUE_REMAINS = Rule(
    "BN105",
    "initial-value-remains",
    Severity.WARNING,
    "Too few batches were seen: the initial 0 and 1 are still part of the statistics.",
    "Run more batches in training mode, raise momentum for a while, or use momentum none.",
    symptom="A short fine-tune, or a checkpoint of the first steps, is worse in evaluation than in "
    "training.",
    arithmetic="After n batches the initial value weighs (1 - m)^n, with m the momentum. 44 "
    "batches bring it below 1 % at m = 0.1, 459 at 0.01, 4603 at 0.001. Where a variance lies "
    "below (1 - m)^n the counter itself is wrong (BN305) and this rule is silent.",
    certainty="Follows from the counter and the momentum; the momentum is assumed unless the file "
    "stores it or --momentum gives it. Variances that all lie just above one value betray it, as "
    "the least they can be is (1 - m)^n.",
    lookalike="An averaged copy keeps a counter of 0 or 1 beside finished statistics.",
    seen=("google/flax#1360", "keras-team/keras#9003", "patrick-kidger/equinox#675"),
)
MOST_WEIGHT = 0.01
"""The weight of the initial value in the statistics from which it is remarked: a running_var that
is off by 1 % changes the scale by half as much, which no network feels."""

USUAL_MOMENTA = (0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.003, 0.002, 0.001, 0.0003, 0.0001)
"""What people write."""
FEWEST_CROWDED = 8
"""Channels from which variances that crowd above one value say something: of fewer, all may lie
within a factor of 2 by chance."""
MOST_SPREAD = 2.0
"""The ratio of the largest to the least variance of batches that no network's channels keep to."""


def initial_weight(momentum: float | None, tracked: float) -> float:
    """What the initial value weighs after `tracked` batches: (1 - momentum)^tracked.

    0 with the cumulative average, whose first batch wipes it, and where either is out of range.
    """
    if momentum is None or not 0 <= momentum <= 1 or not tracked >= 1:
        return 0.0
    return float((1 - momentum) ** tracked)


def counter_too_small(layer: Summary) -> bool:
    """Whether a variance is smaller than the initial 1 alone would have left in it.

    Updates add what is not negative, so that every variance is at least (1 - m)^n.
    """
    if not layer.has_statistics or layer.initial or layer.untrained or layer.counter is None:
        return False
    if layer.counter == 0:
        return True
    weight = initial_weight(layer.momentum, layer.counter)
    if layer.statistics_dtype == "float16" and weight < 2.0**-14:  # which it holds in part or not
        return False
    if weight < 1e-30 or layer.least_var is None or layer.least_var < 0:  # float32 loses digits
        return False
    rounding = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(layer.statistics_dtype or "", 0.0)
    slack = 1e-3 + layer.counter * rounding
    return layer.least_var < weight * (1 - slack)


def check_initial_weight(file: Checkpoint) -> list[Finding]:
    """BN105, by the counter; silent where any layer proves that the counter is wrong."""
    own = file.own()
    wrong = {layer.counter for layer in own if counter_too_small(layer)}
    betrayed = betrayed_momenta(own)
    findings = []
    for layer in own:
        counter = layer.counter
        if not layer.has_statistics or layer.initial or layer.untrained or counter is None:
            continue
        betrays = betrayed.get(counter) if layer.momentum_assumed else None
        weight = initial_weight(layer.momentum if betrays is None else betrays.momentum, counter)
        if weight <= MOST_WEIGHT or counter in wrong:
            continue
        if (file.averaged_count(layer.name) or 0) > 1 and layer.momentum_assumed:
            continue  # update_bn sets momentum to none, and counts its own batches alone
        least = layer.least_var  # None where it is NaN
        batches = "1 batch" if counter == 1 else f"{counter:g} batches"
        hint = ""
        if betrays is not None:
            fact = (
                f"all variances of the file after {batches} are {betrays.least:.4g} to "
                f"{betrays.greatest:.4g}, just above {weight:.4g} = (1 - "
                f"{betrays.momentum:.4g})^{counter:g}: the momentum was likely "
                f"{betrays.momentum:.4g}, not the {layer.momentum:g} that is assumed, and the "
                f"initial 0 and 1 still weigh {weight:.2g}"
            )
            hint = f"{INITIAL_VALUE_REMAINS.hint} --momentum tells bncli which it was."
        else:
            fact = f"after {batches} at momentum {layer.momentum:g} the initial 0 and 1 still weigh"
            if layer.momentum_assumed:
                fact = (
                    f"after {batches} the initial 0 and 1 still weigh, if the momentum was "
                    f"{layer.momentum:g} (assumed),"
                )
            fact += f" {weight:.2g}"
            if least is not None and weight < 1:
                without = max(0.0, (least - weight) / (1 - weight))
                fact += f"; without them the least running_var would be {without:.4g} instead of "
                fact += f"{least:.4g}"
        findings.append(
            INITIAL_VALUE_REMAINS.finding(
                label(layer.name),
                f"{fact}.",
                {
                    "layer": layer.name,
                    "cause": "few-batches",
                    "channels_total": layer.channels,
                    "num_batches_tracked": counter,
                    "momentum": layer.momentum,
                    "momentum_assumed": layer.momentum_assumed,
                    "likely_momentum": None if betrays is None else betrays.momentum,
                    "initial_weight": weight,
                    "least_var": least,
                },
                hint=hint,
            )
        )
    return findings


@dataclass(frozen=True, slots=True)
class Betrayed:
    """The momentum that the least and the greatest variance of a file's layers betray."""

    momentum: float
    least: float
    greatest: float


def betrayed_momenta(layers: Sequence[Summary]) -> dict[int | float, Betrayed]:
    """For a counter, the momentum that the variances of the layers with it betray, if they do.

    n batches leave every variance at (1 - m)^n or a little more, as little as the batches' own
    variances are below 1. So m is at least 1 - least^(1/n), and that is near it where all of them
    crowd above one value. They betray it where the assumed momentum would make the batches'
    variances nearly the same in all of FEWEST_CROWDED channels or more, while those of a network
    lie decades apart; and where they are further below 1 than apart, as normalised inputs are not.
    """
    counted: dict[int | float, list[Summary]] = {}
    for layer in layers:
        made = layer.has_statistics and not (layer.initial or layer.untrained)
        if made and layer.momentum_assumed and layer.counter:
            counted.setdefault(layer.counter, []).append(layer)
    betrayed = {}
    for counter, several in counted.items():
        momenta = {layer.momentum for layer in several}
        momentum = momenta.pop()
        least = min(math.nan if (v := layer.least_var) is None else v for layer in several)
        greatest = max(math.nan if (v := layer.greatest_var) is None else v for layer in several)
        weight = initial_weight(momentum, counter)
        channels = sum(layer.channels or 0 for layer in several)
        if momenta or channels < FEWEST_CROWDED or not weight < least < greatest < 1:
            continue
        low, high = ((var - weight) / (1 - weight) for var in (least, greatest))
        if high > MOST_SPREAD * low or greatest - least > 1 - greatest:
            continue
        bound = 1 - least ** (1 / counter)
        usual = min((m for m in USUAL_MOMENTA if m >= bound * 0.999), default=bound)
        likely = usual if usual <= bound * 1.1 else bound
        # Where nothing is left of 0 and 1 as assumed, less is to be explained, and more is asked.
        few = len(several) < 2 or channels < 2 * FEWEST_CROWDED or least < 0.5
        if weight <= MOST_WEIGHT and (few or likely == bound):
            continue
        betrayed[counter] = Betrayed(likely, least, greatest)
    return betrayed


def check_momentum(file: Checkpoint) -> list[Finding]:
    """BN701: a momentum that the file or --momentum says, and that is another framework's."""
    findings = []
    for layer in file.layers:
        momentum = layer.momentum
        if momentum is None or layer.momentum_assumed or not MOST_NEW_WEIGHT < momentum <= 1:
            continue
        from bncli.running_stats.conventions import converted_momentum
        from bncli.running_stats.frameworks import convention

        meant = converted_momentum(momentum, convention("keras3"), convention("pytorch"))
        newest, lasts = f"{100 * momentum:.4g} %", f"{(2 - momentum) / momentum:.3g}"
        written = f"; if it was meant as in Keras, it is {meant:.6g} here" if momentum < 1 else ""
        findings.append(
            INVERTED.finding(
                label(layer.name),
                f"momentum {momentum:.6g} gives the newest batch a weight of {newest}, and the "
                f"statistics last {lasts} batch{'es' * (lasts != '1')}{written}.",
                {
                    "layer": layer.name,
                    "cause": "momentum-inverted",
                    "momentum": momentum,
                    "new_weight": momentum,
                    "meant": meant,
                },
            )
        )
    return findings


FILE_CHECKS = (check_initial_weight, check_momentum)
