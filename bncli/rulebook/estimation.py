"""BN101 to BN104, BN106: statistics that were never estimated, or are not there."""

from __future__ import annotations

import re

from bncli.report import Finding, Severity, Value
from bncli.rulebook.copies import parameters_alone
from bncli.rulebook.interface import Rule
from bncli.rulebook.layers import Affine, Bare, Checkpoint, Summary, label, plain_count

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
    "was never trained still has its initial bias, and a constant or random weight (BN103). A copy "
    "that follows by averaging is BN602.",
    seen=("cleinc/bts#90", "huggingface/transformers#43520", "DLR-RM/stable-baselines3#996"),
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


def named_batch_norm(name: str) -> bool:
    """Whether the last part of a name says BatchNorm."""
    return _NAMED.search(re.split(r"[./]", name)[-1]) is not None


def check_initial(file: Checkpoint) -> list[Finding]:
    """BN101 to BN104: layers whose statistics are exactly 0 and 1."""
    own = file.own()
    real = [
        layer for layer in own if layer.has_statistics and not layer.initial and not layer.untrained
    ]
    findings = []
    by_name = {layer.name: layer for layer in file.layers}
    for name in file.followers:
        live = by_name[file.twins[name]]
        if by_name[name].initial and live.has_statistics and not live.initial:
            findings.append(_follower(by_name[name], live))
    for layer in own:
        if not layer.initial:
            continue
        siblings = file.distinct(
            [other for other in real if layer.has_counter or not other.has_counter]
        )
        # A weight of its own above a bias of exactly 0 is how some initialise, not how one trains.
        trained = layer.affine == "trained"
        counted = layer.counter is not None and layer.counter > 0
        of_counted, why = _why_counted(layer)
        # Frozen layers have no counter and fold everything into weight and bias.
        folds = layer.frozen or (not layer.has_counter and not siblings)
        if trained and siblings and not folds:
            rule = NEVER_ESTIMATED
            fact = (
                f"running_mean is exactly 0 and running_var exactly 1 in {_all(layer)}, weight or "
                f"bias is trained, and {_count(len(siblings))} of the file "
                f"{'has' if len(siblings) == 1 else 'have'} statistics of their own: "
                + (
                    f"num_batches_tracked is {plain_count(layer.counter or 0)}, so that {why}."
                    if counted
                    else "it was never run in training mode, or its statistics were reset."
                )
            )
            cause = of_counted if counted else "never-in-training-mode-or-reset"
        elif counted:
            rule = UNCHANGED
            fact = (
                f"num_batches_tracked is {plain_count(layer.counter or 0)}, and running_mean is "
                f"exactly 0 and running_var exactly 1 in {_all(layer)}: {why}."
            )
            cause = of_counted
        elif trained and not folds:
            rule = NEVER_ESTIMATED_ANYWHERE
            fact = (
                f"running_mean is exactly 0 and running_var exactly 1 in {_all(layer)} though "
                "weight or bias is trained, and no layer has statistics of its own: the network "
                "was only run in evaluation mode, or its statistics were reset."
            )
            cause = "never-in-training-mode-or-reset"
        else:
            rule = FRESH
            why, cause = _FRESH_AFFINE[layer.affine]
            if layer.frozen and layer.affine == "trained":
                why, cause = " beside weight and bias into which they are folded.", "folded"
            fact = f"running_mean is exactly 0 and running_var exactly 1 in {_all(layer)}{why}"
        findings.append(_finding(rule, layer, fact, cause, num_batches_tracked=layer.counter))
    return findings


def _follower(copy: Summary, live: Summary) -> Finding:
    """BN101 for a target network and the like, which got its parameters from the live one."""
    evidence = {
        "layer": copy.name,
        "live": live.name,
        "cause": "buffers-left-out",
        "channels_total": copy.channels,
        "num_batches_tracked": copy.counter,
    }
    return NEVER_ESTIMATED.finding(
        label(copy.name),
        f"running_mean is exactly 0 and running_var exactly 1 in {_all(copy)}, while its twin "
        f"{label(live.name)} has statistics of its own and the weights of the two are alike: the "
        "parameters were copied and the buffers were not.",
        evidence,
        hint=f"Copy running_mean and running_var of {label(live.name)} too, wherever its "
        "parameters are copied or averaged.",
    )


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
                    extent=tuple(
                        leaf for leaf in ("running_mean", "running_var") if leaf not in bare.leaves
                    ),
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


FILE_CHECKS = (check_initial, check_missing)


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


def _finding(rule: Rule, layer: Summary, message: str, cause: str, **numbers: Value) -> Finding:
    evidence = {"layer": layer.name, "cause": cause, "channels_total": layer.channels, **numbers}
    return rule.finding(label(layer.name), message, evidence)


def _why_counted(layer: Summary) -> tuple[str, str]:
    """Why a layer that counted batches has the initial statistics: the cause, and in words."""
    if layer.momentum_assumed:
        return "momentum-0-or-reset", (
            "the momentum was 0, or the statistics were reset without the counter"
        )
    if layer.momentum == 0:
        return "momentum-0", "the momentum is 0, as the file or --momentum says"
    return "reset", "the statistics were reset without the counter"


def _all(layer: Summary) -> str:
    return f"all {layer.channels} channels" if layer.channels != 1 else "its one channel"


def _count(layers: int) -> str:
    return f"{layers} other layer{'s' * (layers != 1)}"
