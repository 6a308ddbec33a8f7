"""BN101 to BN104, BN106: statistics that were never estimated, or are not there."""

from __future__ import annotations

import re

from bncli.report import Certainty, Finding, Severity, Value
from bncli.rulebook.copies import parameters_alone
from bncli.rulebook.interface import Rule, in_prose
from bncli.rulebook.layers import Bare, Checkpoint, label, plain_count
from bncli.rulebook.summaries import Affine, Summary

NEVER_ESTIMATED = Rule(
    "BN101",
    "never-estimated",
    Severity.ERROR,
    "weight or bias is trained, but the statistics are still the initial 0 and 1",
    "Run training batches through the layer in training mode without gradients, or copy the "
    "statistics from an earlier checkpoint.",
    symptom="The model is good in training mode and far off in evaluation, though loading raised "
    "no complaint.",
    arithmetic="running_mean is exactly 0 and running_var exactly 1 in every channel, weight or "
    "bias has left its initial value, and other layers of the file have statistics other than 0 "
    "and 1, not counting a NaN or Inf beside these. A single update with any data changes both.",
    certainty="Certain: no batch gives exactly 0 and 1 in every channel.",
    lookalike="A frozen layer whose statistics were folded into weight and bias has 0 and 1 too; "
    "it has no counter, and no other layer without a counter has real statistics. A new head that "
    "was never trained still has its initial bias, and a constant or random weight (BN103). An "
    "averaged copy is BN602.",
    seen=("cleinc/bts#90", "huggingface/transformers#43520", "DLR-RM/stable-baselines3#996"),
)
NEVER_ESTIMATED_ANYWHERE = Rule(
    "BN102",
    "never-estimated-anywhere",
    Severity.WARNING,
    "layers are trained, but no layer has statistics other than 0 and 1",
    "If evaluation uses stored statistics, run training data through the network in training mode "
    "first.",
    symptom="The network was run only in evaluation mode, or a later initialisation reset its "
    "statistics; it works only the way it was trained.",
    arithmetic="As for BN101, but in every layer of the file, and with a counter of 0.",
    certainty="Likely a fault, and certain as a fact: the statistics are the initial ones. A "
    "network that was trained in evaluation mode expects exactly these.",
    lookalike="Frozen layers without a counter, whose weight and bias hold everything, are not "
    "reported.",
    seen=("cleinc/bts#90", "huggingface/transformers#43520"),
    sure=Certainty.LIKELY,
)
FRESH = Rule(
    "BN103",
    "fresh",
    Severity.INFO,
    "statistics are the initial 0 and 1, untrained or folded into weight and bias",
    "Train the layer before you use it, or load the checkpoint that was meant. A frozen layer with "
    "folded statistics needs nothing.",
    symptom="The layer was never run in training mode (a new head, a skipped branch, a fresh "
    "model), or its statistics were folded into weight and bias.",
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
    "batches were counted, but the statistics are still exactly 0 and 1",
    "Look for a momentum of 0 (None was probably meant), or for code that resets the statistics.",
    symptom="After training, or after averaging weights, accuracy is near chance in evaluation.",
    arithmetic="num_batches_tracked is above 0 while running_mean is exactly 0 and running_var "
    "exactly 1. Every update with a momentum m above 0 moves both; with momentum 0 only the "
    "counter moves.",
    certainty="Certain that no update took effect. Empty batches also count and change nothing.",
    lookalike="reset_running_stats() also sets the counter to 0, so such a reset is BN101 to BN103 "
    "instead.",
    seen=("Cadene/pretrained-models.pytorch#5", "Lightning-AI/pytorch-lightning#14866"),
)
MISSING_STATISTICS = Rule(
    "BN106",
    "missing-statistics",
    Severity.ERROR,
    "running statistics are missing, and other layers of the file have them",
    "Save state_dict() instead of parameters(): running statistics are buffers.",
    symptom="Loading with strict=False succeeds, and evaluation uses 0 and 1 in these layers.",
    arithmetic="One of running_mean and running_var is there without the other, or a counter is "
    "there without them, or the stored module or the layer's name is a BatchNorm's while other "
    "layers of the file have both.",
    certainty="Certain where the counter or the class is there, or half of the pair under a "
    "BatchNorm's name. Likely where only the name (bn, batchnorm) or only half of the pair says "
    "that it is a BatchNorm.",
    lookalike="LayerNorm, GroupNorm and RMSNorm have a weight and a bias of one axis and never "
    "have statistics; a neutral name such as norm1 is not reported. A copy of the parameters "
    "alone, such as an average or an optimiser's moments, uses the network's statistics. A module "
    "made with track_running_stats=False has none by choice.",
    seen=("huggingface/peft#1732", "TsingZ0/PFLlib#260", "NVIDIA/NVFlare#1718"),
    less_sure=(Certainty.LIKELY,),
)


