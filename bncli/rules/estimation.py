"""BN1xx: statistics that were never estimated, or not long enough, or are not there."""

from __future__ import annotations

import re

from bncli.report import Finding, Severity
from bncli.rules.copies import parameters_alone
from bncli.rules.interface import Rule
from bncli.rules.layers import Affine, Bare, Checkpoint, Summary, label

NEVER_ESTIMATED = Rule(
    "BN101",
    "never-estimated",
    Severity.ERROR,
    "The layer is trained, but its running statistics are still the initial 0 and 1.",
    "Run training batches through the layer in training mode without a gradient, or take the "
    "statistics from an earlier checkpoint.",
    symptom="Good in training mode, far off in evaluation, though loading raised no complaint.",
    arithmetic="running_mean is exactly 0 and running_var exactly 1 in every channel, weight or "
    "bias has left its initial value, and other layers of the file have statistics of their own. "
    "One update with any data leaves neither number exact.",
    certainty="As good as certain: no batch gives exactly 0 and 1 in every channel.",
    lookalike="A frozen layer whose statistics were folded into weight and bias has 0 and 1 too; "
    "it has no counter, and neither have its siblings real statistics without one. A new head that "
    "was never trained still has its initial bias, and a constant or random weight (BN103).",
    seen=("cleinc/bts#90", "huggingface/transformers#43520"),
)
NEVER_ESTIMATED_ANYWHERE = Rule(
    "BN102",
    "never-estimated-anywhere",
    Severity.WARNING,
    "Layers are trained, but no layer of the file has running statistics other than 0 and 1.",
    "If the network is evaluated with stored statistics, estimate them by a pass over the training "
    "data in training mode.",
    symptom="The network was only ever run in evaluation mode, or its statistics were reset by a "
    "later initialisation; it works only as it was trained.",
    arithmetic="As BN101, for every layer of the file, with a counter of 0.",
    certainty="The statistics are the initial ones for certain. Whether that is a fault is not: a "
    "network that was trained in evaluation mode expects just these.",
    lookalike="Frozen layers without a counter, whose weight and bias hold everything, are left "
    "out.",
    seen=("cleinc/bts#90", "huggingface/transformers#43520"),
)
FRESH = Rule(
    "BN103",
    "fresh",
    Severity.INFO,
    "The layer is as its module was made: statistics 0 and 1, weight and bias untouched.",
    "Train it before it is used, or load the checkpoint that was meant.",
    symptom="A layer that was never run in training mode: a new head, a skipped branch, a fresh "
    "model, or one whose statistics wait in a copy that was folded.",
    arithmetic="running_mean is exactly 0, running_var exactly 1, the counter 0 or missing, and "
    "weight and bias are constants, or the weight is random and the bias 0, or they hold what a "
    "frozen layer folds into them.",
    certainty="Certain as a fact, and harmless by itself.",
    lookalike="The same statistics under a trained weight or bias are BN101 or BN102.",
    seen=("facebookresearch/maskrcnn-benchmark#267",),
)
UNCHANGED = Rule(
    "BN104",
    "counted-but-unchanged",
    Severity.WARNING,
    "The counter says that batches were seen, and the statistics are still exactly 0 and 1.",
    "Look for a momentum of 0 (None was meant), or for code that resets the statistics.",
    symptom="Accuracy near chance in evaluation after training or after averaging weights.",
    arithmetic="num_batches_tracked is above 0 while running_mean is exactly 0 and running_var "
    "exactly 1. Every update with momentum m above 0 moves both; with momentum 0 only the counter "
    "moves.",
    certainty="Certain that no update took effect. Empty batches count too and change nothing.",
    lookalike="A reset by reset_running_stats() also sets the counter to 0, so that it is BN101 to "
    "BN103 instead.",
    seen=("Cadene/pretrained-models.pytorch#5", "Lightning-AI/pytorch-lightning#14866"),
)
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
    "stores it or --momentum gives it.",
    lookalike="An averaged copy keeps a counter of 0 or 1 beside finished statistics.",
    seen=("google/flax#1360", "keras-team/keras#9003", "patrick-kidger/equinox#675"),
)
MISSING_STATISTICS = Rule(
    "BN106",
    "missing-statistics",
    Severity.ERROR,
    "A BatchNorm layer has no running statistics, while others of the file have them.",
    "Save state_dict() and not parameters(): running statistics are buffers.",
    symptom="Loading with strict=False succeeds, and evaluation uses 0 and 1 in these layers.",
    arithmetic="One of running_mean and running_var is there without the other, or a counter is "
    "there without them, or the stored module or the layer's name is a BatchNorm's while other "
    "layers of the file have both.",
    certainty="Certain where half of the pair, the counter or the class is there; by its name "
    "alone (bn, batchnorm) it is a BatchNorm in all but odd networks.",
    lookalike="LayerNorm, GroupNorm and RMSNorm have a weight and a bias of one axis and never "
    "have statistics; a neutral name such as norm1 is not blamed. A copy of the parameters alone, "
    "such as an average or an optimiser's moments, borrows the network's statistics. A module made "
    "with track_running_stats=False has none by choice.",
    seen=("huggingface/peft#1732", "TsingZ0/PFLlib#260", "NVIDIA/NVFlare#1718"),
)

