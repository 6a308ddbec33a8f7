"""BN105, and BN701 in a checkpoint: what the momentum does to the statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bncli.light import dataclass
from bncli.report import Certainty, Finding, Severity
from bncli.rulebook.interface import Rule, percent
from bncli.rulebook.layers import Checkpoint, label
from bncli.rulebook.running import INVERTED, LAST_ALONE, MOST_NEW_WEIGHT, span_of_average
from bncli.rulebook.summaries import Summary

INITIAL_VALUE_REMAINS = Rule(
    "BN105",
    "initial-value-remains",
    Severity.WARNING,
    "part of each statistic is still the initial 0 or 1",
    "Run more batches in training mode, give the new batch more weight for a while, or, in "
    "PyTorch, use momentum=None, which averages all batches alike.",
    symptom="A short fine-tune, or a checkpoint from the first steps, is worse in evaluation than "
    "in training.",
    arithmetic="After n batches, (1 - m)^n of each statistic is still the initial value, with m "
    "the momentum. 44 batches bring it below 1% at m = 0.1, 459 at 0.01, 4603 at 0.001. Where a "
    "variance lies below (1 - m)^n the counter itself is wrong (BN305), and this rule is silent.",
    certainty="Certain where the file stores the momentum or --momentum gives it: the share "
    "follows from the momentum and the counter. Otherwise it depends on an assumed momentum; or it "
    "is likely, where all variances lie just above some floor: no variance can fall below (1 - "
    "m)^n, so the momentum is inferred from that floor.",
    lookalike="An averaged copy keeps a counter of 0 or 1 beside finished statistics. A file that "
    "bncli recalibrate wrote holds nothing of the initial values, but keeps its counter.",
    seen=("google/flax#1360", "keras-team/keras#9003", "patrick-kidger/equinox#675"),
    less_sure=(Certainty.LIKELY, Certainty.ASSUMED),
)
MOST_WEIGHT = 0.01
"""The share of the initial value above which it is reported: a running_var that is off by 1%
changes the scale by half as much, which no network notices."""

USUAL_MOMENTA = (0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.003, 0.002, 0.001, 0.0003, 0.0001)
"""The values that people use."""
FEWEST_CROWDED = 8
"""How many channels it takes for variances just above one value to mean something: those of fewer
may lie within a factor of 2 by chance."""
MOST_SPREAD = 2.0
"""A ratio of the largest to the least variance of batches that every network's channels exceed."""


def initial_weight(momentum: float | None, tracked: float) -> float:
    """The share of the initial value after `tracked` batches: (1 - momentum)^tracked.

    0 with the cumulative average, whose first batch replaces it, and where either is out of range.
    """
    if momentum is None or not 0 <= momentum <= 1 or not tracked >= 1:
        return 0.0
    return float((1 - momentum) ** tracked)


def counter_too_small(layer: Summary) -> bool:
    """Whether a variance is smaller than what the initial 1 alone would have left of it.

    Updates never add a negative number, so every variance is at least (1 - m)^n.
    """
    if not layer.has_statistics or layer.initial or layer.untrained or layer.counter is None:
        return False
    if layer.counter == 0:
        return True
    if divided_out(layer):
        return False
    weight = initial_weight(layer.momentum, layer.counter)
    if layer.statistics_dtype == "float16" and weight < 2.0**-14:  # subnormal, or lost
        return False
    if weight < 1e-30 or layer.least_var is None or layer.least_var < 0:  # float32 loses digits
        return False
    rounding = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(layer.statistics_dtype or "", 0.0)
    slack = 1e-3 + layer.counter * rounding
    return layer.least_var < weight * (1 - slack)


def divided_out(layer: Summary) -> bool:
    """Whether the layer's framework takes the initial values out of its averages, as Haiku does."""
    if layer.module is None:
        return False
    from bncli.running_stats.stored import convention_of

    row = convention_of(layer.module)
    return row is not None and row.debias != "no"


def check_initial_weight(file: Checkpoint) -> list[Finding]:
    """BN105, by the counter; silent where any layer proves that the counter is wrong."""
    own = file.distinct(file.own())
    wrong = {layer.counter for layer in own if counter_too_small(layer)}
    revealed = revealed_momenta(own)
    findings = []
    for layer in own:
        counter = layer.counter
        if not layer.has_statistics or layer.initial or layer.untrained or counter is None:
            continue
        likely = revealed.get(counter) if layer.momentum_assumed else None
        weight = initial_weight(layer.momentum if likely is None else likely.momentum, counter)
        if weight <= MOST_WEIGHT or counter in wrong:
            continue
        if divided_out(layer):
            continue
        if (file.averaged_count(layer.name) or 0) > 1 and layer.momentum_assumed:
            continue  # update_bn sets momentum to none, and counts its own batches alone
        findings.append(_still_initial(layer, counter, weight, likely))
    return findings