_FRESH_AFFINE: dict[Affine, tuple[str, str, str]] = {
    "none": ("there is no weight or bias", "", "untrained"),
    "initial": ("weight and bias are the initial ones", "", "untrained"),
    "weight": (
        "the bias is 0",
        "The weight differs from channel to channel: it is random, or was trained without a bias.",
        "random",
    ),
    "unknown": ("weight and bias could not both be read", "", "untrained"),
    "trained": (
        "weight and bias are not the initial ones",
        "The statistics were folded into them, as in frozen layers, or they are random.",
        "folded-or-random",
    ),
}
"""What weight and bias say of a fresh layer: the rest of its claim, the detail, and the cause."""

_NAMED = re.compile(
    r"(?:^|[^a-z])bn\d*(?:$|[^a-z])|batch_?norm|(?<![a-z])bn(?=\d|$)", re.IGNORECASE
)


def named_batch_norm(name: str) -> bool:
    """Whether the last part of a name says BatchNorm."""
    return _NAMED.search(re.split(r"[./]", name)[-1]) is not None


def check_initial(file: Checkpoint) -> list[Finding]:
    """BN101 to BN104: layers whose statistics are exactly 0 and 1."""
    own = file.own()
    made = [
        layer for layer in own if layer.has_statistics and not layer.initial and not layer.untrained
    ]
    real = [layer for layer in made if not layer.initial_elsewhere]
    findings = []
    by_name = {layer.name: layer for layer in file.layers}
    for name in file.followers:
        live = by_name[file.twins[name]]
        if by_name[name].initial and live.has_statistics and not live.initial:
            findings.append(_follower(by_name[name], live))
    for layer in own:
        if layer.initial:
            siblings = file.distinct(
                [other for other in real if layer.has_counter or not other.has_counter]
            )
            spoilt = len(real) < len(made)
            findings.append(_initial(layer, len(siblings), spoilt=spoilt))
    return findings


def _initial(layer: Summary, siblings: int, *, spoilt: bool) -> Finding:
    """BN101 to BN104: a layer whose statistics are 0 and 1, and that is not an averaged copy's.

    `siblings` is how many comparable layers of the file have statistics of their own; a `spoilt`
    one has nothing but NaN or Inf beside the initial values, which is no sign of training.
    """
    # A weight of its own above a bias of exactly 0 comes from initialisation, not from training.
    trained = layer.affine == "trained"
    counted = layer.counter is not None and layer.counter > 0
    cause, why = _why_counted(layer) if counted else _NEVER_RUN
    count = f"num_batches_tracked is {plain_count(layer.counter or 0)}"
    exactly = f"the statistics are exactly 0 and {layer.initial_var:g} in every channel"
    # Frozen layers have no counter and fold everything into weight and bias.
    folds = layer.frozen or (not layer.has_counter and not siblings)
    if trained and siblings and not folds:
        rule = NEVER_ESTIMATED
        said = f"{exactly}, though weight or bias is trained"
        detail = f"{_count(siblings)} of the file {_have(siblings)} statistics other than 0 and "
        detail += f"{layer.initial_var:g}. "
        detail += f"{count}, so {why}." if counted else f"{why[0].upper()}{why[1:]}."
    elif counted:
        rule = UNCHANGED
        said, detail = f"{count}, but {exactly}", f"{why[0].upper()}{why[1:]}."
    elif trained and not folds:
        rule = NEVER_ESTIMATED_ANYWHERE
        said = f"{exactly}, though weight or bias is trained"
        detail = "Apart from NaN and Inf, no" if spoilt else "No"
        detail += " layer of the file has other statistics: the network was run only in "
        detail += "evaluation mode, or its statistics were reset."
    else:
        rule = FRESH
        affine, detail, cause = _FRESH_AFFINE[layer.affine]
        if layer.frozen and layer.affine == "trained":
            detail, cause = (
                "The layer is frozen, and its statistics are folded into them.",
                "folded",
            )
        said = f"{exactly}; {affine}"
    return _finding(rule, layer, said, detail, cause, num_batches_tracked=layer.counter)