RULES = (
    NEVER_ESTIMATED,
    NEVER_ESTIMATED_ANYWHERE,
    FRESH,
    UNCHANGED,
    INITIAL_VALUE_REMAINS,
    MISSING_STATISTICS,
)

MOST_WEIGHT = 0.01
"""The weight of the initial value in the statistics from which it is remarked."""

_FRESH_AFFINE: dict[Affine, tuple[str, str]] = {
    "none": (", and there is no weight or bias.", "untrained"),
    "initial": (", and weight and bias are the initial ones.", "untrained"),
    "weight": (
        ", the bias is 0, and the weight has values of its own: random, or trained without it.",
        "random",
    ),
    "trained": (
        " beside weight and bias of their own: folded into them, as frozen layers do, or random.",
        "folded-or-random",
    ),
}
"""What weight and bias say of a layer that is fresh: the rest of its sentence, and the cause."""

_NAMED = re.compile(
    r"(?:^|[^a-z])bn\d*(?:$|[^a-z])|batch_?norm|(?<![a-z])bn(?=\d|$)", re.IGNORECASE
)


def initial_weight(momentum: float | None, tracked: float) -> float:
    """What the initial value weighs after `tracked` batches: (1 - momentum)^tracked.

    0 with the cumulative average, whose first batch wipes it, and where either is out of range.
    """
    if momentum is None or not 0 <= momentum <= 1 or not tracked >= 1:
        return 0.0
    return float((1 - momentum) ** tracked)


def named_batch_norm(name: str) -> bool:
    """Whether the last part of a name says BatchNorm."""
    return _NAMED.search(re.split(r"[./]", name)[-1]) is not None


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


def check_initial(file: Checkpoint) -> list[Finding]:
    """BN101 to BN104: layers whose statistics are exactly 0 and 1."""
    own = file.own()
    real = [
        layer for layer in own if layer.has_statistics and not layer.initial and not layer.untrained
    ]
    findings = []
    for layer in own:
        if not layer.initial:
            continue
        siblings = [other for other in real if layer.has_counter or not other.has_counter]
        # A weight of its own above a bias of exactly 0 is how some initialise, not how one trains.
        trained = layer.affine == "trained"
        counted = layer.counter is not None and layer.counter > 0
        # Frozen layers have no counter and fold everything into weight and bias.
        folds = layer.frozen or (not layer.has_counter and not siblings)
        if trained and siblings and not folds:
            rule = NEVER_ESTIMATED
            fact = (
                f"running_mean is exactly 0 and running_var exactly 1 in {_all(layer)}, weight or "
                f"bias is trained, and {_count(len(siblings))} of the file "
                f"{'has' if len(siblings) == 1 else 'have'} statistics of their own: "
                + (
                    f"num_batches_tracked is {layer.counter:g}, so that the momentum was 0, or the "
                    "statistics were reset without the counter."
                    if counted
                    else "it was never run in training mode, or its statistics were reset."
                )
            )
            cause = "momentum-0-or-reset" if counted else "never-in-training-mode-or-reset"
        elif counted:
            rule = UNCHANGED
            fact = (
                f"num_batches_tracked is {layer.counter:g}, and running_mean is exactly 0 and "
                f"running_var exactly 1 in {_all(layer)}: the momentum was 0, or the statistics "
                "were reset without the counter."
            )
            cause = "momentum-0-or-reset"
        elif trained and not folds:
            rule = NEVER_ESTIMATED_ANYWHERE
            fact = (
                f"running_mean is exactly 0 and running_var exactly 1 in {_all(layer)} though "
                "weight or bias is trained, and so it is in every layer: the network was only "
                "run in evaluation mode, or its statistics were reset."
            )
            cause = "never-in-training-mode-or-reset"
        else:
            rule = FRESH
            why, cause = _FRESH_AFFINE[layer.affine]
            fact = f"running_mean is exactly 0 and running_var exactly 1 in {_all(layer)}{why}"
        findings.append(_finding(rule, layer, fact, cause, num_batches_tracked=layer.counter))
    return findings