def _still_initial(
    layer: Summary, counter: float, weight: float, likely: Revealed | None
) -> Finding:
    """BN105: how much of the statistics is still initial, and which momentum that is said for."""
    least = layer.least_var  # None where it is NaN
    batches = "1 batch" if counter == 1 else f"{counter:g} batches"
    said = f"{percent(weight)} of each statistic is still the initial 0 or 1 after {batches}"
    detail = hint = ""
    if likely is not None:
        said += f" at momentum {likely.momentum:.4g} (likely)"
        detail = (
            f"All variances of the file after {batches} are {likely.least:.4g} to "
            f"{likely.greatest:.4g}, just above {weight:.4g} = (1 - {likely.momentum:.4g})^"
            f"{counter:g}: the momentum was likely {likely.momentum:.4g}, not the assumed "
            f"{layer.momentum:g}."
        )
        hint = f"{INITIAL_VALUE_REMAINS.hint} Pass --momentum if you know which it was."
    else:
        said += f" at {layer.momentum_said}"
        if least is not None and weight < 1:
            without = max(0.0, (least - weight) / (1 - weight))
            detail = f"Without that share, the least running_var would be {without:.4g} instead of "
            detail += f"{least:.4g}."
        if layer.momentum_assumed and layer.momentum is not None:
            hint = f"Pass --momentum if it was not {layer.momentum:g}. {INITIAL_VALUE_REMAINS.hint}"
    return INITIAL_VALUE_REMAINS.finding(
        label(layer.name),
        said,
        {
            "layer": layer.name,
            "cause": "few-batches",
            "channels_total": layer.channels,
            "num_batches_tracked": counter,
            "momentum": layer.momentum,
            "momentum_assumed": layer.momentum_assumed,
            "likely_momentum": None if likely is None else likely.momentum,
            "initial_weight": weight,
            "least_var": least,
        },
        detail=detail,
        hint=hint,
        sure=None if likely is None else Certainty.LIKELY,
    )


@dataclass(frozen=True, slots=True)
class Revealed:
    """The momentum that the least and the greatest variance of a file's layers reveal."""

    momentum: float
    least: float
    greatest: float


def revealed_momenta(layers: Sequence[Summary]) -> dict[int | float, Revealed]:
    """By counter, the momentum that the variances of the layers with it reveal, if they do.

    n batches leave every variance at (1 - m)^n or a little more, as little as the batches' own
    variances are below 1. So m is at least 1 - least^(1/n), and close to it where all variances
    lie just above one value. They reveal it on two conditions. The assumed momentum would make the
    batches' variances nearly the same in all of FEWEST_CROWDED channels or more, while those of a
    network lie decades apart. And the variances are further from 1 than from each other, which
    those of normalised inputs are not.
    """
    counted: dict[int | float, list[Summary]] = {}
    for layer in layers:
        made = layer.has_statistics and not (layer.initial or layer.untrained)
        if made and layer.momentum_assumed and layer.counter:
            counted.setdefault(layer.counter, []).append(layer)
    revealed = {}
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
        # If nothing of 0 and 1 is left at the assumed momentum, there is less to explain, and the
        # evidence has to be stronger.
        few = len(several) < 2 or channels < 2 * FEWEST_CROWDED or least < 0.5
        if weight <= MOST_WEIGHT and (few or likely == bound):
            continue
        revealed[counter] = Revealed(likely, least, greatest)
    return revealed


def check_momentum(file: Checkpoint) -> list[Finding]:
    """BN701: a momentum from the file or --momentum that looks like another framework's."""
    findings = []
    for layer in file.layers:
        momentum = layer.momentum
        if momentum is None or layer.momentum_assumed or not MOST_NEW_WEIGHT < momentum <= 1:
            continue
        from bncli.running_stats.stored import convention_of, stated_momentum, stored_momentum

        row, stated = convention_of(layer.module), stated_momentum(layer.module)
        if row is None or stored_momentum(layer.module) != (momentum,):
            stated = None
        elif row.momentum is not None and stated == float(row.momentum):
            continue
        elif row.weighs == "new":  # PyTorch's own sense of it
            stated = None
        graph = file.runs_as_stored and layer.module is not None and layer.module.training is False
        findings.append(_inverted(layer, momentum, stated, graph=graph))
    return findings


def _inverted(layer: Summary, momentum: float, stated: float | None, *, graph: bool) -> Finding:
    """BN701 for a weight of the new batch; `stated` is what a framework that weighs the old says.

    `momentum` is PyTorch's. A `graph` that was exported for evaluation does not use it.
    """
    from bncli.running_stats.conventions import converted_momentum
    from bncli.running_stats.frameworks import convention
    from bncli.running_stats.stored import convention_of, framework_of

    keras, pytorch = convention("keras3"), convention("pytorch")
    meant = converted_momentum(momentum, keras, pytorch)
    written, whose, said = momentum, "Keras'", f"momentum {momentum:.6g}"
    if stated is not None and (row := convention_of(layer.module)) is not None:
        meant, written, whose = momentum, stated, "PyTorch's"
        said = f"momentum {stated:.6g} ({framework_of(row)}: weighs the old value)"
    hint = LAST_ALONE
    if graph and momentum < 1:
        hint = "The graph does not use it in evaluation. Before the network is trained on, set "
        hint += f"momentum={meant:.6g} if {written:.6g} follows {whose} convention."
    elif momentum < 1:
        hint = f"If {written:.6g} follows {whose} convention, set momentum={meant:.6g} and "
        hint += "re-estimate the running statistics on training data"
        hint += " with bncli recalibrate." if stated is None else "."
    return INVERTED.finding(
        label(layer.name),
        f"{said} gives the newest batch {percent(momentum)} of the weight",
        {
            "layer": layer.name,
            "cause": "momentum-inverted",
            "momentum": momentum,
            "new_weight": momentum,
            "meant": meant,
            **({} if stated is None else {"stated_momentum": stated}),
        },
        detail=span_of_average(momentum),
        hint=hint,
    )


FILE_CHECKS = (check_initial_weight, check_momentum)