def _follower(copy: Summary, live: Summary) -> Finding:
    """BN101 for a target network and the like, whose parameters come from the live one."""
    evidence = {
        "layer": copy.name,
        "live": live.name,
        "cause": "buffers-left-out",
        "channels_total": copy.channels,
        "num_batches_tracked": copy.counter,
    }
    partner = in_prose(label(live.name))
    return NEVER_ESTIMATED.finding(
        label(copy.name),
        f"running_mean is exactly 0 and running_var exactly 1, unlike in {partner}",
        evidence,
        detail="The two networks have similar weights: the parameters were copied without the "
        "buffers.",
        hint=f"Copy running_mean and running_var of {partner} too, wherever its "
        "parameters are copied or averaged.",
    )


def check_missing(file: Checkpoint) -> list[Finding]:
    """BN106: layers without statistics beside layers with them."""
    whole = [layer for layer in file.own() if layer.has_statistics]
    siblings = len(whole)
    counted = all(layer.has_counter for layer in whole)
    copies = parameters_alone(file)
    others = f"{_count(siblings)} of the file {_have(siblings)} both." if siblings else ""
    findings = []
    for bare in file.bare:
        if bare.name in copies:
            continue
        cause, said, sure = _why_missing(bare, siblings, counted=counted)
        if cause:
            findings.append(
                MISSING_STATISTICS.finding(
                    label(bare.name),
                    said,
                    {"layer": bare.name, "cause": cause, "tensors": bare.leaves},
                    detail=others,
                    sure=sure,
                    extent=tuple(
                        leaf for leaf in ("running_mean", "running_var") if leaf not in bare.leaves
                    ),
                )
            )
    for layer in file.own():
        if layer.lacks_statistics and siblings and not layer.frozen:
            said = "running_mean and running_var are missing, though the stored module tracks them"
            findings.append(_finding(MISSING_STATISTICS, layer, said, others, "buffers-not-saved"))
    return findings


FILE_CHECKS = (check_initial, check_missing)


def _why_missing(bare: Bare, siblings: int, *, counted: bool) -> tuple[str, str, Certainty | None]:
    """The cause, the claim and how sure it is; both "" where it may well not be a BatchNorm.

    `counted` says that all layers with statistics have counters. Then a layer that has half of the
    statistics and no counter may be a norm of another kind, such as one that divides by a variance
    alone.
    """
    statistics = {"running_mean", "running_var"} & set(bare.leaves)
    has_counter = "num_batches_tracked" in bare.leaves
    known = has_counter or named_batch_norm(bare.name)
    missing = "running_mean and running_var are missing"
    if len(statistics) == 1:
        if counted and not known:
            return "", "", None
        there = statistics.pop()
        lacks = "running_var" if there == "running_mean" else "running_mean"
        said = f"{lacks} is missing, but {there} is there"
        return "half-saved", said, None if known else Certainty.LIKELY
    if not siblings:
        return "", "", None
    if has_counter:
        return "buffers-not-saved", f"{missing}, but the counter is there", None
    if {"weight", "bias"} <= set(bare.leaves) and named_batch_norm(bare.name):
        said = f"{missing}, though the layer's name says BatchNorm"
        return "buffers-not-saved", said, Certainty.LIKELY
    return "", "", None


def _finding(
    rule: Rule, layer: Summary, message: str, detail: str, cause: str, **numbers: Value
) -> Finding:
    evidence = {"layer": layer.name, "cause": cause, "channels_total": layer.channels, **numbers}
    return rule.finding(label(layer.name), message, evidence, detail=detail)


_NEVER_RUN = (
    "never-in-training-mode-or-reset",
    "the layer was never run in training mode, or its statistics were reset",
)
"""Why a layer that counted no batches has the initial statistics: the cause, and in words."""


def _why_counted(layer: Summary) -> tuple[str, str]:
    """Why a layer that counted batches has the initial statistics: the cause, and in words."""
    if layer.momentum_assumed:
        return "momentum-0-or-reset", (
            "the momentum was 0, or the statistics were reset without the counter"
        )
    if layer.momentum == 0:
        return "momentum-0", "the momentum is 0, as the file or --momentum says"
    return "reset", "the statistics were reset without the counter"


def _have(number: int) -> str:
    return "has" if number == 1 else "have"


def _count(layers: int) -> str:
    return f"{layers} other layer{'s' * (layers != 1)}"