def check_initial_weight(file: Checkpoint) -> list[Finding]:
    """BN105, by the counter; silent where any layer proves that the counter is wrong."""
    own = file.own()
    wrong = {layer.counter for layer in own if counter_too_small(layer)}
    findings = []
    for layer in own:
        if not layer.has_statistics or layer.initial or layer.untrained or layer.counter is None:
            continue
        weight = initial_weight(layer.momentum, layer.counter)
        if weight <= MOST_WEIGHT or layer.counter in wrong:
            continue
        if (file.averaged_count(layer.name) or 0) > 1 and layer.momentum_assumed:
            continue  # update_bn sets momentum to none, and counts its own batches alone
        least = layer.least_var  # None where it is NaN
        batches = "1 batch" if layer.counter == 1 else f"{layer.counter:g} batches"
        fact = (
            f"after {batches} at momentum {layer.momentum:g}{' (assumed)' * layer.momentum_assumed}"
            f" the initial 0 and 1 still weigh {weight:.2g}"
        )
        if least is not None:
            without = max(0.0, (least - weight) / (1 - weight))
            fact += f"; without them the least running_var would be {without:.4g} instead of "
            fact += f"{least:.4g}"
        findings.append(
            _finding(
                INITIAL_VALUE_REMAINS,
                layer,
                f"{fact}.",
                "few-batches",
                num_batches_tracked=layer.counter,
                momentum=layer.momentum,
                initial_weight=weight,
                least_var=least,
            )
        )
    return findings


def check_missing(file: Checkpoint) -> list[Finding]:
    """BN106: layers without statistics beside layers with them."""
    whole = [layer for layer in file.own() if layer.has_statistics]
    siblings = len(whole)
    counted = all(layer.has_counter for layer in whole)
    copies = parameters_alone(file)
    findings = []
    for bare in file.bare:
        if bare.name in copies:
            continue
        cause, fact = _why_missing(bare, siblings, counted=counted)
        if cause:
            findings.append(
                MISSING_STATISTICS.finding(
                    label(bare.name),
                    f"{fact}; {_count(siblings)} of the file {'has' if siblings == 1 else 'have'} "
                    "both.",
                    {"layer": bare.name, "cause": cause, "tensors": bare.leaves},
                )
            )
    for layer in file.own():
        if layer.lacks_statistics and siblings and not layer.frozen:
            fact = (
                "it is stored as a BatchNorm that tracks its statistics and has none; "
                f"{_count(siblings)} of the file {'has' if siblings == 1 else 'have'} both."
            )
            findings.append(_finding(MISSING_STATISTICS, layer, fact, "buffers-not-saved"))
    return findings


CHECKS = (check_initial, check_initial_weight, check_missing)


def _why_missing(bare: Bare, siblings: int, *, counted: bool) -> tuple[str, str]:
    """The cause and the fact, or "" twice where the layer may well be no BatchNorm.

    `counted` says that all layers with statistics have counters: then one with half of the
    statistics and none may be a norm of another kind, which divides by a variance alone, say.
    """
    statistics = {"running_mean", "running_var"} & set(bare.leaves)
    known = "num_batches_tracked" in bare.leaves or named_batch_norm(bare.name)
    if len(statistics) == 1:
        if counted and not known:
            return "", ""
        there = statistics.pop()
        lacks = "running_var" if there == "running_mean" else "running_mean"
        return "half-saved", f"it has {there} and no {lacks}"
    if not siblings:
        return "", ""
    if "num_batches_tracked" in bare.leaves:
        return "buffers-not-saved", "it has a counter and neither running_mean nor running_var"
    if {"weight", "bias"} <= set(bare.leaves) and named_batch_norm(bare.name):
        return (
            "buffers-not-saved",
            "by its name it is a BatchNorm, and it has weight and bias alone",
        )
    return "", ""


def _finding(rule: Rule, layer: Summary, message: str, cause: str, **numbers: object) -> Finding:
    evidence = {"layer": layer.name, "cause": cause, "channels_total": layer.channels, **numbers}
    return rule.finding(label(layer.name), message, evidence)  # type: ignore[arg-type]  # plain values


def _all(layer: Summary) -> str:
    return f"all {layer.channels} channels" if layer.channels != 1 else "its one channel"


def _count(layers: int) -> str:
    return f"{layers} other layer{'s' * (layers != 1)}"
